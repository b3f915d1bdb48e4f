/*
 * fair.c - see fair.h.
 *
 * Both levels are lines of entries. An entry with commands below it stands in one of its line's two
 * lists: in fresh when it had nothing waiting before, in old when it has had its share and wants
 * more. Fresh ones come first. An entry whose credit is used up is given a quantum and goes to the
 * end of old. One that has run empty goes through old once before it counts as fresh again (so that
 * nobody stays fresh by asking little by little), then it is forgotten. A command is taken as long
 * as there is any credit, and may overdraw it: a large one pays afterwards, by waiting.
 */
#include "core/fair.h"

#include <stdlib.h>

#include <utlist.h>

#include "base/table.h"
#include "core/core.h"

struct entry {
    struct entry *prev, *next;
    int64_t credit;
    size_t count; /* commands below it */
    bool listed, fresh;
};

struct line {
    struct entry *fresh, *old;
};

struct group {
    struct entry entry; /* first */
    struct line flows;
    unsigned members; /* flows that name it */
    uint64_t key;
    UT_hash_handle hh;
};

struct flow {
    struct entry entry; /* first */
    struct group *group;
    struct eg_qnode *first, *last;
    uint64_t key;
    UT_hash_handle hh;
};

struct eg_fair {
    eg_fair_group_fn *group_of;
    void *arg;
    struct line line; /* of groups */
    struct group *groups;
    struct flow *flows;
    struct group common_group; /* for want of memory */
    struct flow common;
    struct flow *at; /* what peek told */
    size_t count;
};

static void enlist(struct line *line, struct entry *e, bool fresh)
{
    e->listed = true;
    e->fresh = fresh;
    if (fresh) {
        DL_APPEND(line->fresh, e);
    } else {
        DL_APPEND(line->old, e);
    }
}

static void delist(struct line *line, struct entry *e)
{
    e->listed = false;
    if (e->fresh) {
        DL_DELETE(line->fresh, e);
    } else {
        DL_DELETE(line->old, e);
    }
}

static void join(struct line *line, struct entry *e)
{
    if (!e->listed) {
        e->credit = EG_FAIR_QUANTUM;
        enlist(line, e, true);
    }
}

/* Frees g when nothing names it any more. */
static void forget_group(struct eg_fair *f, struct group *g)
{
    if (g->members == 0 && !g->entry.listed && g != &f->common_group) {
        HASH_DELETE(hh, f->groups, g);
        free(g);
    }
}

static void leave_flow(struct eg_fair *f, struct entry *e)
{
    struct flow *const flow = (struct flow *)e;
    struct group *const g = flow->group;
    if (flow != &f->common) {
        HASH_DELETE(hh, f->flows, flow);
        free(flow);
        g->members--;
        forget_group(f, g);
    }
}

/* An empty group: its flows are empty, too. */
static void leave_group(struct eg_fair *f, struct entry *e)
{
    struct group *const g = (struct group *)e;
    g->members++; /* it outlives its flows */
    for (struct entry *flow; (flow = g->flows.fresh ? g->flows.fresh : g->flows.old);) {
        delist(&g->flows, flow);
        leave_flow(f, flow);
    }
    g->members--;
    forget_group(f, g);
}

/* The entry whose turn it is, NULL: none. Those that have run empty leave. */
static struct entry *turn_of(struct eg_fair *f, struct line *line,
                             void (*leave)(struct eg_fair *f, struct entry *e))
{
    for (;;) {
        struct entry *const e = line->fresh ? line->fresh : line->old;
        if (!e) {
            return NULL;
        }
        if (e->count && e->credit > 0) {
            return e;
        }
        const bool stays = e->count || (e->fresh && line->old);
        delist(line, e);
        if (!stays) {
            leave(f, e);
            continue;
        }
        if (e->credit <= 0) {
            e->credit += EG_FAIR_QUANTUM;
        }
        enlist(line, e, false);
    }
}

static struct group *group_for(struct eg_fair *f, uint64_t key)
{
    struct group *g = NULL;
    HASH_FIND(hh, f->groups, &key, sizeof key, g);
    if (!g) {
        g = calloc(1, sizeof *g);
        if (g) {
            g->key = key;
            HASH_ADD(hh, f->groups, key, sizeof g->key, g);
        }
    }
    return g;
}

static uint64_t flow_key(const struct eg_cmd *cmd)
{
    return cmd->kind == EG_CMD_CALL ? (uint64_t)(uintptr_t)cmd->call | UINT64_C(1) << 63
                                    : cmd->conn;
}

/* Puts flow, in which nothing waits, below the group it belongs to now. False without memory. */
static bool place(struct eg_fair *f, struct flow *flow, const struct eg_cmd *cmd)
{
    const uint64_t key = f->group_of(f->arg, cmd);
    struct group *const before = flow->group;
    if (before && before->key == key) {
        return true;
    }
    struct group *const g = group_for(f, key);
    if (!g) {
        return false;
    }
    g->members++;
    flow->group = g;
    if (before) {
        if (flow->entry.listed) {
            delist(&before->flows, &flow->entry);
        }
        before->members--;
        forget_group(f, before);
    }
    return true;
}

static struct flow *flow_for(struct eg_fair *f, const struct eg_cmd *cmd)
{
    const uint64_t key = flow_key(cmd);
    struct flow *flow = NULL;
    HASH_FIND(hh, f->flows, &key, sizeof key, flow);
    if (flow && (flow->entry.count || place(f, flow, cmd))) {
        return flow;
    }
    if (flow || f->common.entry.count) {
        return flow ? flow : &f->common;
    }
    flow = calloc(1, sizeof *flow);
    if (!flow || !place(f, flow, cmd)) {
        free(flow);
        return &f->common;
    }
    flow->key = key;
    HASH_ADD(hh, f->flows, key, sizeof flow->key, flow);
    return flow;
}

void eg_fair_add(struct eg_fair *f, struct eg_cmd *cmd)
{
    struct flow *const flow = flow_for(f, cmd);
    cmd->node.next = NULL;
    if (flow->entry.count++) {
        flow->last->next = &cmd->node;
    } else {
        flow->first = &cmd->node;
    }
    flow->last = &cmd->node;
    f->count++;
    flow->group->entry.count++;
    join(&flow->group->flows, &flow->entry);
    join(&f->line, &flow->group->entry);
}

struct eg_cmd *eg_fair_peek(struct eg_fair *f)
{
    struct group *const g = (struct group *)turn_of(f, &f->line, leave_group);
    f->at = g ? (struct flow *)turn_of(f, &g->flows, leave_flow) : NULL;
    return f->at ? (struct eg_cmd *)f->at->first : NULL;
}

struct eg_cmd *eg_fair_take(struct eg_fair *f, size_t cost)
{
    struct flow *const flow = f->at;
    struct eg_cmd *const cmd = (struct eg_cmd *)flow->first;
    flow->first = cmd->node.next;
    flow->entry.count--;
    flow->entry.credit -= (int64_t)cost;
    flow->group->entry.count--;
    flow->group->entry.credit -= (int64_t)cost;
    f->count--;
    f->at = NULL;
    return cmd;
}

size_t eg_fair_count(const struct eg_fair *f)
{
    return f->count;
}

struct eg_fair *eg_fair_new(eg_fair_group_fn *group, void *arg)
{
    struct eg_fair *const f = calloc(1, sizeof *f);
    if (f) {
        f->group_of = group;
        f->arg = arg;
        f->common.group = &f->common_group;
    }
    return f;
}

void eg_fair_free(struct eg_fair *f)
{
    if (!f) {
        return;
    }
    while (eg_fair_peek(f)) {
        eg_cmd_free(eg_fair_take(f, 0));
    }
    free(f);
}
