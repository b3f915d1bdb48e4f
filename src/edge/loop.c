/*
 * loop.c - one reactor's thread.
 *
 * A turn: wait; open mail; deliver what the core released; read from sockets; look at what is due;
 * hand all commands to the core with one call; write each connection that has something once; do
 * the same for some of those that send much (input.c); free what ended. Nothing in it waits for a
 * disk or a lock of long holding.
 */
#include <errno.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "edge/peer.h"

#define EVENTS_MAX 512

void eg_loop_interest(struct eg_peer *p)
{
    struct epoll_event ev = {.data.ptr = p};
    const bool in = !p->muted && (p->reading || p->state >= EG_PEER_CLOSING);
    if (p->gone ||
        (in == p->watch_in && p->writable_wait == p->watch_out && p->muted == p->watch_once)) {
        return;
    }
    if (in) {
        ev.events |= EPOLLIN;
    }
    if (p->writable_wait) {
        ev.events |= EPOLLOUT;
    }
    if (p->muted) {
        ev.events |= EPOLLET; /* its end, too, is told once */
    }
    p->watch_in = in;
    p->watch_out = p->writable_wait;
    p->watch_once = p->muted;
    if (epoll_ctl(p->r->epfd, EPOLL_CTL_MOD, p->fd, &ev) != 0) {
        eg_log_limited(EG_LOG_ERROR, "reactor.epoll", "errno=%d", errno);
        eg_peer_end(p);
    }
}

void eg_loop_post(struct eg_reactor *r, struct eg_cmd *cmd)
{
    cmd->node.next = NULL;
    if (r->post_last) {
        r->post_last->node.next = &cmd->node;
    } else {
        r->post_first = cmd;
    }
    r->post_last = cmd;
}

void eg_loop_keep(struct eg_reactor *r, struct eg_release *release)
{
    while (release->spent && r->spares < EG_SPARES_MAX) {
        struct eg_cmd *const cmd = release->spent;
        release->spent = (struct eg_cmd *)cmd->node.next;
        eg_cmd_renew(cmd);
        cmd->node.next = (struct eg_qnode *)r->spare;
        r->spare = cmd;
        r->spares++;
    }
}

struct eg_cmd *eg_loop_command(struct eg_reactor *r, eg_conn_id conn)
{
    struct eg_cmd *const cmd = r->spare;
    if (!cmd) {
        return eg_cmd_new(EG_CMD_FRAME, conn);
    }
    r->spare = (struct eg_cmd *)cmd->node.next;
    r->spares--;
    cmd->kind = EG_CMD_FRAME;
    cmd->conn = conn;
    return cmd;
}

static void hand_over(struct eg_reactor *r)
{
    struct eg_cmd *const first = r->post_first;
    if (!first) {
        return;
    }
    struct eg_reactors *const rs = r->set;
    if (rs->seams.post) {
        rs->seams.post(rs->seams.arg, first, r->post_last);
    } else {
        eg_core_post_list(rs->core, first, r->post_last);
    }
    r->post_first = r->post_last = NULL;
}

static void open_mail(struct eg_reactor *r)
{
    struct eg_qnode *n = eg_queue_take(&r->mail);
    while (n) {
        struct eg_qnode *const next = n->next;
        eg_mail_open(r, (struct eg_mail *)n);
        n = next;
    }
}

static void deliver(struct eg_reactor *r)
{
    struct eg_qnode *n = eg_queue_take(&r->releases);
    while (n) {
        struct eg_qnode *const next = n->next;
        eg_deliver(r, (struct eg_release *)n);
        n = next;
    }
}

static void flush(struct eg_reactor *r)
{
    while (r->dirty) {
        struct eg_peer *const p = r->dirty;
        r->dirty = p->dirty_next;
        p->dirty = false;
        eg_peer_flush(p);
    }
}

static void ready(struct eg_peer *p, uint32_t events)
{
    if (!p->gone && !p->muted && (events & (EPOLLERR | EPOLLHUP)) && !(events & EPOLLIN)) {
        eg_peer_lost(p);
    }
    if (!p->gone && (events & EPOLLIN)) {
        eg_input_readable(p);
    }
    if (!p->gone && (events & EPOLLOUT)) {
        eg_peer_touch(p);
    }
}

/* Waits; the events of sockets are left in ev. Mail and releases are told by their own fds, and
 * looked for in every turn. */
static int wait_for(struct eg_reactor *r, struct epoll_event *ev, bool wait)
{
    const int line_ms = eg_input_line_wait(r);
    const bool idle =
        wait && line_ms != 0 && eg_queue_sleep(&r->releases) && eg_queue_sleep(&r->mail);
    int ms = idle ? eg_alarm_wait(&r->alarms, eg_clock_mono_ms()) : 0;
    if (line_ms > 0 && (ms < 0 || line_ms < ms)) {
        ms = line_ms;
    }
    int n = epoll_wait(r->epfd, ev, EVENTS_MAX, ms);
    if (n < 0) {
        if (errno != EINTR) {
            eg_log(EG_LOG_ERROR, "reactor.wait", "errno=%d", errno);
        }
        n = 0;
    }
    __atomic_store_n(&r->releases.sleeping, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&r->mail.sleeping, 0, __ATOMIC_SEQ_CST);
    int sockets = 0;
    for (int i = 0; i < n; i++) {
        if (ev[i].data.ptr != &r->releases && ev[i].data.ptr != &r->mail) {
            ev[sockets++] = ev[i];
        }
    }
    return sockets;
}

static void add_up(struct eg_reactor *r)
{
    const struct eg_tally t = r->tally;
    r->tally = (struct eg_tally){0};
    if (t.frames_in) {
        eg_metric_add(EG_M_frames_received_total, t.frames_in);
        eg_metric_add(EG_M_bytes_received_total, t.bytes_in);
    }
    if (t.frames_out) {
        eg_metric_add(EG_M_frames_sent_total, t.frames_out);
    }
    if (t.bytes_out) {
        eg_metric_add(EG_M_bytes_sent_total, t.bytes_out);
    }
}

void eg_loop_turn(struct eg_reactor *r, bool wait)
{
    struct epoll_event ev[EVENTS_MAX];
    const int n = wait_for(r, ev, wait);
    r->now = eg_clock_now();
    open_mail(r);
    deliver(r);
    for (int i = 0; i < n; i++) {
        ready(ev[i].data.ptr, ev[i].events);
    }
    for (struct eg_peer *p; (p = eg_alarm_due(&r->alarms, r->now.mono_ms));) {
        eg_live_alarm(p);
    }
    hand_over(r); /* the core works while we write */
    flush(r);
    if (r->line || r->agent_line) {
        eg_input_line(r);
        hand_over(r);
        flush(r);
    }
    hand_over(r);
    eg_peer_bury(r);
    eg_farewell_check(r);
    add_up(r);
}

void *eg_loop_run(void *reactor)
{
    struct eg_reactor *const r = reactor;
    while (!r->stopping) {
        eg_loop_turn(r, true);
    }
    return NULL;
}
