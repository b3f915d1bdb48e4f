/*
 * embed.h - files compiled into the program (scripts/embed.sh).
 */
#ifndef EG_BASE_EMBED_H
#define EG_BASE_EMBED_H

#include <stddef.h>

struct eg_embedded {
    const char *name;          /* path in the source tree; NULL ends the list */
    const unsigned char *data; /* followed by a NUL that size leaves out */
    size_t size;
};

extern const struct eg_embedded eg_sql[];   /* sql/ */
extern const struct eg_embedded eg_files[]; /* admin/ */

#endif
