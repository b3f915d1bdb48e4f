/*
 * lobby.h - stands before civetweb: a worker gets a socket only when its whole request head has
 * arrived, so that a client that sends slowly, or never, costs a descriptor and no thread.
 *
 * How: the executable defines accept(). The first time the library's listening thread calls it, the
 * lobby takes the listening socket over (a duplicate) and puts an epoll instance in its place, with
 * dup2, under the same number. The library polls that number, which is readable when the listening
 * socket or a waiting one is, and calls accept(), which then runs the lobby and returns a socket
 * whose head is complete, or fails with EAGAIN.
 *
 * The other way round, a socket whose request was answered before all of its body came leaves
 * through the lobby: what still comes is read away for a short time.
 *
 * Threads: accept() comes from the library's one listening thread, which does all the work; the
 * functions below say who may call them. Owns: the listening socket's duplicate, the epoll
 * instance, sockets that wait or leave.
 * Failure modes: no descriptor left: one in reserve is given up to accept and close the newcomer,
 * then accepting pauses for a tick. Too many wait or leave: the oldest of them is closed. A head
 * that is late, too long or malformed: answered 408, 431, or left to the library's 400.
 */
#ifndef EG_EDGE_LOBBY_H
#define EG_EDGE_LOBBY_H

#include "edge/limits.h"
#include "edge/proxy.h"

struct eg_lobby;

#define EG_LOBBY_HEAD_MAX                                                                          \
    16384 /* longest request head; the library's buffer holds one more byte                        \
           */

/* limits may be NULL; is_proxy (may be NULL) says whose sockets are not counted by address. Both
 * are borrowed, and so is arg. deadline_ms: time for a request head. */
struct eg_lobby_config {
    struct eg_limits *limits;
    bool (*is_proxy)(void *arg, const char *addr);
    void *arg;
    int64_t deadline_ms;
    unsigned max_waiting;
};

enum eg_err eg_lobby_new(const struct eg_lobby_config *config, struct eg_lobby **out) EG_MUST;
/* After the library has ended its threads. */
void eg_lobby_free(struct eg_lobby *g);
void eg_lobby_deadline(struct eg_lobby *g, int64_t deadline_ms); /* any thread */
/* From now on this thread's accept() goes through g: for the listening thread. */
void eg_lobby_enter(struct eg_lobby *g);
/* Whether the listening socket was taken over. Any thread. */
bool eg_lobby_stands(struct eg_lobby *g);
/* Takes fd, whose request was answered: reads away what the peer still sends, until it closes or a
 * second has passed, and closes it. Any thread. */
void eg_lobby_linger(struct eg_lobby *g, int fd);
/* Lets accept() return at once from now on, so that the library sees that it shall stop. Any
 * thread. */
void eg_lobby_wake(struct eg_lobby *g);

#endif
