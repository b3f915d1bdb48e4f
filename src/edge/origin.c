#include "edge/origin.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

/* Whether s is empty or a colon and a port. */
static bool port_or_nothing(const char *s)
{
    if (*s == '\0') {
        return true;
    }
    const size_t n = strspn(s + 1, "0123456789");
    return *s == ':' && n >= 1 && n <= 5 && s[1 + n] == '\0';
}

/* What follows a loopback host name at the start of s; NULL when there is none. */
static const char *after_local_name(const char *s)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const size_t n = strlen(names[i]);
        if (strncasecmp(s, names[i], n) == 0) {
            return s + n;
        }
    }
    return NULL;
}

bool eg_origin_allowed(const char *origin, char *const *allowed, bool bound_to_loopback)
{
    if (origin == NULL) {
        return true;
    }
    for (; allowed != NULL && *allowed != NULL; allowed++) {
        if (strcmp(origin, *allowed) == 0) {
            return true;
        }
    }
    if (!bound_to_loopback) {
        return false;
    }
    const char *host = NULL;
    if (strncmp(origin, "http://", 7) == 0) {
        host = origin + 7;
    } else if (strncmp(origin, "https://", 8) == 0) {
        host = origin + 8;
    }
    const char *rest = host != NULL ? after_local_name(host) : NULL;
    return rest != NULL && port_or_nothing(rest);
}

bool eg_address_is_loopback(const char *text)
{
    struct in_addr four;
    struct in6_addr six;
    if (inet_pton(AF_INET, text, &four) == 1) {
        return ntohl(four.s_addr) >> 24 == 127;
    }
    return inet_pton(AF_INET6, text, &six) == 1 &&
           (IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127));
}

bool eg_host_is_local(const char *host, const char *bound)
{
    char address[64];
    const char *rest = after_local_name(host);
    if (rest != NULL && port_or_nothing(rest)) {
        return true;
    }
    if (strcasecmp(host, bound) == 0) {
        return true;
    }
    const size_t n = strcspn(host, ":");
    if (n >= sizeof address || !port_or_nothing(host + n)) {
        return false;
    }
    memcpy(address, host, n);
    address[n] = '\0';
    return eg_address_is_loopback(address);
}
