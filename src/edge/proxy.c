#include "edge/proxy.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HOPS_MAX 32 /* entries believed, from the last on */
#define ADDRESS_BYTES 16

struct range {
    uint8_t address[ADDRESS_BYTES]; /* IPv4 mapped into IPv6 */
    int bits;
};

struct eg_proxies {
    size_t n;
    struct range range[];
};

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

/* Reads an address; *four says of which kind it was written. */
static bool read_address(const char *text, uint8_t out[ADDRESS_BYTES], bool *four)
{
    *four = inet_pton(AF_INET, text, out + 12) == 1;
    if (*four) {
        memcpy(out, mapped, sizeof mapped);
        return true;
    }
    return inet_pton(AF_INET6, text, out) == 1;
}

static bool read_range(const char *text, struct range *out)
{
    char address[64];
    char *end = NULL;
    bool four = false;
    const size_t n = strcspn(text, "/");
    if (n >= sizeof address) {
        return false;
    }
    memcpy(address, text, n);
    address[n] = '\0';
    if (!read_address(address, out->address, &four)) {
        return false;
    }
    long bits = four ? 32 : 128;
    if (text[n] == '/') {
        const long most = bits;
        if (text[n + 1] < '0' || text[n + 1] > '9') {
            return false;
        }
        bits = strtol(text + n + 1, &end, 10);
        if (*end != '\0' || bits > most) {
            return false;
        }
    }
    out->bits = (int)bits + (four ? 96 : 0);
    return true;
}

enum eg_err eg_proxies_new(char *const *list, struct eg_proxies **out, char *why, size_t why_size)
{
    size_t n = 0;
    while (list != NULL && list[n] != NULL) {
        n++;
    }
    struct eg_proxies *p = calloc(1, sizeof *p + n * sizeof p->range[0]);
    if (p == NULL) {
        return EG_ENOMEM;
    }
    for (; p->n < n; p->n++) {
        if (!read_range(list[p->n], &p->range[p->n])) {
            snprintf(why, why_size, "trusted_proxies: \"%s\" is no address or range", list[p->n]);
            free(p);
            return EG_EINVALID;
        }
    }
    *out = p;
    return EG_OK;
}

void eg_proxies_free(struct eg_proxies *p)
{
    free(p);
}

static bool inside(const struct range *r, const uint8_t address[ADDRESS_BYTES])
{
    const size_t whole = (size_t)r->bits / 8;
    const int rest = r->bits % 8;
    if (memcmp(r->address, address, whole) != 0) {
        return false;
    }
    return rest == 0 || ((r->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

bool eg_proxies_trusts(const struct eg_proxies *p, const char *addr)
{
    uint8_t address[ADDRESS_BYTES];
    bool four = false;
    if (p == NULL || p->n == 0 || !read_address(addr, address, &four)) {
        return false;
    }
    for (size_t i = 0; i < p->n; i++) {
        if (inside(&p->range[i], address)) {
            return true;
        }
    }
    return false;
}

/* The last HOPS_MAX entries of all header lines, in order. */
struct hops {
    struct eg_slice hop[HOPS_MAX];
    size_t n; /* all that were seen; entry i stands at i % HOPS_MAX */
};

/* Splits at commas outside quotes. */
static void add_hops(struct hops *h, const char *list)
{
    bool quoted = false;
    const char *start = list;
    for (const char *c = list;; c++) {
        if (*c == '"') {
            quoted = !quoted;
        }
        if (*c == '\0' || (*c == ',' && !quoted)) {
            h->hop[h->n % HOPS_MAX] = (struct eg_slice){start, (size_t)(c - start)};
            h->n++;
            start = c + 1;
        }
        if (*c == '\0') {
            return;
        }
    }
}

static struct eg_slice strip(struct eg_slice s, const char *what)
{
    while (s.n > 0 && strchr(what, s.p[0]) != NULL) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && strchr(what, s.p[s.n - 1]) != NULL) {
        s.n--;
    }
    return s;
}

/* The value of for= in one element of Forwarded; empty when it has none. */
static struct eg_slice forwarded_for(struct eg_slice element)
{
    while (element.n > 0) {
        const char *semicolon = memchr(element.p, ';', element.n);
        const size_t n = semicolon != NULL ? (size_t)(semicolon - element.p) : element.n;
        const struct eg_slice pair = strip((struct eg_slice){element.p, n}, " \t");
        if (pair.n > 4 && strncasecmp(pair.p, "for=", 4) == 0) {
            return strip((struct eg_slice){pair.p + 4, pair.n - 4}, " \t\"");
        }
        const size_t step = semicolon != NULL ? n + 1 : n;
        element.p += step;
        element.n -= step;
    }
    return (struct eg_slice){NULL, 0};
}

/* Reads an address with or without port, an IPv6 one with or without brackets, and writes it in
 * its usual spelling. */
static bool read_hop(struct eg_slice s, char out[64])
{
    char text[64];
    uint8_t address[ADDRESS_BYTES];
    bool four = false;
    s = strip(s, " \t");
    if (s.n > 0 && s.p[0] == '[') {
        const char *end = memchr(s.p, ']', s.n);
        if (end == NULL) {
            return false;
        }
        s = (struct eg_slice){s.p + 1, (size_t)(end - s.p) - 1};
    } else {
        const char *colon = s.n > 0 ? memchr(s.p, ':', s.n) : NULL;
        if (colon != NULL && memchr(s.p, '.', (size_t)(colon - s.p)) != NULL) {
            s.n = (size_t)(colon - s.p); /* IPv4 with a port */
        }
    }
    if (s.n == 0 || s.n >= sizeof text) {
        return false;
    }
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    if (!read_address(text, address, &four)) {
        return false;
    }
    if (memcmp(address, mapped, sizeof mapped) == 0) {
        return inet_ntop(AF_INET, address + 12, out, 64) != NULL;
    }
    return inet_ntop(AF_INET6, address, out, 64) != NULL;
}

/* Collects the entries of all headers called name; false when there is no such header. */
static bool collect(const struct eg_request *r, const char *name, struct hops *h)
{
    for (int i = 0; i < r->headers; i++) {
        if (strcasecmp(r->header[i].name, name) == 0) {
            add_hops(h, r->header[i].value);
        }
    }
    return h->n > 0;
}

void eg_proxies_client(const struct eg_proxies *p, const char *peer, const struct eg_request *r,
                       char out[64])
{
    struct hops h = {.n = 0};
    snprintf(out, 64, "%s", peer);
    if (!eg_proxies_trusts(p, peer)) {
        return;
    }
    const bool plain = collect(r, "X-Forwarded-For", &h);
    if (!plain && !collect(r, "Forwarded", &h)) {
        return;
    }
    const size_t kept = h.n < HOPS_MAX ? h.n : HOPS_MAX;
    for (size_t i = 1; i <= kept && eg_proxies_trusts(p, out); i++) {
        char next[64];
        const struct eg_slice hop = h.hop[(h.n - i) % HOPS_MAX];
        if (!read_hop(plain ? hop : forwarded_for(hop), next)) {
            return;
        }
        memcpy(out, next, sizeof next);
    }
}
