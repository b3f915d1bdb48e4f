/* test_limits.c - connection limits of addresses, and their table. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "edge/limits.h"

static struct eg_limits *make(int64_t total, int64_t per_address, int64_t handshakes, int64_t rate)
{
    struct eg_settings s = {.max_connections = total,
                            .max_connections_per_address = per_address,
                            .max_handshakes_per_address = handshakes,
                            .handshake_rate = rate};
    struct eg_limits *l = NULL;
    cr_assert_eq(eg_limits_new(&s, &l), EG_OK);
    return l;
}

Test(limits, total_of_all_addresses)
{
    struct eg_limits *l = make(2, 0, 0, 0);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.2", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.3", 0), EG_CODE_too_many_connections);
    eg_limits_leave(l, "10.0.0.1", false);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.3", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_count(l).connections, 2);
    eg_limits_free(l);
}

Test(limits, connections_of_one_address)
{
    struct eg_limits *l = make(100, 2, 0, 0);
    cr_expect_eq(eg_limits_enter(l, "127.0.0.1", 0), EG_CODE_NONE,
                 "named limits bind loopback too");
    cr_expect_eq(eg_limits_enter(l, "127.0.0.1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "127.0.0.1", 0), EG_CODE_too_many_connections);
    cr_expect_eq(eg_limits_enter(l, "127.0.0.2", 0), EG_CODE_NONE, "another address is free");
    eg_limits_established(l, "127.0.0.1");
    cr_expect_eq(eg_limits_enter(l, "127.0.0.1", 0), EG_CODE_too_many_connections,
                 "an established connection is still one");
    eg_limits_leave(l, "127.0.0.1", true);
    cr_expect_eq(eg_limits_enter(l, "127.0.0.1", 0), EG_CODE_NONE);
    eg_limits_free(l);
}

Test(limits, unfinished_handshakes)
{
    struct eg_limits *l = make(100, 0, 2, 0);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_rate_limited);
    eg_limits_established(l, "10.0.0.1");
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE, "a finished one makes room");
    eg_limits_leave(l, "10.0.0.1", true);
    eg_limits_leave(l, "10.0.0.1", false);
    eg_limits_leave(l, "10.0.0.1", false);
    cr_expect_eq(eg_limits_count(l).handshakes, 0);
    cr_expect_eq(eg_limits_count(l).connections, 0);
    eg_limits_free(l);
}

Test(limits, an_end_gives_back_its_own_handshake_only)
{
    struct eg_limits *l = make(100, 0, 2, 0);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE);
    eg_limits_established(l, "10.0.0.1");
    eg_limits_leave(l, "10.0.0.1", true);
    cr_expect_eq(eg_limits_count(l).handshakes, 1, "the other is still under way");
    eg_limits_free(l);
}

Test(limits, who_is_connected_or_was_just_now_is_not_forgotten)
{
    struct eg_limits *l = make(100, 2, 0, 2);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE);
    for (int i = 0; i < 2; i++) { /* others come, and the table is looked through */
        cr_expect_eq(eg_limits_enter(l, i ? "10.0.0.3" : "10.0.0.2", 5000), EG_CODE_NONE);
    }
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 5000), EG_CODE_too_many_connections);
    eg_limits_leave(l, "10.0.0.3", false);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.3", 5000), EG_CODE_NONE);
    eg_limits_leave(l, "10.0.0.3", false);
    for (int i = 0; i < 4; i++) {
        const char *const other[] = {"10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"};
        cr_expect_eq(eg_limits_enter(l, other[i], 5000), EG_CODE_NONE);
    }
    cr_expect_eq(eg_limits_enter(l, "10.0.0.3", 5000), EG_CODE_rate_limited,
                 "coming and going does not fill the bucket");
    eg_limits_free(l);
}

Test(limits, sockets_without_a_request)
{
    struct eg_limits *l = make(100, 0, 2, 0);
    cr_expect(eg_limits_knock(l, "10.0.0.1", 0));
    cr_expect(eg_limits_knock(l, "10.0.0.1", 0));
    cr_expect_not(eg_limits_knock(l, "10.0.0.1", 0));
    cr_expect(eg_limits_knock(l, "10.0.0.2", 0), "another address is free");
    cr_expect_eq(eg_limits_count(l).handshakes, 3);
    eg_limits_knocked(l, "10.0.0.1");
    cr_expect(eg_limits_knock(l, "10.0.0.1", 0));
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE,
                 "they do not count against those that are upgraded");
    eg_limits_free(l);
}

Test(limits, a_broken_handshake_is_given_back)
{
    struct eg_limits *l = make(100, 0, 1, 0);
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(eg_limits_enter(l, "127.0.0.1", i), EG_CODE_NONE, "round %d", i);
        cr_assert_eq(eg_limits_enter(l, "127.0.0.1", i), EG_CODE_rate_limited, "round %d", i);
        eg_limits_leave(l, "127.0.0.1", false);
    }
    eg_limits_free(l);
}

Test(limits, rate_of_new_connections)
{
    struct eg_limits *l = make(1000, 0, 0, 5);
    int ok = 0;
    for (int i = 0; i < 20; i++) {
        ok += eg_limits_enter(l, "10.0.0.1", 1000) == EG_CODE_NONE;
    }
    cr_expect_eq(ok, 5, "burst of one second");
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 1100), EG_CODE_rate_limited);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 1200), EG_CODE_NONE, "one more after 200 ms");
    cr_expect_eq(eg_limits_count(l).connections, 6);
    eg_limits_free(l);
}

Test(limits, loopback_is_free_by_default_and_others_are_not)
{
    struct eg_limits *l = make(100000, 0, 0, 0);
    const char *const local[] = {"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"};
    for (size_t a = 0; a < 4; a++) {
        for (int i = 0; i < 2000; i++) {
            cr_assert_eq(eg_limits_enter(l, local[a], 0), EG_CODE_NONE, "%s %d", local[a], i);
        }
    }
    int ok = 0;
    for (int i = 0; i < 500; i++) {
        ok += eg_limits_enter(l, "10.0.0.1", 0) == EG_CODE_NONE;
    }
    cr_expect_eq(ok, 64, "unfinished handshakes: %d", ok);
    int second = 0;
    for (int i = 0; i < 500; i++) { /* each says hello at once */
        if (eg_limits_enter(l, "10.0.0.2", 0) == EG_CODE_NONE) {
            eg_limits_established(l, "10.0.0.2");
            second++;
        }
    }
    cr_expect_eq(second, 200, "rate: %d", second);
    eg_limits_free(l);
}

Test(limits, one_ipv6_network_counts_as_one)
{
    struct eg_limits *l = make(100, 2, 0, 0);
    cr_expect_eq(eg_limits_enter(l, "2001:db8::1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "2001:db8::2", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "2001:db8::ffff", 0), EG_CODE_too_many_connections);
    cr_expect_eq(eg_limits_enter(l, "2001:db8:0:1::1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "::ffff:10.0.0.1", 0), EG_CODE_NONE);
    cr_expect_eq(eg_limits_enter(l, "10.0.0.1", 0), EG_CODE_too_many_connections,
                 "a mapped address is the IPv4 address");
    eg_limits_free(l);
}

Test(limits, settings_change_while_connected)
{
    struct eg_limits *l = make(100, 0, 0, 0);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(eg_limits_enter(l, "127.0.0.1", 0), EG_CODE_NONE);
    }
    struct eg_settings s = {.max_connections = 100, .max_connections_per_address = 3};
    eg_limits_settings(l, &s);
    eg_limits_leave(l, "127.0.0.1", false);
    eg_limits_leave(l, "127.0.0.1", false);
    cr_expect_eq(eg_limits_enter(l, "127.0.0.1", 0), EG_CODE_too_many_connections);
    eg_limits_leave(l, "127.0.0.1", false);
    cr_expect_eq(eg_limits_enter(l, "127.0.0.1", 0), EG_CODE_NONE);
    eg_limits_free(l);
}

Test(limits, table_is_bounded_and_forgets)
{
    struct eg_limits *l = make(1000000, 0, 0, 0);
    char addr[32];
    int64_t now = 0;
    for (int i = 0; i < 200000; i++) { /* come and go */
        now += 1;
        snprintf(addr, sizeof addr, "10.%d.%d.%d", i >> 16, (i >> 8) & 255, i & 255);
        cr_assert_eq(eg_limits_enter(l, addr, now), EG_CODE_NONE);
        eg_limits_leave(l, addr, false);
    }
    cr_expect_lt(eg_limits_count(l).addresses, 3000, "%lld rows",
                 (long long)eg_limits_count(l).addresses);
    int refused = 0;
    for (int i = 0; i < 70000; i++) { /* come and stay */
        snprintf(addr, sizeof addr, "11.%d.%d.%d", i >> 16, (i >> 8) & 255, i & 255);
        refused += eg_limits_enter(l, addr, now) != EG_CODE_NONE;
    }
    cr_expect_leq(eg_limits_count(l).addresses, 65536);
    cr_expect_geq(refused, 70000 - 65536);
    for (int i = 0; i < 70000; i++) {
        snprintf(addr, sizeof addr, "11.%d.%d.%d", i >> 16, (i >> 8) & 255, i & 255);
        eg_limits_leave(l, addr, false);
    }
    cr_expect_eq(eg_limits_count(l).connections, 0);
    cr_expect_eq(eg_limits_count(l).handshakes, 0);
    cr_expect_eq(eg_limits_enter(l, "12.0.0.1", now + 5000), EG_CODE_NONE, "there is room again");
    eg_limits_free(l);
}

Test(limits, what_was_not_entered_changes_nothing)
{
    struct eg_limits *l = make(10, 0, 0, 0);
    eg_limits_leave(l, "10.0.0.1", false);
    eg_limits_established(l, "10.0.0.1");
    eg_limits_knocked(l, "not an address");
    cr_expect_eq(eg_limits_count(l).connections, 0);
    cr_expect_eq(eg_limits_count(l).handshakes, 0);
    cr_expect_eq(eg_limits_enter(l, "not an address", 0), EG_CODE_NONE);
    eg_limits_leave(l, "not an address", false);
    eg_limits_free(l);
}
