/*
 * metrics.h - counters, gauges and histograms of the whole process, in one table.
 *
 * Atomic adds from any thread; the metrics page reads them. No labels but those of fixed sets.
 */
#ifndef EG_BASE_METRICS_H
#define EG_BASE_METRICS_H

#include <stdint.h>

#include "base/bytes.h"
#include "ebbgate/codes.h"

/* C(name, help) counters, G(name, help) gauges; on the page each is ebbgate_<name>. */
#define EG_METRICS(C, G)                                                                           \
    C(connections_accepted_total, "connections upgraded or streamed")                              \
    G(connections, "open connections")                                                             \
    G(workers, "attached workers")                                                                 \
    C(handshakes_ok_total, "hello or join accepted")                                               \
    C(adoptions_proven_total, "sockets taken over with proof")                                     \
    C(adoptions_failed_total, "sockets closed for want of proof")                                  \
    C(upgrades_refused_total, "requests to /ws refused before upgrade")                            \
    C(frames_received_total, "text frames received")                                               \
    C(frames_refused_total, "frames answered by an error")                                         \
    C(frames_sent_total, "frames sent")                                                            \
    C(bytes_received_total, "payload bytes received")                                              \
    C(bytes_sent_total, "bytes written to sockets")                                                \
    C(events_total, "events stored")                                                               \
    C(event_bytes_total, "bytes of events stored")                                                 \
    C(duplicates_total, "repeated publishes answered from the log")                                \
    C(commits_total, "transactions committed")                                                     \
    C(commit_failures_total, "transactions that failed")                                           \
    G(core_queue, "commands waiting for the core")                                                 \
    G(sessions_cached, "sessions in memory")                                                       \
    C(replay_events_total, "events replayed")                                                      \
    C(snapshots_total, "snapshots sent in place of a replay")                                      \
    G(replays, "replays under way")                                                                \
    C(slow_consumers_total, "connections closed because they did not read")                        \
    C(liveness_timeouts_total, "connections closed after silence")                                 \
    C(rate_limited_total, "frames answered by rate_limited")                                       \
    C(connections_refused_total, "connections refused by a limit")                                 \
    C(turns_queued_total, "turns queued")                                                          \
    C(turns_started_total, "attempts handed to workers")                                           \
    C(turns_ok_total, "turns ended with outcome ok")                                               \
    C(turns_error_total, "turns ended with outcome error by their worker")                         \
    C(turns_rejected_total, "turns ended with outcome rejected")                                   \
    C(turns_aborted_total, "turns ended by abort")                                                 \
    C(turns_dead_total, "turns ended as dead letters")                                             \
    C(turns_retried_total, "attempts given back and tried again")                                  \
    G(turns_waiting, "turns waiting for a worker")                                                 \
    G(turns_running, "turns at a worker")                                                          \
    C(trimmed_events_total, "events removed by retention")                                         \
    G(wal_bytes, "size of the write-ahead log")                                                    \
    G(disk_free_bytes, "free bytes where the data folder is")                                      \
    G(storage_ok, "1 while the log can be written")                                                \
    G(draining, "1 while shutting down")                                                           \
    C(log_suppressed_total, "log entries left out because there were too many")

enum eg_metric {
#define EG_M_ENUM(name, help) EG_M_##name,
    EG_METRICS(EG_M_ENUM, EG_M_ENUM)
#undef EG_M_ENUM
        EG_METRIC_COUNT
};

/* Histograms with fixed buckets: time in microseconds, sizes in items. */
enum eg_hist { EG_H_COMMIT_US, EG_H_BATCH, EG_H_PUBLISH_US, EG_HIST_COUNT };

void eg_metric_add(enum eg_metric m, int64_t n);
void eg_metric_set(enum eg_metric m, int64_t v);
int64_t eg_metric_get(enum eg_metric m);
void eg_hist_add(enum eg_hist h, int64_t v);
/* Counts an error told to a peer, by code. */
void eg_metric_error(enum eg_code code);
/* The estimated quantile q (0..1) of what h has seen since the start; 0 when empty. */
int64_t eg_hist_quantile(enum eg_hist h, double q);
/* The Prometheus text page (exposition format 0.0.4). */
void eg_metrics_page(struct eg_buf *out);

#endif
