/*
 * test_fair.c - who comes next: order within a flow, shares between groups and flows, newcomers,
 * memory.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "core/fair.h"

/* The connection's high half is its group. */
static uint64_t group_of(void *arg, const struct eg_cmd *cmd)
{
    (void)arg;
    return cmd->conn >> 32;
}

static void add(struct eg_fair *f, unsigned group, unsigned conn, int number)
{
    struct eg_cmd *const cmd = eg_cmd_new(EG_CMD_FRAME, (uint64_t)group << 32 | conn);
    cr_assert_not_null(cmd);
    cmd->frame.turn = number;
    eg_fair_add(f, cmd);
}

/* Takes n, each at this cost, as "group.conn:number ...". */
static char *take(struct eg_fair *f, int n, size_t cost)
{
    static char out[2000];
    out[0] = '\0';
    for (int i = 0; i < n && eg_fair_peek(f); i++) {
        struct eg_cmd *const cmd = eg_fair_take(f, cost);
        sprintf(out + strlen(out), "%s%u.%u:%d", i ? " " : "", (unsigned)(cmd->conn >> 32),
                (unsigned)cmd->conn, (int)cmd->frame.turn);
        eg_cmd_free(cmd);
    }
    return out;
}

Test(fair, keeps_the_order_of_a_flow)
{
    struct eg_fair *const f = eg_fair_new(group_of, NULL);
    for (int i = 0; i < 5; i++) {
        add(f, 1, 1, i);
    }
    cr_expect_str_eq(take(f, 9, EG_FAIR_QUANTUM * 3), "1.1:0 1.1:1 1.1:2 1.1:3 1.1:4");
    cr_expect_eq(eg_fair_count(f), 0);
    cr_expect_null(eg_fair_peek(f));
    eg_fair_free(f);
}

Test(fair, takes_turns_between_groups_whatever_their_connections)
{
    struct eg_fair *const f = eg_fair_new(group_of, NULL);
    for (unsigned conn = 1; conn <= 4; conn++) {
        add(f, 1, conn, 0);
        add(f, 1, conn, 1);
    }
    add(f, 2, 1, 0);
    add(f, 2, 1, 1);
    cr_expect_str_eq(take(f, 6, EG_FAIR_QUANTUM), "1.1:0 2.1:0 1.2:0 2.1:1 1.3:0 1.4:0");
    eg_fair_free(f);
}

Test(fair, serves_first_who_had_nothing_waiting)
{
    struct eg_fair *const f = eg_fair_new(group_of, NULL);
    for (int i = 0; i < 4; i++) {
        add(f, 1, 1, i);
        add(f, 2, 1, i);
    }
    cr_expect_str_eq(take(f, 2, EG_FAIR_QUANTUM), "1.1:0 2.1:0");
    add(f, 3, 1, 0);
    add(f, 1, 2, 0); /* new in its group, but the group is not */
    cr_expect_str_eq(take(f, 3, EG_FAIR_QUANTUM), "3.1:0 1.2:0 2.1:1");
    eg_fair_free(f);
}

Test(fair, lets_the_large_pay_afterwards)
{
    struct eg_fair *const f = eg_fair_new(group_of, NULL);
    add(f, 1, 1, 0);
    add(f, 1, 1, 1);
    for (int i = 0; i < 6; i++) {
        add(f, 2, 1, i);
    }
    cr_expect_str_eq(take(f, 1, EG_FAIR_QUANTUM * 4), "1.1:0");
    cr_expect_str_eq(take(f, 6, EG_FAIR_QUANTUM), "2.1:0 2.1:1 2.1:2 2.1:3 1.1:1 2.1:4");
    eg_fair_free(f);
}

Test(fair, does_not_take_one_for_new_who_asks_little_by_little)
{
    struct eg_fair *const f = eg_fair_new(group_of, NULL);
    for (int i = 0; i < 3; i++) {
        add(f, 1, 1, i);
    }
    add(f, 2, 1, 0);
    cr_expect_str_eq(take(f, 2, EG_FAIR_QUANTUM), "1.1:0 2.1:0");
    cr_expect_not_null(eg_fair_peek(f));
    add(f, 2, 1, 1); /* its group ran empty a moment ago */
    cr_expect_str_eq(take(f, 3, EG_FAIR_QUANTUM), "1.1:1 2.1:1 1.1:2");
    eg_fair_free(f);
}

static uint64_t moving(void *arg, const struct eg_cmd *cmd)
{
    (void)cmd;
    return *(uint64_t *)arg;
}

Test(fair, asks_again_for_the_group_of_a_flow_that_ran_empty)
{
    uint64_t group = 1;
    struct eg_fair *const f = eg_fair_new(moving, &group);
    add(f, 0, 1, 0);
    add(f, 0, 2, 0);
    cr_expect_str_eq(take(f, 1, EG_FAIR_QUANTUM), "0.1:0");
    group = 2;
    add(f, 0, 1, 1);
    add(f, 0, 3, 0);
    cr_expect_str_eq(take(f, 9, EG_FAIR_QUANTUM), "0.1:1 0.2:0 0.3:0");
    eg_fair_free(f);
}

/* Against a plain count: nothing lost, nothing twice, order within each flow. */
Test(fair, holds_under_random_use)
{
    struct eg_fair *const f = eg_fair_new(group_of, NULL);
    int in[8][8] = {{0}}, out[8][8] = {{0}}, waiting = 0;
    srand(7);
    for (int step = 0; step < 200000; step++) {
        if (rand() % 2) {
            const unsigned g = (unsigned)rand() % 8, c = (unsigned)rand() % 8;
            add(f, g, c, in[g][c]++);
            waiting++;
        } else if (eg_fair_peek(f)) {
            struct eg_cmd *const cmd = eg_fair_take(f, (size_t)rand() % (3 * EG_FAIR_QUANTUM));
            cr_assert_eq(cmd->frame.turn, out[cmd->conn >> 32][cmd->conn & 7]++);
            eg_cmd_free(cmd);
            waiting--;
        }
        cr_assert_eq(eg_fair_count(f), (size_t)waiting);
    }
    while (eg_fair_peek(f)) {
        struct eg_cmd *const cmd = eg_fair_take(f, 1);
        cr_assert_eq(cmd->frame.turn, out[cmd->conn >> 32][cmd->conn & 7]++);
        eg_cmd_free(cmd);
        waiting--;
    }
    cr_expect_eq(waiting, 0);
    eg_fair_free(f);
}
