/*
 * Every allocation of src/wire fails once: the call says so, leaves nothing behind, and the next
 * call works.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failing.h"
#include "wire/event.h"
#include "wire/frame.h"
#include "wire/json.h"
#include "wire/json_text.h"
#include "wire/token.h"

static bool scan(void *arg)
{
    struct eg_json_doc doc;
    enum eg_err e = eg_json_scan(*(struct eg_slice *)arg, 32, &doc);

    cr_assert(e == EG_OK || (e == EG_ENOMEM && !strcmp(doc.reason, "out of memory")));
    return e == EG_ENOMEM;
}

Test(wire_memory, scanning)
{
    struct eg_slice small = EG_LIT("{\"a\":{\"b\":[1,2,{\"c\":\"d\"}]}}");
    struct eg_slice escaped = EG_LIT("{\"\\u0061\":1}");
    struct eg_buf b = {0};
    struct eg_slice large;

    cr_assert_eq(failing_each(scan, &small), 0);
    cr_assert_eq(failing_each(scan, &escaped), 1);
    eg_buf_char(&b, '{');
    for (int i = 0; i < 600; i++)
        eg_buf_printf(&b, "%s\"k%d\":{\"x\":1}", i ? "," : "", i);
    eg_buf_char(&b, '}');
    large = (struct eg_slice){b.p, b.n};
    cr_assert_geq(failing_each(scan, &large), 3);
    eg_buf_free(&b);
}

static bool parse(void *arg)
{
    struct eg_frame f;
    struct eg_frame_error err;
    enum eg_err e = eg_frame_parse(*(struct eg_slice *)arg, &f, &err);

    cr_assert(e == EG_OK || e == EG_ENOMEM);
    if (!e)
        eg_frame_free(&f);
    return e == EG_ENOMEM;
}

Test(wire_memory, frames)
{
    struct eg_slice plain = EG_LIT("{\"type\":\"message\",\"content\":{\"a\":[1]},"
                                   "\"message_id\":\"m\",\"metadata\":{}}");
    struct eg_slice escaped = EG_LIT("{\"t\\u0079pe\":\"ping\",\"id\":\"\\u0041\"}");

    cr_assert_eq(failing_each(parse, &plain), 1);
    cr_assert_eq(failing_each(parse, &escaped), 2);
}

static bool make_event(void *arg)
{
    struct eg_event e = {.type = EG_LIT("status"), .cursor = 1, .tail = EG_LIT("\"data\":{}")};
    struct eg_bytes *b = eg_event_make(&e);
    bool none = b == NULL;

    (void)arg;
    eg_bytes_unref(b);
    return none;
}

static bool wrap_event(void *arg)
{
    struct eg_buf b = {0};
    enum eg_err e = eg_replay_wrap(&b, *(struct eg_slice *)arg);

    cr_assert(e == EG_OK || e == EG_ENOMEM);
    eg_buf_free(&b);
    return e == EG_ENOMEM;
}

Test(wire_memory, events)
{
    struct eg_event e = {.type = EG_LIT("status"), .cursor = 1};
    struct eg_bytes *b = eg_event_make(&e);
    struct eg_slice event = eg_bytes_slice(b);

    cr_assert_eq(failing_each(make_event, NULL), 1);
    cr_assert_eq(failing_each(wrap_event, &event), 1);
    eg_bytes_unref(b);
}

/* Without memory two values that are the same count as different. */
static bool compare(void *arg)
{
    struct eg_slice *two = arg;

    return !eg_json_same(two[0], two[1]);
}

Test(wire_memory, comparing)
{
    struct eg_slice two[] = {
        EG_LIT("{\"\\u0061\":\"\\u0062\",\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,"
               "\"j\":1,\"k\":1,\"l\":1,\"m\":1,\"n\":1,\"o\":1,\"p\":1,\"q\":1,\"r\":1,\"s\":1}"),
        EG_LIT("{\"s\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,\"k\":1,"
               "\"l\":1,\"m\":1,\"n\":1,\"o\":1,\"p\":1,\"q\":1,\"r\":1,\"\\u0061\":\"b\"}")};

    cr_assert_geq(failing_each(compare, two), 6);
}

static bool write_out(void *arg)
{
    struct eg_buf b = {0};
    bool none;

    (void)arg;
    eg_json_kstr(&b, "key", EG_LIT("value"));
    eg_json_compact(&b, EG_LIT(" [ 1 ] "));
    eg_json_unquote(EG_LIT("\"text\""), &b);
    none = b.err == EG_ENOMEM;
    eg_buf_free(&b);
    return none;
}

Test(wire_memory, writing)
{
    cr_assert_eq(failing_each(write_out, NULL), 1);
}

static bool read_long_number(void *arg)
{
    return isnan(eg_json_double(*(struct eg_slice *)arg));
}

static bool find_long_key(void *arg)
{
    struct eg_json_member m;

    return !eg_json_find(*(struct eg_slice *)arg,
                         "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", &m);
}

Test(wire_memory, long_numbers_and_keys)
{
    static char digits[300], object[400] = "{\"";
    struct eg_slice number = {digits, sizeof(digits)}, text;

    memset(digits, '1', sizeof(digits));
    cr_assert_eq(failing_each(read_long_number, &number), 1);
    for (int i = 0; i < 52; i++)
        sprintf(object + strlen(object), "\\u00%02x", (unsigned)('a' + i % 26));
    strcat(object, "\":1}");
    text = eg_slice_cstr(object);
    cr_assert_eq(failing_each(find_long_key, &text), 2);
}

static char dir[64];
static char key_path[300];

static void make_key(void)
{
    char kid[64];

    strcpy(dir, "/tmp/ebbgate-memory-XXXXXX");
    cr_assert(mkdtemp(dir));
    cr_assert_eq(eg_key_generate(dir, 0, kid, key_path, sizeof(key_path)), EG_OK);
}

static void remove_key(void)
{
    unlink(key_path);
    cr_assert_eq(rmdir(dir), 0);
}

static bool generate(void *arg)
{
    char kid[64], path[300];
    enum eg_err e = eg_key_generate(dir, 5, kid, path, sizeof(path));

    (void)arg;
    if (!e)
        cr_assert_eq(unlink(path), 0);
    return e == EG_ENOMEM;
}

static bool generate_in_new_folder(void *arg)
{
    char kid[64], path[300], folder[80];
    enum eg_err e;

    (void)arg;
    snprintf(folder, sizeof(folder), "%s/new", dir);
    e = eg_key_generate(folder, 5, kid, path, sizeof(path));
    if (!e)
        cr_assert_eq(unlink(path), 0);
    rmdir(folder);
    return e == EG_ENOMEM;
}

static bool withdraw(void *arg)
{
    enum eg_err e = eg_key_delete(dir, "not-there");

    (void)arg;
    cr_assert(e == EG_ENOTFOUND || e == EG_ENOMEM);
    return e == EG_ENOMEM;
}

static bool load(void *arg)
{
    struct eg_keyring *r;
    char why[300];
    enum eg_err e = eg_keyring_load(dir, NULL, &r, why, sizeof(why));

    (void)arg;
    cr_assert((e == EG_OK) == (r != NULL));
    eg_keyring_unref(r);
    cr_assert(e == EG_OK || e == EG_ENOMEM, "%s", why);
    return e != EG_OK;
}

static bool mint(void *arg)
{
    struct eg_claims c = {.sub = (char[]){"ann"}, .exp_s = 1000};
    struct eg_buf b = {0};
    enum eg_err e = eg_token_mint(arg, &c, &b);

    cr_assert(e == EG_OK || (e == EG_ENOMEM && b.n == 0));
    eg_buf_free(&b);
    return e == EG_ENOMEM;
}

struct verification {
    struct eg_keyring *ring;
    struct eg_slice token;
};

static bool verify(void *arg)
{
    struct verification *v = arg;
    struct eg_token_rules rules = {.audience = "b", .now_s = 900, .max_lifetime_s = 1000};
    struct eg_claims c;
    const char *cause = "";
    enum eg_err e = eg_token_verify(v->ring, v->token, &rules, &c, &cause);

    cr_assert((e == EG_OK && !cause) ||
              (e == EG_ENOMEM && !c.sub && !strcmp(cause, "out of memory")));
    eg_claims_free(&c);
    return e == EG_ENOMEM;
}

Test(wire_memory, keys_and_tokens, .init = make_key, .fini = remove_key)
{
    char *agents[] = {(char[]){"a"}, (char[]){"b"}, NULL};
    struct eg_claims c = {.sub = (char[]){"ann"},
                          .exp_s = 1000,
                          .scopes = EG_SCOPE_READ,
                          .agents = agents,
                          .aud = agents};
    struct verification v;
    struct eg_buf b = {0};

    cr_assert_eq(failing_each(generate, NULL), 2);
    cr_assert_eq(failing_each(generate_in_new_folder, NULL), 3);
    cr_assert_geq(failing_each(withdraw, NULL), 1);
    cr_assert_geq(failing_each(load, NULL), 3);
    cr_assert_eq(eg_keyring_load(dir, NULL, &v.ring, NULL, 0), EG_OK);
    cr_assert_geq(failing_each(mint, v.ring), 2);
    cr_assert_eq(eg_token_mint(v.ring, &c, &b), EG_OK);
    v.token = (struct eg_slice){b.p, b.n};
    cr_assert_geq(failing_each(verify, &v), 9);
    eg_buf_free(&b);
    eg_keyring_unref(v.ring);
}
