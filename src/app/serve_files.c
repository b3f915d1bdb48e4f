/*
 * serve_files.c - as many descriptors as the settings need, or as many connections as there are
 * descriptors for.
 */
#include <sys/resource.h>

#include "app/serve.h"
#include "base/log.h"
#include "edge/adopt.h"

/* Descriptors beside those of connections: database, listeners, HTTP threads, and the reserve that
 * keeps the accept loop from spinning. */
#define FILES_BESIDE (EG_ADOPT_FD_BASE + 512)

void eg_serve_fit_files(struct eg_settings *settings)
{
    struct rlimit now;
    rlim_t want = (rlim_t)settings->max_connections + (rlim_t)settings->workers * 2 + FILES_BESIDE;
    if (getrlimit(RLIMIT_NOFILE, &now) != 0)
        return;
    if (now.rlim_cur < want) {
        struct rlimit more = {want, now.rlim_max < want ? want : now.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &more) != 0) {
            more.rlim_max = now.rlim_max;
            more.rlim_cur = now.rlim_max < want ? now.rlim_max : want;
            (void)!setrlimit(RLIMIT_NOFILE, &more);
        }
        (void)getrlimit(RLIMIT_NOFILE, &now);
    }
    if (now.rlim_cur < want) {
        int64_t fits = (int64_t)now.rlim_cur - (int64_t)(want - (rlim_t)settings->max_connections);
        if (fits < 1)
            fits = 1;
        eg_log(EG_LOG_WARN, "limit.files",
               "allowed=%llu" EG_F "wanted=%llu" EG_F "max_connections=%lld" EG_F "hint=%s",
               (unsigned long long)now.rlim_cur, (unsigned long long)want, (long long)fits,
               "raise LimitNOFILE or lower max_connections");
        settings->max_connections = fits;
    }
}
