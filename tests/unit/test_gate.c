/*
 * test_gate.c - the writer's wait for readers ends whatever the clock on the wall does.
 */
#include <criterion/criterion.h>
#include <time.h>

#include "store/gate.h"

static time_t ahead; /* the wall clock, as it is read */

int __real_clock_gettime(clockid_t id, struct timespec *out);
int __wrap_clock_gettime(clockid_t id, struct timespec *out);
int __wrap_clock_gettime(clockid_t id, struct timespec *out)
{
    const int rc = __real_clock_gettime(id, out);
    out->tv_sec += id == CLOCK_REALTIME ? ahead : 0;
    return rc;
}

/* As when it is set back right after it was read. */
Test(gate, a_wall_clock_that_is_set_back_does_not_hold_up_the_writer, .timeout = 20)
{
    ahead = 3600;
    eg_gate_enter();
    eg_gate_shut(20);
    eg_gate_open();
    eg_gate_leave();
}

Test(gate, it_can_be_shut_again)
{
    for (int i = 0; i < 3; i++) {
        eg_gate_shut(20);
        eg_gate_open();
        eg_gate_enter();
        eg_gate_shut(1);
        eg_gate_open();
        eg_gate_leave();
    }
}
