/*
 * The routing table against admin/openapi.yaml as it is compiled in: what is served is described.
 * (That what is described is served, and as described, is what tests/http holds.)
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/embed.h"
#include "http/http_int.h"

static const char *description(void)
{
    for (const struct eg_embedded *f = eg_files; f->name; f++) {
        if (strcmp(f->name, "admin/openapi.yaml") == 0)
            return (const char *)f->data;
    }
    return NULL;
}

/* The text of one path: from its line to the next line that is indented no further. */
static const char *path_of(const char *yaml, const char *path, size_t *n)
{
    char line[200];
    snprintf(line, sizeof line, "\n  %s:\n", path);
    const char *at = strstr(yaml, line);
    if (!at)
        return NULL;
    at += strlen(line);
    const char *end = at;
    while (strncmp(end, "    ", 4) == 0)
        end = strchr(end, '\n') + 1;
    *n = (size_t)(end - at);
    return at;
}

Test(routes, every_route_is_described)
{
    const char *yaml = description();
    cr_assert_not_null(yaml);
    for (const struct eg_route *r = eg_routes; r->method; r++) {
        size_t n = 0;
        char method[16] = "    ";
        const char *item = path_of(yaml, r->path, &n);
        cr_assert_not_null(item, "%s is not described", r->path);
        for (size_t i = 0; r->method[i]; i++)
            method[4 + i] = (char)(r->method[i] | 0x20);
        strcat(method, ":\n");
        const char *op = memmem(item, n, method, strlen(method));
        cr_assert_not_null(op, "%s %s is not described", r->method, r->path);
        const char *open = memmem(op, n - (size_t)(op - item), "security: []", 12);
        const char *next = memmem(op, n - (size_t)(op - item), "responses:", 10);
        cr_assert_eq(open && open < next, r->need == EG_NEED_NONE, "%s %s: token", r->method,
                     r->path);
        const bool on_public = memmem(item, n, "servers:", 8) != NULL;
        cr_assert_eq(on_public, r->where == EG_ON_PUBLIC, "%s: listener", r->path);
    }
}

Test(routes, only_reading_is_for_admin_read)
{
    for (const struct eg_route *r = eg_routes; r->method; r++) {
        const bool reads = strcmp(r->method, "GET") == 0;
        if (r->where == EG_ON_ADMIN && r->need != EG_NEED_NONE)
            cr_assert_eq(r->need, reads ? EG_NEED_ADMIN_READ : EG_NEED_ADMIN, "%s %s", r->method,
                         r->path);
        if (!reads)
            cr_assert_neq(r->need, EG_NEED_NONE, "%s %s", r->method, r->path);
    }
}
