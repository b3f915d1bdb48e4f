/*
 * gate.h - what chat and agent have in common towards a gateway: where it is, the token, and what
 * to do when a connection ends.
 *
 * Threads: the main one. Owns the token, the key ring it may be made with, and the last refusal.
 * Failure modes: one line on stderr and an exit code.
 */
#ifndef EG_APP_GATE_H
#define EG_APP_GATE_H

#include "app/fields.h"
#include "app/keys.h"
#include "app/wsclient.h"

/* Options; texts are borrowed. */
struct eg_gate_opts {
    struct eg_data_opts data;
    const char *url, *token;
};
/* The rows for a command's option table. */
#define EG_GATE_OPTS(o)                                                                            \
    {"url",                                                                                        \
     0,                                                                                            \
     EG_OPT_TEXT,                                                                                  \
     "URL",                                                                                        \
     "the gateway (default $EBBGATE_URL, else ws://127.0.0.1:7070/ws)",                            \
     &(o)->url,                                                                                    \
     0,                                                                                            \
     0},                                                                                           \
        {"token",                                                                                  \
         0,                                                                                        \
         EG_OPT_TEXT,                                                                              \
         "TOKEN",                                                                                  \
         "the token (default $EBBGATE_TOKEN, else one is made with the data folder's key)",        \
         &(o)->token,                                                                              \
         0,                                                                                        \
         0},                                                                                       \
        EG_DATA_OPTS(&(o)->data)

struct eg_gate {
    const struct eg_command *cmd;
    const char *url;
    struct eg_buf token; /* NUL-terminated */
    struct eg_config config;
    struct eg_keyring *ring; /* NULL: the token was given */
    struct eg_mint mint;
    int64_t minted_ms; /* mono */
    /* of the last hello_error or error before a close */
    char code[64], message[256], next_step[32];
    int64_t retry_after_ms; /* -1 none */
};

/* Finds URL and token; mint says what a token of our own says. Returns EG_PROCEED or exit code. */
int eg_gate_init(struct eg_gate *g, const struct eg_command *cmd, const struct eg_gate_opts *o,
                 const struct eg_mint *mint);
void eg_gate_free(struct eg_gate *g);

/* Remembers a hello_error, or an error frame that refuses the handshake. */
void eg_gate_note(struct eg_gate *g, const struct eg_json_doc *doc);
/* A frame {"type":"auth",...} with a fresh token into out; false when we cannot make one. */
bool eg_gate_renew(struct eg_gate *g, struct eg_buf *out);

/*
 * Decides after a connection ended: EG_PROCEED to try again (wait and token are set in c), or the
 * exit code after saying why. patient: also try again when it could never connect.
 */
int eg_gate_lost(struct eg_gate *g, struct eg_wsc *c, const struct eg_wsc_end *end, bool patient);

#endif
