/* The settings' table: defaults, bounds, durations, lists, suggestions, snapshots. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "app/setting.h"

static const struct eg_setting *row(const char *name)
{
    bool ms = false;
    const struct eg_setting *d = eg_setting_find(name, &ms);
    cr_assert_not_null(d, "%s", name);
    return d;
}

Test(settings, defaults_are_the_tables)
{
    struct eg_settings *s = eg_settings_new();
    cr_assert_not_null(s);
    cr_assert_str_eq(s->listen, "127.0.0.1:7070");
    cr_assert_str_eq(s->admin, "127.0.0.1:7071");
    cr_assert_eq(s->max_payload, 1048576);
    cr_assert_eq(s->handshake_timeout_ms, 10000);
    cr_assert_eq(s->max_token_lifetime_ms, 30 * EG_DAY_MS);
    cr_assert_not_null(s->agents);
    cr_assert_null(s->agents[0]);
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        if (d->type == EG_SETTING_INT || d->type == EG_SETTING_SIZE || d->type == EG_SETTING_DUR)
            cr_assert(d->def >= d->min && d->def <= d->max, "%s", d->name);
        cr_assert(*d->help, "%s", d->name);
    }
    eg_settings_unref(s);
}

Test(settings, durations)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"0", 0},
                {"10", 10000},
                {"1.5", 1500},
                {"500ms", 500},
                {"10s", 10000},
                {"5m", 300000},
                {"2h", 7200000},
                {"7d", 7 * EG_DAY_MS},
                {"0.25s", 250},
                {"1.5m", 90000},
                {"0.5d", EG_DAY_MS / 2},
                {"0.0004s", 0},
                {"3650d", 3650 * EG_DAY_MS}};
    static const char *const bad[] = {"",
                                      "s",
                                      "-1",
                                      "1 s",
                                      "10S",
                                      "1.",
                                      ".5",
                                      "1e3",
                                      "ten",
                                      "5x",
                                      "1ss",
                                      "5m30s",
                                      " 1",
                                      "1 ",
                                      "99999999999999999999d",
                                      "9223372036854775807"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t ms = -1;
        cr_assert(eg_duration_parse(good[i].text, &ms), "%s", good[i].text);
        cr_assert_eq(ms, good[i].ms, "%s gave %ld", good[i].text, (long)ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t ms = -1;
        cr_assert_not(eg_duration_parse(bad[i], &ms), "%s gave %ld", bad[i], (long)ms);
    }
}

Test(settings, durations_print_and_read_back)
{
    static const int64_t values[] = {0,     1,       999,       1000,           1500,    60000,
                                     90000, 3600000, EG_DAY_MS, 30 * EG_DAY_MS, 86399999};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct eg_buf b = {0};
        int64_t back = -1;
        eg_duration_print(values[i], &b);
        char *text = eg_buf_take(&b);
        cr_assert(eg_duration_parse(text, &back), "%s", text);
        cr_assert_eq(back, values[i], "%s", text);
        free(text);
    }
}

Test(settings, bounds_are_told_in_the_unit_people_write)
{
    char why[160] = "";
    struct eg_settings *s = eg_settings_new();
    cr_assert_eq(eg_setting_set_text(row("handshake_timeout"), s, "3h", false, why, sizeof why),
                 EG_EINVALID);
    cr_assert_str_eq(why, "must be in the range 100ms to 2m");
    cr_assert_eq(eg_setting_set_text(row("max_payload"), s, "12", false, why, sizeof why),
                 EG_EINVALID);
    cr_assert_str_eq(why, "must be in the range 1k to 64m");
    cr_assert_eq(s->handshake_timeout_ms, 10000, "a refused value changes nothing");
    eg_settings_unref(s);
}

Test(settings, whole_numbers_only)
{
    static const char *const bad[] = {"",    "12x", "0x10", "1.0",
                                      "--5", " 5",  "1e6",  "99999999999999999999999"};
    char why[160];
    struct eg_settings *s = eg_settings_new();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(eg_setting_set_text(row("max_connections"), s, bad[i], false, why, sizeof why),
                     EG_EINVALID, "%s", bad[i]);
    cr_assert_eq(eg_setting_set_text(row("max_connections"), s, "5", false, why, sizeof why),
                 EG_OK);
    cr_assert_eq(s->max_connections, 5);
    eg_settings_unref(s);
}

Test(settings, sizes)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } good[] = {{"0", 0},
                {"1024", 1024},
                {"1k", 1024},
                {"64k", 65536},
                {"64K", 65536},
                {"16m", 16 << 20},
                {"16M", 16 << 20},
                {"1g", 1 << 30},
                {"0g", 0},
                {"1024G", INT64_C(1) << 40},
                {"9223372036854775807", INT64_MAX},
                {"9223372036854775808", INT64_MAX},
                {"8589934592g", INT64_MAX},
                {"99999999999999999999999999k", INT64_MAX}};
    static const char *const bad[] = {"",     "k",   "-1",  "-1k",  "+1",    " 1",  "1 ", "1 k",
                                      "1.5m", "1t",  "1kb", "1KiB", "0x10",  "1e6", "1b", "1kk",
                                      "k1",   "1k1", "1@",  "1\v",  "1\x0b", "ten"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t bytes = -1;
        cr_assert(eg_size_parse(good[i].text, &bytes), "%s", good[i].text);
        cr_assert_eq(bytes, good[i].bytes, "%s gave %ld", good[i].text, (long)bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t bytes = -1;
        cr_assert_not(eg_size_parse(bad[i], &bytes), "%s gave %ld", bad[i], (long)bytes);
    }
}

Test(settings, sizes_print_and_read_back)
{
    static const struct {
        int64_t bytes;
        const char *text;
    } values[] = {{0, "0"},        {1023, "1023"},     {1024, "1k"},
                  {1536, "1536"},  {65536, "64k"},     {1 << 20, "1m"},
                  {1 << 30, "1g"}, {3 << 19, "1536k"}, {INT64_C(1) << 40, "1024g"}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct eg_buf b = {0};
        int64_t back = -1;
        eg_size_print(values[i].bytes, &b);
        char *text = eg_buf_take(&b);
        cr_assert_str_eq(text, values[i].text);
        cr_assert(eg_size_parse(text, &back));
        cr_assert_eq(back, values[i].bytes, "%s", text);
        free(text);
    }
}

Test(settings, sizes_out_of_range_and_junk_are_told_apart)
{
    char why[160] = "";
    struct eg_settings *s = eg_settings_new();
    const struct eg_setting *d = row("max_payload");
    cr_assert_eq(eg_setting_set_text(d, s, "2m", false, why, sizeof why), EG_OK);
    cr_assert_eq(s->max_payload, 2 << 20);
    cr_assert_eq(eg_setting_set_text(d, s, "9999999999999999g", false, why, sizeof why),
                 EG_EINVALID);
    cr_assert_str_eq(why, "must be in the range 1k to 64m");
    cr_assert_eq(eg_setting_set_text(d, s, "2mb", false, why, sizeof why), EG_EINVALID);
    cr_assert_str_eq(why, "must be a whole number of bytes, or a size such as 64k, 16m or 1g");
    cr_assert_eq(s->max_payload, 2 << 20, "a refused value changes nothing");
    eg_settings_unref(s);
}

Test(settings, lists_from_text)
{
    char why[160];
    struct eg_settings *s = eg_settings_new();
    const struct eg_setting *d = row("agents");
    cr_assert_eq(eg_setting_set_text(d, s, " a, b ,c", false, why, sizeof why), EG_OK);
    cr_assert_str_eq(s->agents[0], "a");
    cr_assert_str_eq(s->agents[1], "b");
    cr_assert_str_eq(s->agents[2], "c");
    cr_assert_null(s->agents[3]);
    cr_assert_eq(eg_setting_set_text(d, s, "a,,b", false, why, sizeof why), EG_EINVALID);
    cr_assert_str_eq(why, "has an empty entry");
    cr_assert_str_eq(s->agents[2], "c");
    cr_assert_eq(eg_setting_set_text(d, s, "", false, why, sizeof why), EG_OK);
    cr_assert_null(s->agents[0]);
    eg_settings_unref(s);
}

Test(settings, names_and_milliseconds)
{
    bool ms = true;
    cr_assert_not_null(eg_setting_find("turn_lease", &ms));
    cr_assert_not(ms);
    cr_assert_not_null(eg_setting_find("turn-lease", &ms));
    cr_assert_not_null(eg_setting_find("turn_lease_ms", &ms));
    cr_assert(ms);
    cr_assert_not_null(eg_setting_find("turn-lease-ms", &ms));
    cr_assert(ms);
    cr_assert_not_null(eg_setting_find("heartbeat_ms", &ms));
    cr_assert_not(ms, "a name that ends in _ms by itself");
    cr_assert_null(eg_setting_find("max_payload_ms", &ms), "only durations have it");
    cr_assert_null(eg_setting_find("turn", &ms));
    cr_assert_null(eg_setting_find("", &ms));
}

Test(settings, suggestions)
{
    cr_assert_str_eq(eg_setting_suggest("max_paylod"), "max_payload");
    cr_assert_str_eq(eg_setting_suggest("heartbaet_ms"), "heartbeat_ms");
    cr_assert_str_eq(eg_setting_suggest("lisen"), "listen");
    cr_assert_str_eq(eg_setting_suggest("max-attempt"), "max_attempts");
    cr_assert_str_eq(eg_setting_suggest("origins"), "allowed_origins");
    cr_assert_null(eg_setting_suggest("colour_of_the_sky"));
    cr_assert_null(eg_setting_suggest("x"));
}

Test(settings, copies_are_equal_and_independent)
{
    char why[160];
    struct eg_settings *a = eg_settings_new();
    cr_assert_eq(eg_setting_set_text(row("agents"), a, "x,y", false, why, sizeof why), EG_OK);
    cr_assert_eq(eg_setting_set_text(row("audience"), a, "here", false, why, sizeof why), EG_OK);
    struct eg_settings *b = eg_settings_copy(a);
    for (int i = 0; i < EG_SETTING_COUNT; i++)
        cr_assert(eg_setting_same(&eg_setting_table[i], a, b), "%s", eg_setting_table[i].name);
    cr_assert_eq(eg_setting_set_text(row("agents"), b, "x,z", false, why, sizeof why), EG_OK);
    cr_assert_not(eg_setting_same(row("agents"), a, b));
    cr_assert_eq(eg_setting_set_text(row("agents"), b, "x", false, why, sizeof why), EG_OK);
    cr_assert_not(eg_setting_same(row("agents"), a, b), "a shorter list differs");
    cr_assert_eq(eg_setting_set_text(row("audience"), b, "there", false, why, sizeof why), EG_OK);
    cr_assert_not(eg_setting_same(row("audience"), a, b));
    cr_assert_str_eq(a->audience, "here");
    eg_settings_unref(a);
    eg_settings_unref(eg_settings_ref(b));
    cr_assert_str_eq(b->audience, "there");
    eg_settings_unref(b);
}

struct faults {
    int n;
    char name[8][40];
};

static void note(void *arg, const struct eg_setting *d, const char *text)
{
    struct faults *f = arg;
    cr_assert(*text);
    if (f->n < 8)
        strncpy(f->name[f->n], d->name, 39);
    f->n++;
}

/* How many faults there are when name is set to text. */
static int faults_of(const char *name, const char *text)
{
    char why[160];
    struct faults f = {0};
    struct eg_settings *s = eg_settings_new();
    cr_assert_eq(eg_setting_set_text(row(name), s, text, false, why, sizeof why), EG_OK);
    eg_settings_check(s, note, &f);
    for (int i = 0; i < f.n && i < 8; i++)
        cr_assert_str_eq(f.name[i], name);
    eg_settings_unref(s);
    return f.n;
}

Test(settings, addresses)
{
    static const char *const good[] = {"127.0.0.1:0", "0.0.0.0:65535", "10.1.2.3:7070"};
    static const char *const bad[] = {
        "",           "7070",     ":7070",     "127.0.0.1",     "127.0.0.1:",   "127.0.0.1:65536",
        "[::1]:7070", "::1:7070", "host:7070", "127.0.0.1:70s", "127.0.0.1:-1", "127.0.0.1:7070s",
        "300.0.0.1:1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        cr_assert_eq(faults_of("listen", good[i]), 0, "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(faults_of("listen", bad[i]), 1, "%s", bad[i]);
    cr_assert_eq(faults_of("admin", "127.0.0.1:7070"), 1, "the public listener's");
}

Test(settings, origins_and_proxies)
{
    cr_assert_eq(faults_of("allowed_origins", "https://a.example,http://localhost:3000"), 0);
    cr_assert_eq(faults_of("allowed_origins", "https://a.example/,a.example,*,https://A.example"),
                 4);
    cr_assert_eq(faults_of("trusted_proxies", "10.0.0.0/8,127.0.0.1,::1,fd00::/8"), 0);
    cr_assert_eq(faults_of("trusted_proxies", "10.0.0.0/33,proxy,10.0.0/8,::1/129"), 4);
}

Test(settings, log_words)
{
    cr_assert_eq(faults_of("log_level", "debug"), 0);
    cr_assert_eq(faults_of("log_level", "loud"), 1);
    cr_assert_eq(faults_of("log_format", "journal"), 0);
    cr_assert_eq(faults_of("log_format", "xml"), 1);
}
