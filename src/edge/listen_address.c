#include "edge/listen_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "edge/origin.h"

static bool resolve(const char *host, char out[64])
{
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    bool ok = false;
    if (getaddrinfo(host, NULL, &hints, &found) == 0 && found != NULL) {
        const struct sockaddr_in *sa = (const void *)found->ai_addr;
        ok = inet_ntop(AF_INET, &sa->sin_addr, out, 64) != NULL;
    }
    if (found != NULL) {
        freeaddrinfo(found);
    }
    return ok;
}

enum eg_err eg_listen_address_parse(const char *text, struct eg_listen_address *out, char *why,
                                    unsigned long why_size)
{
    char host[256];
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    memset(out, 0, sizeof *out);
    if (colon == NULL || colon[1] < '0' || colon[1] > '9' ||
        (size_t)(colon - text) >= sizeof host) {
        snprintf(why, why_size, "\"%s\" is not ADDRESS:PORT", text);
        return EG_EINVALID;
    }
    const unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port > 65535) {
        snprintf(why, why_size, "\"%s\": the port must be 0 to 65535", text);
        return EG_EINVALID;
    }
    out->port = (uint16_t)port;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    if (host[0] == '[') {
        snprintf(why, why_size,
                 "\"%s\": IPv6 is not supported; listen on IPv4 behind a proxy that speaks both",
                 text);
        return EG_EINVALID;
    }
    const bool all = host[0] == '\0' || strcmp(host, "*") == 0;
    if (!resolve(all ? "0.0.0.0" : host, out->host)) {
        snprintf(why, why_size, "\"%s\": no IPv4 address of that name", text);
        return EG_EINVALID;
    }
    out->loopback = eg_address_is_loopback(out->host);
    return EG_OK;
}

enum eg_err eg_listen_address_try(const struct eg_listen_address *a, char *why,
                                  unsigned long why_size)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(a->port)};
    const int one = 1;
    enum eg_err err = EG_OK;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)inet_pton(AF_INET, a->host, &sa.sin_addr);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(fd, (struct sockaddr *)&sa, sizeof sa) != 0 || listen(fd, 1) != 0) {
        err = errno == EADDRINUSE      ? EG_EBUSY
              : errno == EACCES        ? EG_EDENIED
              : errno == EADDRNOTAVAIL ? EG_EINVALID
                                       : EG_EIO;
        snprintf(why, why_size, "cannot listen on %s:%u: %s", a->host, (unsigned)a->port,
                 strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
    return err;
}
