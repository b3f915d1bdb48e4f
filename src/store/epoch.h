/*
 * epoch.h - what tells one log from another.
 *
 * A database has a random id, made with it and made anew by restore: the epoch of its sessions. As
 * soon as one of them was deleted, its id may be begun again, and a cursor into the log that is
 * gone would pass for one into the new log. So sessions begun after the first deletion have epochs
 * of their own: the database's with 64 bits of a hash of the session's number behind it.
 */
#ifndef EG_STORE_EPOCH_H
#define EG_STORE_EPOCH_H

#include <stdint.h>

#define EG_EPOCH_MAX 53 /* characters: a UUID, '-', 16 hexadecimal digits */

struct eg_epoch {
    char id[37];       /* of the database; "" none */
    int64_t until_sid; /* sessions up to here have that one; INT64_MAX: none was ever deleted */
};

/* The epoch of session sid (its number, see storage.h), NUL-terminated; sid 0: the database's. */
void eg_epoch_of(const struct eg_epoch *e, int64_t sid, char out[EG_EPOCH_MAX + 1]);

#endif
