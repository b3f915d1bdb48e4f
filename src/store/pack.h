/*
 * pack.h - private to src/store: how the index of the log is packed into rows. Pure.
 *
 * Places of one session: consecutive cursors, so only their seqs are kept, each as the distance
 * from the one before, about two bytes a place. Ids: 40 bits of a hash of session and id, and a
 * seq; sorted by hash, all entries of a row of one width, about seven bytes an id. What an id leads
 * to has to be compared with the event: 40 bits can be those of another.
 */
#ifndef EG_STORE_PACK_H
#define EG_STORE_PACK_H

#include "base/bytes.h"

#define EG_PACK_PLACES 256    /* in a row */
#define EG_PACK_ID_BYTES 8140 /* of a row: with its head it fills a page of 8192 bytes */
#define EG_PACK_HASH_BITS 40
#define EG_PACK_HASH_MASK ((UINT64_C(1) << EG_PACK_HASH_BITS) - 1)

/* A number of variable length, at most 10 bytes: seven bits a byte, lowest first, the top bit set
 * on all but the last. The place behind it. */
static inline char *eg_pack_number(char *to, uint64_t v)
{
    while (v >= 0x80) {
        *to++ = (char)(v | 0x80);
        v >>= 7;
    }
    *to++ = (char)v;
    return to;
}
/* The place behind it; NULL: there is none in p..end. */
static inline const uint8_t *eg_unpack_number(const uint8_t *p, const uint8_t *end, uint64_t *out)
{
    uint64_t v = 0;
    for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
        v |= (uint64_t)(*p & 0x7f) << shift;
        if ((*p++ & 0x80) == 0) {
            *out = v;
            return p;
        }
    }
    return NULL;
}

/* key: of the event's id in its session, see eg_walk_key. */
uint64_t eg_pack_hash(int64_t sid, int64_t key);

/* Rising seqs, n <= EG_PACK_PLACES. */
void eg_pack_places(struct eg_buf *out, const int64_t *seq, int n);
/* How many there are, at most EG_PACK_PLACES; -1 when the bytes are not of eg_pack_places. */
int eg_unpack_places(struct eg_slice in, int64_t seq[EG_PACK_PLACES]);

struct eg_pack_id {
    uint64_t hash;
    int64_t seq;
};

/* Ids that are being collected for one row. */
struct eg_pack_ids {
    struct eg_pack_id *v;
    int n, cap;
    int64_t low, high; /* seq */
};
/* Whether one more, not below the last, fits into the row; always when its hash is the last one's,
 * since a hash is not spread over two rows. */
bool eg_pack_ids_room(const struct eg_pack_ids *p, struct eg_pack_id next);
enum eg_err eg_pack_ids_add(struct eg_pack_ids *p, struct eg_pack_id next) EG_MUST;
/* The row, and p empty again. */
void eg_pack_ids_take(struct eg_pack_ids *p, struct eg_buf *out);
void eg_pack_ids_free(struct eg_pack_ids *p);

/* A packed row. hash: of its first id, which is in the row's key. */
struct eg_packed_ids {
    const uint8_t *p;
    int n;
    unsigned hash_bytes, seq_bytes;
    uint64_t hash;
    int64_t low;
};
bool eg_packed_ids_open(struct eg_packed_ids *ids, uint64_t hash, struct eg_slice in);
struct eg_pack_id eg_packed_ids_at(const struct eg_packed_ids *ids, int i);
/* The first that is not below (hash, seq); n when all are. */
int eg_packed_ids_find(const struct eg_packed_ids *ids, struct eg_pack_id from);

#endif
