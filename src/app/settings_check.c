/*
 * settings_check.c - the form of those settings that are texts with a grammar.
 *
 * Pure.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/setting.h"
#include "base/log.h"
#include "ebbgate/protocol.h"
#include "wire/json.h"

typedef void mistake_fn(void *arg, const struct eg_setting *d, const char *text);

/* Digits only, within 0..max. */
static bool small_number(const char *text, long max, long *out)
{
    if (!*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 6)
        return false;
    *out = strtol(text, NULL, 10);
    return *out <= max;
}

/* ADDR:PORT with an IPv4 address. Returns what is wrong, or NULL; *port is set on NULL. */
static const char *check_address(const char *text, char *host, size_t host_size, long *port)
{
    const char *colon = strrchr(text, ':');
    struct in_addr addr;
    if (!colon || colon == text)
        return "must be ADDRESS:PORT, for example 127.0.0.1:7070";
    size_t n = (size_t)(colon - text);
    if (n >= host_size || memchr(text, '[', n) || memchr(text, ':', n))
        return "must be an IPv4 address and a port (put a proxy in front for IPv6)";
    memcpy(host, text, n);
    host[n] = '\0';
    if (inet_pton(AF_INET, host, &addr) != 1)
        return "must start with an IPv4 address, for example 127.0.0.1:7070";
    if (!small_number(colon + 1, 65535, port))
        return "must end with a port from 0 to 65535";
    return NULL;
}

/* scheme://host[:port], as browsers send it: no path, no trailing slash, lower case. */
static bool origin_valid(const char *text)
{
    const char *rest = strstr(text, "://");
    if (!rest || rest == text || !rest[3])
        return false;
    for (const char *p = text; *p; p++) {
        if (*p <= ' ' || *p >= 127 || (*p >= 'A' && *p <= 'Z') || *p == '*' || *p == '@')
            return false;
    }
    return strpbrk(rest + 3, "/?#") == NULL;
}

/* ADDRESS or ADDRESS/BITS, IPv4 or IPv6. */
static bool range_valid(const char *text)
{
    char host[64];
    unsigned char addr[16];
    long bits = 0;
    size_t n = strcspn(text, "/");
    if (n >= sizeof host)
        return false;
    memcpy(host, text, n);
    host[n] = '\0';
    bool v4 = inet_pton(AF_INET, host, addr) == 1;
    if (!v4 && inet_pton(AF_INET6, host, addr) != 1)
        return false;
    return text[n] == '\0' || small_number(text + n + 1, v4 ? 32 : 128, &bits);
}

static bool plain_text(const char *text)
{
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    }
    return eg_utf8_valid(eg_slice_cstr(text), NULL);
}

/* What is no plain text is not repeated in a message. */
static void check_lists(const struct eg_settings *s, mistake_fn *mistake, void *arg)
{
    char text[320];
    for (char **p = s->allowed_origins; *p; p++) {
        if (!origin_valid(*p) && plain_text(*p)) {
            snprintf(text, sizeof text,
                     "\"%.200s\" is no origin; write scheme://host[:port] without a path", *p);
            mistake(arg, &eg_setting_table[EG_SETTING_AT_allowed_origins], text);
        }
    }
    for (char **p = s->trusted_proxies; *p; p++) {
        if (!range_valid(*p) && plain_text(*p)) {
            snprintf(text, sizeof text, "\"%.200s\" is no address or CIDR range", *p);
            mistake(arg, &eg_setting_table[EG_SETTING_AT_trusted_proxies], text);
        }
    }
    for (char **p = s->agents; *p; p++) {
        if (strlen(*p) > EG_ID_MAX) {
            snprintf(text, sizeof text, "an agent id has at most %d bytes", EG_ID_MAX);
            mistake(arg, &eg_setting_table[EG_SETTING_AT_agents], text);
        }
    }
}

/* What goes into logs, JSON and printed configurations. */
static void check_texts(const struct eg_settings *s, mistake_fn *mistake, void *arg)
{
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        const void *at = (const char *)s + d->offset;
        bool ok = true;
        if (d->type == EG_SETTING_STR)
            ok = plain_text(*(char *const *)at);
        for (char **p = d->type == EG_SETTING_LIST ? *(char **const *)at : NULL; p && *p; p++)
            ok = ok && plain_text(*p);
        if (!ok)
            mistake(arg, d, "must be UTF-8 text without control characters");
    }
}

void eg_settings_check(const struct eg_settings *s, mistake_fn *mistake, void *arg)
{
    char listen_host[32], admin_host[32];
    long listen_port = 0, admin_port = 0;
    const char *bad_listen =
        check_address(s->listen, listen_host, sizeof listen_host, &listen_port);
    const char *bad_admin = check_address(s->admin, admin_host, sizeof admin_host, &admin_port);
    if (bad_listen)
        mistake(arg, &eg_setting_table[EG_SETTING_AT_listen], bad_listen);
    if (bad_admin)
        mistake(arg, &eg_setting_table[EG_SETTING_AT_admin], bad_admin);
    if (!bad_listen && !bad_admin && listen_port != 0 && listen_port == admin_port &&
        strcmp(listen_host, admin_host) == 0)
        mistake(arg, &eg_setting_table[EG_SETTING_AT_admin],
                "is the same address as the public listener's");
    check_texts(s, mistake, arg);
    check_lists(s, mistake, arg);

    enum eg_log_level level;
    enum eg_log_format format;
    if (eg_log_level_parse(s->log_level, &level) != EG_OK)
        mistake(arg, &eg_setting_table[EG_SETTING_AT_log_level],
                "must be error, warn, info or debug");
    if (eg_log_format_parse(s->log_format, &format) != EG_OK)
        mistake(arg, &eg_setting_table[EG_SETTING_AT_log_format],
                "must be text, json, journal or auto");
}
