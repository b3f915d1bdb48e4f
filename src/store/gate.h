/*
 * gate.h - private to src/store: lets the writer finish a checkpoint while readers are busy.
 *
 * SQLite can start its write-ahead log over only at a moment when no reader looks into it. With
 * readers that follow each other without a pause that moment never comes and the log grows. So
 * every read transaction of this process passes a gate; when the log has grown long the writer
 * shuts it, waits a little for those inside, checkpoints, and opens it again. One gate serves the
 * process. Readers of other processes are not held back; they are short.
 */
#ifndef EG_STORE_GATE_H
#define EG_STORE_GATE_H

/* Any thread. Waits while the gate is shut; not to be nested. */
void eg_gate_enter(void);
void eg_gate_leave(void);

/* Writer: shuts the gate and waits until nobody is inside, at most wait_ms. Then eg_gate_open. */
void eg_gate_shut(int wait_ms);
void eg_gate_open(void);

#endif
