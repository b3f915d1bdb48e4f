/*
 * badstore.c - see badstore.h.
 */
#include "badstore.h"

static const struct eg_storage_ops *real;
static struct eg_storage_ops ops;
static enum bad_call which = BAD_CALLS;
static int left, still;
static enum eg_err with;
static bool failed, held;
void (*badstore_before_events)(void);

void badstore_order(enum bad_call call, int n, int times, enum eg_err e)
{
    which = call;
    left = n;
    still = times;
    with = e;
    failed = held = false;
}

bool badstore_done(void)
{
    which = BAD_CALLS;
    return failed;
}

void badstore_hold(bool hold)
{
    held = hold;
}

static bool fails(enum bad_call call)
{
    if (call != which || held || left-- > 0 || still-- <= 0)
        return false;
    left = 0;
    failed = true;
    return true;
}

#define CALL(kind, name, params, args)                                                             \
    static enum eg_err bad_##name params                                                           \
    {                                                                                              \
        return fails(kind) ? with : real->name args;                                               \
    }

CALL(BAD_BEGIN, begin, (struct eg_storage * s), (s))
CALL(BAD_PROBE, probe, (struct eg_storage * s), (s))
CALL(BAD_MAINTAIN, maintain, (struct eg_storage * s), (s))
CALL(BAD_READ, session_by_id,
     (struct eg_storage * s, struct eg_slice id, struct eg_session_row *out), (s, id, out))
CALL(BAD_READ, session_by_sid, (struct eg_storage * s, int64_t sid, struct eg_session_row *out),
     (s, sid, out))
CALL(BAD_READ, turns, (struct eg_storage * s, int64_t sid, eg_turn_fn *fn, void *arg),
     (s, sid, fn, arg))
CALL(BAD_READ, turn_get,
     (struct eg_storage * s, int64_t sid, uint64_t turn, struct eg_turn_row *out),
     (s, sid, turn, out))
CALL(BAD_READ, open_turns, (struct eg_storage * s, eg_open_turn_fn *fn, void *arg), (s, fn, arg))
CALL(BAD_READ, event_by_idkey,
     (struct eg_storage * s, int64_t sid, const uint8_t *idkey, uint64_t *cursor,
      struct eg_bytes **body),
     (s, sid, idkey, cursor, body))
CALL(BAD_READ, event_get,
     (struct eg_storage * s, int64_t sid, uint64_t cursor, struct eg_bytes **body),
     (s, sid, cursor, body))
CALL(BAD_READ, event_hash,
     (struct eg_storage * s, int64_t sid, uint64_t cursor, uint8_t hash[EG_CHAIN_BYTES]),
     (s, sid, cursor, hash))
CALL(BAD_READ, ack_get, (struct eg_storage * s, int64_t sid, struct eg_slice sub, uint64_t *cursor),
     (s, sid, sub, cursor))
CALL(BAD_READ, count_open_sessions, (struct eg_storage * s, struct eg_slice owner, int64_t *out),
     (s, owner, out))
CALL(BAD_READ, agents, (struct eg_storage * s, eg_text_fn *fn, void *arg), (s, fn, arg))
CALL(BAD_READ, revoked, (struct eg_storage * s, eg_text_fn *fn, void *arg), (s, fn, arg))
CALL(BAD_READ, epoch, (struct eg_storage * s, struct eg_epoch *out), (s, out))

static enum eg_err bad_checkpoint(struct eg_storage *s)
{
    if (fails(BAD_CHECKPOINT))
        return with;
    return real->checkpoint ? real->checkpoint(s) : EG_OK;
}

static enum eg_err bad_events(struct eg_storage *s, int64_t sid, uint64_t from, int max,
                              eg_event_fn *fn, void *arg)
{
    if (badstore_before_events)
        badstore_before_events();
    return fails(BAD_READ) ? with : real->events(s, sid, from, max, fn, arg);
}

void badstore_over(struct eg_storage *s)
{
    real = s->ops;
    ops = *real;
    ops.begin = bad_begin;
    ops.probe = bad_probe;
    ops.maintain = bad_maintain;
    ops.checkpoint = bad_checkpoint;
    ops.session_by_id = bad_session_by_id;
    ops.session_by_sid = bad_session_by_sid;
    ops.turns = bad_turns;
    ops.turn_get = bad_turn_get;
    ops.open_turns = bad_open_turns;
    ops.event_by_idkey = bad_event_by_idkey;
    ops.event_get = bad_event_get;
    ops.event_hash = bad_event_hash;
    ops.events = bad_events;
    ops.ack_get = bad_ack_get;
    ops.count_open_sessions = bad_count_open_sessions;
    ops.agents = bad_agents;
    ops.revoked = bad_revoked;
    ops.epoch = bad_epoch;
    s->ops = &ops;
}
