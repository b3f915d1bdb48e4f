/*
 * setting.h - the table of include/ebbgate/settings.h as data: one row a setting, with functions
 * that set and print a value by its row.
 *
 * Pure. Rows are static. What is set is checked against the row's bounds; texts that must have a
 * form (addresses, origins, levels) are checked by eg_settings_check.
 */
#ifndef EG_APP_SETTING_H
#define EG_APP_SETTING_H

#include "base/bytes.h"
#include "ebbgate/settings.h"

enum eg_setting_type {
    EG_SETTING_INT,
    EG_SETTING_SIZE,
    EG_SETTING_DUR,
    EG_SETTING_STR,
    EG_SETTING_LIST,
    EG_SETTING_BOOL
};

/* Numbers of the rows. */
enum eg_setting_index {
#define EG_SI_INT(name, def, min, max, reload, help) EG_SETTING_AT_##name,
#define EG_SI_STR(name, def, reload, help) EG_SETTING_AT_##name,
#define EG_SI_LIST(name, reload, help) EG_SETTING_AT_##name,
    EG_SETTINGS(EG_SI_INT, EG_SI_INT, EG_SI_INT, EG_SI_STR, EG_SI_LIST, EG_SI_STR)
#undef EG_SI_INT
#undef EG_SI_STR
#undef EG_SI_LIST
        EG_SETTING_COUNT
};

struct eg_setting {
    const char *name;
    enum eg_setting_type type;
    bool reloadable;
    const char *help;
    size_t offset; /* in struct eg_settings */
    int64_t def, min, max;
    const char *def_text; /* STR */
};

extern const struct eg_setting eg_setting_table[EG_SETTING_COUNT];

/*
 * The row called name; - and _ are the same. *ms is set when name is a duration's name followed by
 * _ms, for a value in whole milliseconds. NULL when there is none.
 */
const struct eg_setting *eg_setting_find(const char *name, bool *ms);
/* The known name nearest to name, when it is near enough to be meant; NULL otherwise. Static. */
const char *eg_setting_suggest(const char *name);

/*
 * Sets a value. EG_EINVALID with a sentence in why (about the value; it does not name the setting)
 * when it is malformed or out of range; EG_ENOMEM. Durations are given in milliseconds.
 */
enum eg_err eg_setting_set_number(const struct eg_setting *d, struct eg_settings *s, int64_t v,
                                  char *why, size_t why_size) EG_MUST;
/* From text, as in the environment and flags: lists are comma-separated. */
enum eg_err eg_setting_set_text(const struct eg_setting *d, struct eg_settings *s, const char *text,
                                bool ms, char *why, size_t why_size) EG_MUST;
/* A list of n texts, copied. */
enum eg_err eg_setting_set_list(const struct eg_setting *d, struct eg_settings *s,
                                const char *const *items, size_t n, char *why,
                                size_t why_size) EG_MUST;

/* Appends the value as it would be written in a configuration file. */
void eg_setting_print(const struct eg_setting *d, const struct eg_settings *s, struct eg_buf *out);
/* Appends the value as JSON; durations in milliseconds. */
void eg_setting_json(const struct eg_setting *d, const struct eg_settings *s, struct eg_buf *out);
bool eg_setting_same(const struct eg_setting *d, const struct eg_settings *a,
                     const struct eg_settings *b);
/* Copies one value from a to b. EG_ENOMEM. */
enum eg_err eg_setting_copy(const struct eg_setting *d, const struct eg_settings *from,
                            struct eg_settings *to) EG_MUST;

/*
 * A duration: a number of seconds, or a number and ms, s, m, h or d; decimals are fine. False when
 * text is anything else or does not fit.
 */
bool eg_duration_parse(const char *text, int64_t *ms);
/* Appends a duration with the largest unit that is exact. */
void eg_duration_print(int64_t ms, struct eg_buf *out);

/* Appends a value or bound of d, a setting of a number, in the unit a person would write. */
void eg_setting_print_number(const struct eg_setting *d, int64_t v, struct eg_buf *out);

/*
 * A size: a whole number of bytes, or one directly followed by k, m or g (of either case), which
 * are 1024, 1024^2 and 1024^3 bytes. What does not fit becomes INT64_MAX. False when text is
 * anything else.
 */
bool eg_size_parse(const char *text, int64_t *bytes);
/* Appends a size with the largest unit that is exact. */
void eg_size_print(int64_t bytes, struct eg_buf *out);

/*
 * Checks the form of texts: addresses, origins, proxies, agent ids, log level and format. Calls
 * mistake for each fault.
 */
void eg_settings_check(const struct eg_settings *s,
                       void (*mistake)(void *arg, const struct eg_setting *d, const char *text),
                       void *arg);

#endif
