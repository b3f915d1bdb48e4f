/*
 * table.h - what the admin API answers as tables and records for people.
 *
 * Pure but for the clock, which ages are counted from.
 */
#ifndef EG_APP_TABLE_H
#define EG_APP_TABLE_H

#include "base/bytes.h"

enum eg_column_kind {
    EG_COLUMN_TEXT,  /* a text or a number as it is; null is - */
    EG_COLUMN_AGE,   /* a time in seconds since 1970, as how long ago */
    EG_COLUMN_BYTES, /* 1.2M */
    EG_COLUMN_COUNT  /* of an array's elements */
};

/* One column: a heading and the member it shows. A NULL title ends the list. */
struct eg_column {
    const char *title, *member;
    enum eg_column_kind kind;
};

#define EG_COLUMNS_MAX 12

struct eg_table {
    const struct eg_column *columns;
    char **cells; /* row by row */
    size_t rows, cap;
    int width;
};

/* Adds the object text as a row. False without memory. */
bool eg_table_row(struct eg_table *t, struct eg_slice object, int64_t now_ms);
/* Appends all rows below their headings. */
void eg_table_print(const struct eg_table *t, struct eg_buf *out);
/*
 * Appends one object as lines of name and value. An object within is NAME.MEMBER, an array one line
 * for each element, a time (by its member's name) as the log writes it. False without memory.
 */
bool eg_record_print(struct eg_slice object, struct eg_buf *out);
void eg_table_free(struct eg_table *t);

/* Calls fn for each element of a checked JSON array. */
void eg_each_element(struct eg_slice array, void (*fn)(void *arg, struct eg_slice text), void *arg);

#endif
