/*
 * pool.c - the HTTP threads' readers of the database: a few connections, each with one request at a
 * time, opened when first needed. A request holds one only while it reads, never while it writes to
 * its client.
 */
#include <time.h>

#include "http/http_int.h"

/* Opens a further reader; the lock is let go meanwhile. */
EG_REQUIRES(eg_http_mutex)
static struct eg_reader *open_one(struct eg_http *h, char *why, size_t why_size)
{
    struct eg_reader *r = NULL;
    h->opened++;
    eg_http_unlock(&h->lock);
    const enum eg_err err = eg_reader_open(h->dir, &r, why, why_size);
    eg_http_lock(&h->lock);
    if (err != EG_OK) {
        h->opened--;
        pthread_cond_signal(&h->returned);
        return NULL;
    }
    return r;
}

struct eg_reader *eg_x_reader(struct eg_exchange *x)
{
    struct eg_http *h = x->http;
    struct eg_reader *r = NULL;
    const struct timespec until = eg_cond_until(EG_READER_WAIT_S * 1000);
    char why[512] = "all readers are busy";
    int waited = 0;
    eg_http_lock(&h->lock);
    while (h->idle_count == 0 && h->opened == EG_READERS && waited == 0)
        waited = eg_http_wait_until(&h->returned, &h->lock, &until);
    if (h->idle_count > 0)
        r = h->idle[--h->idle_count];
    else if (h->opened < EG_READERS)
        r = open_one(h, why, sizeof why);
    eg_http_unlock(&h->lock);
    if (!r)
        eg_x_read_failed(x, EG_EAGAIN, why);
    return r;
}

void eg_x_return(struct eg_exchange *x, struct eg_reader *r)
{
    struct eg_http *h = x->http;
    eg_http_lock(&h->lock);
    h->idle[h->idle_count++] = r;
    pthread_cond_signal(&h->returned);
    eg_http_unlock(&h->lock);
}

void eg_http_close_readers(struct eg_http *h)
{
    while (h->idle_count > 0)
        eg_reader_close(h->idle[--h->idle_count]);
}

bool eg_x_session(struct eg_exchange *x, struct eg_reader *r, struct eg_slice id,
                  struct eg_session_row *row)
{
    const enum eg_err err = eg_reader_session(r, id, row);
    if (err == EG_OK && (row->state == EG_SESSION_OPEN || row->state == EG_SESSION_CLOSED))
        return true;
    if (err == EG_OK || err == EG_ENOTFOUND)
        eg_x_problem(x, 0, EG_CODE_session_not_found, NULL, NULL);
    else
        eg_x_read_failed(x, err, eg_reader_why(r));
    return false;
}
