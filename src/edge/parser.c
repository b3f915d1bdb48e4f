/*
 * parser.c - see parser.h. One thread, first in, first out, at a lower priority than the reactors
 * where the system lets it.
 */
#include "edge/parser.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/lock.h"
#include "edge/rest.h"

#define NICE 5

EG_MUTEX(parser);

struct eg_parser {
    pthread_t thread;
    bool started; /* set before the object is shared */
    struct parser_mutex lock;
    pthread_cond_t wake;
    struct eg_large *first EG_GUARDED_BY(parser_mutex), *last EG_GUARDED_BY(parser_mutex);
    bool stopping EG_GUARDED_BY(parser_mutex);
};

void eg_large_free(struct eg_large *large)
{
    if (large->reading.err == EG_OK) {
        eg_frame_free(&large->reading.frame);
    }
    eg_buf_free(&large->reading.tail);
    free(large);
}

/* The next text; NULL at the end. *more: others wait. */
static struct eg_large *dequeue(struct eg_parser *parser, bool *more)
{
    parser_lock(&parser->lock);
    while (!parser->first && !parser->stopping) {
        parser_wait(&parser->wake, &parser->lock);
    }
    struct eg_large *const large = parser->stopping ? NULL : parser->first;
    if (large) {
        parser->first = large->next;
    }
    *more = parser->first != NULL;
    parser_unlock(&parser->lock);
    return large;
}

static void *read_texts(void *arg)
{
    struct eg_parser *const parser = arg;
    struct eg_large *large;
    bool more;
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE); /* of this thread alone */
    while ((large = dequeue(parser, &more))) {
        const struct eg_reactors *const rs = large->reactor->set;
        const int64_t start = eg_clock_mono_us();
        struct eg_buf none = {0};
        eg_method_read((struct eg_slice){large->text, large->reading.n}, &none, &large->reading);
        eg_queue_push(&large->reactor->mail, &large->mail.node);
        if (more) {
            eg_rest(rs, start);
        }
    }
    return NULL;
}

enum eg_err eg_parser_start(struct eg_parser **out)
{
    struct eg_parser *const parser = calloc(1, sizeof *parser);
    if (!parser) {
        return EG_ENOMEM;
    }
    parser_init(&parser->lock);
    pthread_cond_init(&parser->wake, NULL);
    parser->started = pthread_create(&parser->thread, NULL, read_texts, parser) == 0;
    if (!parser->started) {
        eg_parser_stop(parser);
        return EG_ENOMEM;
    }
    *out = parser;
    return EG_OK;
}

enum eg_err eg_parser_give(struct eg_parser *parser, const struct eg_peer *p, struct eg_slice text)
{
    struct eg_large *const large = malloc(sizeof *large + text.n);
    if (!large) {
        return EG_ENOMEM;
    }
    *large = (struct eg_large){.mail.kind = EG_MAIL_LARGE,
                               .reactor = p->r,
                               .conn = eg_peer_id(p),
                               .reading = {.err = EG_EINVALID, .n = text.n}};
    memcpy(large->text, text.p, text.n);
    parser_lock(&parser->lock);
    if (parser->first) {
        parser->last->next = large;
    } else {
        parser->first = large;
    }
    parser->last = large;
    pthread_cond_signal(&parser->wake);
    parser_unlock(&parser->lock);
    return EG_OK;
}

void eg_parser_stop(struct eg_parser *parser)
{
    if (!parser) {
        return;
    }
    parser_lock(&parser->lock);
    parser->stopping = true;
    pthread_cond_signal(&parser->wake);
    parser_unlock(&parser->lock);
    if (parser->started) {
        pthread_join(parser->thread, NULL);
    }
    parser_unshared(&parser->lock);
    while (parser->first) {
        struct eg_large *const large = parser->first;
        parser->first = large->next;
        eg_large_free(large);
    }
    pthread_cond_destroy(&parser->wake);
    parser_destroy(&parser->lock);
    free(parser);
}
