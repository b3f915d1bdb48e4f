/*
 * Any bytes as the head of a request. What passes the checks of an upgrade has what RFC 6455 asks
 * for; what is refused gets a whole answer; the client's address is an address, whatever the
 * proxies' headers say.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "edge/handshake.h"
#include "edge/origin.h"
#include "edge/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* Cuts the next line off; NULL at the end. */
static char *line(char **rest)
{
    char *start = *rest;
    if (start == NULL || *start == '\0')
        return NULL;
    *rest = strchr(start, '\n');
    if (*rest)
        *(*rest)++ = '\0';
    start[strcspn(start, "\r")] = '\0';
    return start;
}

/* A rough reading of a head, as lenient as the checks must be able to stand. */
static void read_request(char *text, struct eg_request *r)
{
    char *first = line(&text), *word = NULL;
    memset(r, 0, sizeof *r);
    r->method = first ? strtok_r(first, " ", &word) : NULL;
    r->path = r->method ? strtok_r(NULL, " ", &word) : NULL;
    r->version = r->path ? strtok_r(NULL, " ", &word) : NULL;
    r->method = r->method ? r->method : "";
    r->version = r->version && strlen(r->version) > 5 ? r->version + 5 : "";
    char *query = r->path ? strchr(r->path, '?') : NULL;
    if (query)
        *query++ = '\0';
    r->query = query;
    r->path = r->path ? r->path : "";
    for (char *l = line(&text); l && r->headers < EG_HEADERS_MAX; l = line(&text)) {
        char *colon = strchr(l, ':');
        if (!colon)
            continue;
        *colon++ = '\0';
        r->header[r->headers++] = (struct eg_header){l, colon + strspn(colon, " \t")};
    }
}

static void check_answer(const struct eg_refusal *why)
{
    struct eg_buf out = {0};
    eg_refusal_write(why, &out);
    char *text = eg_buf_take(&out);
    must(text != NULL);
    const char *body = strstr(text, "\r\n\r\n"), *length = strstr(text, "\r\nContent-Length: ");
    must(strncmp(text, "HTTP/1.1 4", 10) == 0 && body && length && length < body);
    must(strtoul(length + 18, NULL, 10) == strlen(body + 4));
    free(text);
}

static void check_granted(const struct eg_request *r)
{
    int keys = 0, versions = 0;
    for (int i = 0; i < r->headers; i++) {
        keys += strcasecmp(r->header[i].name, "Sec-WebSocket-Key") == 0;
        versions += strcasecmp(r->header[i].name, "Sec-WebSocket-Version") == 0;
    }
    must(keys == 1 && versions == 1);
    must(strcmp(r->method, "GET") == 0 && strcmp(r->version, "1.1") == 0);
    must(eg_request_has_token(r, "Upgrade", "websocket"));
}

static void check_token(const struct eg_request *r)
{
    char *token = NULL;
    bool from_query = false;
    must(eg_upgrade_token(r, &token, &from_query) == EG_OK);
    must(token != NULL || !from_query);
    free(token);
}

static void check_client(const struct eg_request *r)
{
    static char *trusted[] = {"127.0.0.0/8", "10.0.0.0/8", "fd00::/8", NULL};
    struct eg_proxies *p = NULL;
    char why[64], out[64];
    struct in6_addr any;
    must(eg_proxies_new(trusted, &p, why, sizeof why) == EG_OK);
    eg_proxies_client(p, "127.0.0.1", r, out);
    must(inet_pton(AF_INET, out, &any) == 1 || inet_pton(AF_INET6, out, &any) == 1);
    eg_proxies_client(p, "192.0.2.1", r, out);
    must(strcmp(out, "192.0.2.1") == 0);
    eg_proxies_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct eg_request r;
    struct eg_refusal why;
    bool twice = false;
    char *text = malloc(size + 1);
    must(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    const long end = eg_header_end(text, size);
    must(end >= -1 && end <= (long)size);
    must(end <= 0 || text[end - 1] == '\n');
    read_request(text, &r);
    if (eg_request_check(&r, &why) != EG_OK)
        check_answer(&why);
    if (eg_upgrade_check(&r, &why) != EG_OK)
        check_answer(&why);
    else
        check_granted(&r);
    check_token(&r);
    check_client(&r);
    (void)eg_upgrade_offers_protocol(&r);
    const char *origin = eg_request_header(&r, "Origin", &twice);
    if (origin && eg_origin_allowed(origin, NULL, true))
        must(strncasecmp(origin, "http", 4) == 0);
    const char *host = eg_request_header(&r, "Host", &twice);
    if (host && eg_host_is_local(host, "127.0.0.1:1"))
        must(strlen(host) < 64);
    free(text);
    return 0;
}
