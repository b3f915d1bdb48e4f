/*
 * notify.h - telling a service manager how we are (sd_notify(3)'s protocol, without its library).
 *
 * Any thread; does nothing when NOTIFY_SOCKET is not set.
 */
#ifndef EG_APP_NOTIFY_H
#define EG_APP_NOTIFY_H

#include <stdint.h>

#include "base/err.h"

/* Sends lines such as "READY=1\nSTATUS=serving". Losses are of no consequence. */
void eg_notify(const char *fmt, ...) EG_PRINTF(1, 2);
/* How often the watchdog wants to hear of us, in milliseconds; 0: there is none. */
int64_t eg_notify_watchdog_ms(void);

#endif
