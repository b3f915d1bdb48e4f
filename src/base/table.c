/*
 * table.c - see table.h.
 */
#include "base/table.h"

#include <unistd.h>

#include "base/log.h"

#define EXIT_RETRY 75 /* as EG_EXIT_RETRY of app/cli.h, which is above this folder */

void eg_table_fatal(const char *what)
{
    eg_log(EG_LOG_ERROR, "memory.exhausted", "what=%s" EG_F "exit=%d", what, EXIT_RETRY);
    _exit(EXIT_RETRY);
}
