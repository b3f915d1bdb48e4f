/*
 * keys.h - the key ring of a data folder, and tokens made with it by the command line.
 *
 * Threads: any, one ring at a time. Failure modes: a sentence in why, never key material.
 */
#ifndef EG_APP_KEYS_H
#define EG_APP_KEYS_H

#include "app/cli.h"
#include "wire/token.h"

/*
 * Loads the ring that settings name: key_file, else DATA/keys. make: a key is made when the folder
 * has none (never for key_file) and made says where it is ("" otherwise). EG_ENOTFOUND: no key.
 */
enum eg_err eg_keys_load(const struct eg_settings *s, bool make, struct eg_keyring **out,
                         char *made, size_t made_size, char *why, size_t why_size) EG_MUST;

/* What a token shall say. Texts are borrowed; lists are comma-separated, NULL: claim left out. */
struct eg_mint {
    const char *sub, *scope, *agents, *sessions, *audience;
    int64_t ttl_ms;
};
/* Appends a token. EG_EINVALID with why; EG_ENOTFOUND: the ring cannot sign. */
enum eg_err eg_keys_mint(const struct eg_keyring *ring, const struct eg_mint *what,
                         struct eg_buf *out, char *why, size_t why_size) EG_MUST;

/* Where a command finds the data folder. All borrowed. */
struct eg_data_opts {
    const char *file; /* -c */
    const char *data; /* --data */
    const char *key;  /* --key */
};
/* The rows for a command's option table. */
#define EG_DATA_OPTS(o)                                                                            \
    {"data", 0, EG_OPT_TEXT, "DIR", "the data folder (default as for serve)", &(o)->data, 0, 0},   \
    {                                                                                              \
        "config", 'c', EG_OPT_TEXT, "FILE", "its configuration file (" EG_CONFIG_DEFAULT ")",      \
            &(o)->file, 0, 0                                                                       \
    }
/* Reads the configuration with these. As eg_cli_config. */
int eg_cli_data(const struct eg_command *cmd, const struct eg_data_opts *o, struct eg_config *out);

#endif
