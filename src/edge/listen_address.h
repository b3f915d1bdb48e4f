/*
 * listen_address.h - the HOST:PORT of a listener: read, resolved, and tried.
 */
#ifndef EG_EDGE_LISTEN_ADDRESS_H
#define EG_EDGE_LISTEN_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct eg_listen_address {
    char host[64]; /* numeric IPv4 */
    uint16_t port; /* 0: any */
    bool loopback;
};

/*
 * Reads text: an IPv4 address or a name that has one, a colon, a port. An empty host or * is every
 * address. EG_EINVALID: why says what is wrong. May ask the resolver.
 */
enum eg_err eg_listen_address_parse(const char *text, struct eg_listen_address *out, char *why,
                                    unsigned long why_size) EG_MUST;
/* Whether it can be listened on now: EG_EBUSY in use, EG_EDENIED no right, EG_EINVALID not of this
 * machine, EG_EIO otherwise; why says so. */
enum eg_err eg_listen_address_try(const struct eg_listen_address *a, char *why,
                                  unsigned long why_size) EG_MUST;

#endif
