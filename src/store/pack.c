/*
 * pack.c - see pack.h. Numbers of fixed width are big-endian.
 *
 * A row of ids: one byte each for the widths of hash and seq, eight for the lowest seq, then the
 * entries: what the hash is above the row's first, what the seq is above the lowest.
 */
#include "store/pack.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define HEAD 10

uint64_t eg_pack_hash(int64_t sid, int64_t key)
{
    uint64_t h = (uint64_t)key ^ (uint64_t)sid * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h >> (64 - EG_PACK_HASH_BITS);
}

/* ---- places ---- */

void eg_pack_places(struct eg_buf *out, const int64_t *seq, int n)
{
    char *const start = eg_buf_reserve(out, (size_t)n * 9);
    char *o = start;
    int64_t last = 0;
    if (start == NULL) {
        return;
    }
    for (int i = 0; i < n; i++) {
        o = eg_pack_number(o, (uint64_t)(seq[i] - last));
        last = seq[i];
    }
    out->n += (size_t)(o - start);
}

int eg_unpack_places(struct eg_slice in, int64_t seq[EG_PACK_PLACES])
{
    const uint8_t *p = (const uint8_t *)in.p;
    const uint8_t *const end = p + in.n;
    uint64_t at = 0;
    uint64_t step = 0;
    int n = 0;
    while (p != NULL && p < end) {
        p = eg_unpack_number(p, end, &step);
        at += step;
        if (p == NULL || n == EG_PACK_PLACES || step - 1 >= INT64_MAX || at > INT64_MAX) {
            return -1;
        }
        seq[n++] = (int64_t)at;
    }
    return n > 0 ? n : -1;
}

/* ---- ids ---- */

/* Bytes it takes, 0 for 0. */
static unsigned width(uint64_t v)
{
    return v != 0 ? (71 - (unsigned)__builtin_clzll(v)) / 8 : 0;
}

bool eg_pack_ids_room(const struct eg_pack_ids *p, struct eg_pack_id next)
{
    if (p->n == 0 || next.hash == p->v[p->n - 1].hash) {
        return true;
    }
    const int64_t low = next.seq < p->low ? next.seq : p->low;
    const int64_t high = next.seq > p->high ? next.seq : p->high;
    const size_t each = width(next.hash - p->v[0].hash) + width((uint64_t)(high - low));
    return HEAD + (size_t)(p->n + 1) * each <= EG_PACK_ID_BYTES;
}

enum eg_err eg_pack_ids_add(struct eg_pack_ids *p, struct eg_pack_id next)
{
    if (p->n == p->cap) {
        const int cap = p->cap > 0 ? p->cap * 2 : 1024;
        struct eg_pack_id *v = realloc(p->v, (size_t)cap * sizeof(*v));
        if (v == NULL) {
            return EG_ENOMEM;
        }
        p->v = v;
        p->cap = cap;
    }
    p->low = p->n == 0 || next.seq < p->low ? next.seq : p->low;
    p->high = p->n == 0 || next.seq > p->high ? next.seq : p->high;
    p->v[p->n++] = next;
    return EG_OK;
}

/* Writes eight bytes, of which `bytes` count. */
static char *put_fixed(char *o, uint64_t v, unsigned bytes)
{
    const uint64_t top = bytes > 0 ? htobe64(v << (64 - 8 * bytes)) : 0;
    memcpy(o, &top, sizeof(top));
    return o + bytes;
}

/* Reads the eight bytes that end behind the number. */
static uint64_t get_fixed(const uint8_t *p, unsigned bytes)
{
    uint64_t v;
    memcpy(&v, p + bytes - sizeof(v), sizeof(v));
    v = be64toh(v);
    return bytes < 8 ? v & ((UINT64_C(1) << 8 * bytes) - 1) : v;
}

void eg_pack_ids_take(struct eg_pack_ids *p, struct eg_buf *out)
{
    const unsigned hash_bytes = width(p->v[p->n - 1].hash - p->v[0].hash);
    /* One byte at least, so that the number of entries follows from the length. */
    const unsigned seq_bytes = p->high > p->low ? width((uint64_t)(p->high - p->low)) : 1;
    char *const start = eg_buf_reserve(out, HEAD + (size_t)p->n * (hash_bytes + seq_bytes) + 8);
    char *o = start;
    if (start != NULL) {
        *o++ = (char)hash_bytes;
        *o++ = (char)seq_bytes;
        o = put_fixed(o, (uint64_t)p->low, 8);
        for (int i = 0; i < p->n; i++) {
            o = put_fixed(o, p->v[i].hash - p->v[0].hash, hash_bytes);
            o = put_fixed(o, (uint64_t)(p->v[i].seq - p->low), seq_bytes);
        }
        out->n += (size_t)(o - start);
    }
    p->n = 0;
}

void eg_pack_ids_free(struct eg_pack_ids *p)
{
    free(p->v);
    *p = (struct eg_pack_ids){0};
}

bool eg_packed_ids_open(struct eg_packed_ids *ids, uint64_t hash, struct eg_slice in)
{
    const uint8_t *const p = (const uint8_t *)in.p;
    if (in.n <= HEAD || p[0] > 8 || p[1] < 1 || p[1] > 8) {
        return false;
    }
    ids->hash_bytes = p[0];
    ids->seq_bytes = p[1];
    ids->low = (int64_t)get_fixed(p + 2, 8); /* from here on eight bytes lie before each number */
    ids->hash = hash;
    ids->p = p + HEAD;
    const size_t each = ids->hash_bytes + ids->seq_bytes;
    ids->n = (int)((in.n - HEAD) / each);
    return (in.n - HEAD) % each == 0;
}

struct eg_pack_id eg_packed_ids_at(const struct eg_packed_ids *ids, int i)
{
    const uint8_t *const p = ids->p + (size_t)i * (ids->hash_bytes + ids->seq_bytes);
    return (struct eg_pack_id){ids->hash + get_fixed(p, ids->hash_bytes),
                               ids->low + (int64_t)get_fixed(p + ids->hash_bytes, ids->seq_bytes)};
}

int eg_packed_ids_find(const struct eg_packed_ids *ids, struct eg_pack_id from)
{
    int low = 0;
    int high = ids->n;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        const struct eg_pack_id e = eg_packed_ids_at(ids, middle);
        if (e.hash < from.hash || (e.hash == from.hash && e.seq < from.seq)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}
