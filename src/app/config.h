/*
 * config.h - the settings in force and where each came from: flags over environment over file over
 * defaults.
 *
 * Purpose: reads the configuration file, conf.d/NAME.conf beside it in order of name, the EBBGATE_*
 * environment and --flags; lists every mistake. Threads: any, one configuration at a time. Owns:
 * the snapshot (one reference), the texts. Happy path: eg_config_load -> settings ->
 * eg_config_free. Failure modes: EG_EINVALID with all mistakes, one a line; EG_ENOMEM.
 */
#ifndef EG_APP_CONFIG_H
#define EG_APP_CONFIG_H

#include "app/setting.h"

/* One --name value (name as typed, without the dashes). value is borrowed. */
struct eg_config_flag {
    char name[48];
    const char *value;
};

#define EG_CONFIG_FLAGS_MAX 128

/* Name of the signing key among the service manager's credentials. */
#define EG_CREDENTIAL "ebbgate.key"

/* The help text of --config: what is read when it is not given. */
#ifdef EG_CONFIG_FILE
#define EG_CONFIG_DEFAULT "default $EBBGATE_CONFIG, else " EG_CONFIG_FILE
#else
#define EG_CONFIG_DEFAULT "default $EBBGATE_CONFIG"
#endif

/* What to read. All borrowed; file NULL: the environment's EBBGATE_CONFIG, else EG_CONFIG_FILE if
 * the build names one and it can be read, else none. */
struct eg_config_args {
    const char *file;
    struct eg_config_flag flags[EG_CONFIG_FLAGS_MAX];
    int nflags;
    char **env; /* as environ */
    bool quiet; /* no warnings about the environment */
    bool look;  /* a key_file that cannot be used is a mistake */
};

struct eg_config {
    struct eg_settings *settings;
    char *origin[EG_SETTING_COUNT]; /* NULL: default */
    char *file;                     /* the main file that was read, or NULL */
    struct eg_buf mistakes;         /* lines: WHERE: what */
    int mistake_count;
    int flag_mistakes;      /* how many of them are about flags */
    struct eg_buf warnings; /* lines that stop nothing */
};

/*
 * Reads all sources. out is to be freed in every case but EG_ENOMEM's. EG_EINVALID: mistakes has
 * the list, settings what could be understood. The data folder is resolved to a path.
 */
enum eg_err eg_config_load(const struct eg_config_args *args, struct eg_config *out) EG_MUST;
void eg_config_free(struct eg_config *c);

/* Whether name (without dashes) is a flag for a setting. */
bool eg_config_is_flag(const char *name);

/* Appends what is in force, each with its origin: a configuration file, or one JSON object. */
void eg_config_print(const struct eg_config *c, bool json, struct eg_buf *out);

/* For config_load.c and config_file.c: one mistake. line 0: none. */
void eg_config_mistake(struct eg_config *c, const char *where, int line, const char *fmt, ...)
    EG_PRINTF(4, 5);
/* Remembers where a value came from. False without memory. */
bool eg_config_origin(struct eg_config *c, const struct eg_setting *d, const char *where, int line);
/* Reads one file into c. Mistakes are noted; false without memory. */
bool eg_config_read_file(struct eg_config *c, const char *path);

#endif
