/*
 * proxy.h - the address of a client behind proxies: whom to believe, and what they say
 * (X-Forwarded-For; Forwarded, RFC 7239, where that is absent).
 *
 * An immutable list of ranges; freed by its owner.
 */
#ifndef EG_EDGE_PROXY_H
#define EG_EDGE_PROXY_H

#include "edge/handshake.h"

struct eg_proxies;

/* list: addresses and CIDR ranges, IPv4 or IPv6, NULL-terminated; NULL is none. EG_EINVALID: why
 * names the entry that is neither. */
enum eg_err eg_proxies_new(char *const *list, struct eg_proxies **out, char *why,
                           size_t why_size) EG_MUST;
void eg_proxies_free(struct eg_proxies *p);
/* Whether addr (text) is a trusted proxy. p may be NULL: nobody is. */
bool eg_proxies_trusts(const struct eg_proxies *p, const char *addr);

/*
 * The client's address as text: peer, or while that is a trusted proxy whoever it names as its
 * own client, from the last entry on. Stops at what cannot be read as an address.
 */
void eg_proxies_client(const struct eg_proxies *p, const char *peer, const struct eg_request *r,
                       char out[64]);

#endif
