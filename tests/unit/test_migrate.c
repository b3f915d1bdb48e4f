/*
 * test_migrate.c - an older schema is brought up to date in one transaction a file, or left as it
 * was. This program knows one migration more than the daemon: eg_sql is defined here.
 */
#include <criterion/criterion.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#define eg_sql eg_sql_shipped
#include "sql.c" /* generated from sql/ */
#undef eg_sql

#include "../lib/storefix.h"
#include "store/sqlite_int.h"
#include "store/reader.h"

static const unsigned char second[] = "CREATE TABLE extra(x INTEGER);"
                                      "INSERT INTO extra SELECT created_ms FROM agents;"
                                      "CREATE UNIQUE INDEX agents_made ON agents(created_ms);";

/* The shipped ones and `second`, put together before the tests begin. */
extern struct eg_embedded eg_sql[];
struct eg_embedded eg_sql[64];

__attribute__((constructor)) static void put_together(void)
{
    int n = 0;
    while (eg_sql_shipped[n].name != NULL) {
        memcpy(&eg_sql[n], &eg_sql_shipped[n], sizeof(eg_sql[n]));
        n++;
    }
    const struct eg_embedded added = {"sql/9999_second.sql", second, sizeof(second) - 1};
    memcpy(&eg_sql[n], &added, sizeof(added));
}

/* A database as version 1 left it. */
static void make_first(const char *dir, const char *agents)
{
    sqlite3 *db = NULL;
    char pragmas[160];
    (void)snprintf(pragmas, sizeof(pragmas),
                   "PRAGMA user_version=1; PRAGMA application_id=%d;"
                   "INSERT INTO meta VALUES('epoch','01890000-0000-7000-8000-000000000000')",
                   EG_DB_APPLICATION_ID);
    cr_assert_eq(sqlite3_open(scratch_path(dir, "ebbgate.db"), &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, (const char *)f0, NULL, NULL, NULL), SQLITE_OK, "%s",
                 sqlite3_errmsg(db));
    cr_assert_eq(sqlite3_exec(db, pragmas, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
    cr_assert_eq(sqlite3_exec(db, agents, NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
}

Test(migrate, the_shipped_schema_is_the_first)
{
    cr_assert_str_eq(eg_sql_shipped[0].name, "sql/0001_initial.sql");
}

Test(migrate, a_new_database_gets_all_of_them)
{
    char dir[64];
    scratch_make(dir);
    store_close(store_must_open(dir));
    cr_assert_eq(store_sql(dir, "PRAGMA user_version"), eg_db_newest_version());
    cr_assert_eq(store_sql(dir, "SELECT count(*) FROM extra"), 0);
    scratch_drop(dir);
}

Test(migrate, an_older_one_is_brought_up_to_date)
{
    char dir[64];
    struct eg_epoch epoch;
    char why[512] = "";
    struct eg_reader *r = NULL;
    scratch_make(dir);
    make_first(dir, "INSERT INTO agents VALUES('a',1),('b',2)");
    cr_assert_eq(eg_reader_open(dir, &r, why, sizeof(why)), EG_EINVALID,
                 "a reader does not migrate");
    cr_assert_neq(strstr(why, "older schema 1"), NULL, "%s", why);
    struct eg_storage *s = store_must_open(dir);
    cr_assert_eq(s->ops->epoch(s, &epoch), EG_OK);
    cr_assert_str_eq(epoch.id, "01890000-0000-7000-8000-000000000000", "it is the same log");
    store_close(s);
    cr_assert_eq(store_sql(dir, "PRAGMA user_version"), eg_db_newest_version());
    cr_assert_eq(store_sql(dir, "SELECT sum(x) FROM extra"), 3);
    store_close(store_must_open(dir));
    cr_assert_eq(store_sql(dir, "SELECT sum(x) FROM extra"), 3, "once");
    scratch_drop(dir);
}

static void no_fault(void *arg, const char *text)
{
    (void)arg;
    cr_assert_fail("%s", text);
}

static void to_hex(const uint8_t *from, size_t n, char *to)
{
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(to + 2 * i, 3, "%02x", from[i]);
    }
}

/* Schema 1 held whole hashes, whole idkeys and an index of its own: the events and ids are found
 * all the same. */
Test(migrate, events_of_version_1_are_found_again)
{
    static const char copy[] =
        "ATTACH '%s' AS new; INSERT INTO sessions SELECT * FROM new.sessions;"
        "INSERT INTO events SELECT seq,sid,cursor,randomblob(32),idkey,body FROM new.events;"
        "UPDATE meta SET value=(SELECT value FROM new.meta WHERE key='epoch') WHERE key='epoch';"
        "INSERT INTO places SELECT sid,cursor,seq FROM events";
    char dir[64];
    char made[128];
    char sql[1024];
    uint8_t hash[EG_CHAIN_BYTES];
    uint8_t idkey[EG_IDKEY_BYTES];
    uint64_t cursor = 0;
    struct eg_bytes *body = NULL;
    struct eg_check_result out;
    char why[512] = "";
    eg_sq_gather = 50;
    scratch_make(dir);
    (void)snprintf(made, sizeof(made), "%s/made", dir);
    struct eg_storage *s = store_must_open(made);
    struct eg_session_row row = store_filled(s, "s", 1, "x");
    uint8_t chain[701][EG_CHAIN_BYTES];
    memcpy(chain[1], row.hash, EG_CHAIN_BYTES);
    for (uint64_t i = 2; i <= 700; i++) {
        eg_idkey('m', EG_LIT("o"), (struct eg_slice){(const char *)&i, sizeof(i)}, idkey);
        store_begin(s);
        store_event(s, &row, "x", idkey, STOREFIX_TIME);
        s->ops->session_update(s, &row);
        store_commit(s);
        memcpy(chain[i], row.hash, EG_CHAIN_BYTES);
    }
    store_close(s);
    make_first(dir, "INSERT INTO agents VALUES('a',5)");
    (void)snprintf(sql, sizeof(sql), copy, scratch_path(made, "ebbgate.db"));
    (void)store_sql(dir, sql);
    for (uint64_t i = 1; i <= 700; i++) {
        char hash_hex[2 * EG_CHAIN_BYTES + 1];
        char idkey_hex[2 * EG_IDKEY_BYTES + 1];
        eg_idkey('m', EG_LIT("o"), (struct eg_slice){(const char *)&i, sizeof(i)}, idkey);
        to_hex(chain[i], EG_CHAIN_BYTES, hash_hex);
        to_hex(idkey, EG_IDKEY_BYTES, idkey_hex);
        (void)snprintf(sql, sizeof(sql), "UPDATE events SET hash=x'%s', idkey=x'%s' WHERE seq=%d",
                       hash_hex, idkey_hex, (int)i);
        (void)store_sql(dir, sql);
    }
    s = store_must_open(dir);
    cr_assert_eq(s->ops->event_hash(s, row.sid, 333, hash), EG_OK);
    cr_assert_arr_eq(hash, chain[333], EG_CHAIN_BYTES);
    for (uint64_t i = 2; i <= 700; i++) {
        eg_idkey('m', EG_LIT("o"), (struct eg_slice){(const char *)&i, sizeof(i)}, idkey);
        cr_assert_eq(s->ops->event_by_idkey(s, row.sid, idkey, &cursor, &body), EG_OK);
        cr_assert_eq(cursor, i);
        eg_bytes_unref(body);
    }
    cr_assert_gt(store_sql(dir, "SELECT value FROM meta WHERE key='indexed'"), 500, "at once");
    cr_assert_eq(store_sql(dir, "SELECT length(hash) FROM events WHERE seq=333"), EG_CHAIN_BYTES);
    cr_assert_eq(store_sql(dir, "SELECT length(idkey) FROM events WHERE seq=333"), EG_IDKEY_BYTES);
    eg_idkey('m', EG_LIT("o"), EG_LIT("new"), idkey);
    store_begin(s);
    store_event(s, &row, "x", idkey, STOREFIX_TIME);
    s->ops->session_update(s, &row);
    store_commit(s);
    cr_assert_eq(s->ops->event_by_idkey(s, row.sid, idkey, &cursor, &body), EG_OK);
    cr_assert_eq(cursor, 701);
    eg_bytes_unref(body);
    store_close(s);
    cr_assert_eq(store_sql(dir, "SELECT length(hash) FROM events WHERE seq=701"), EG_HASH_SHORT);
    cr_assert_eq(store_sql(dir, "SELECT length(idkey) FROM events WHERE seq=701"), EG_IDKEY_KEPT);
    cr_assert_eq(eg_sqlite_verify(dir, NULL, true, no_fault, NULL, NULL, &out, why, sizeof(why)),
                 EG_OK, "%s", why);
    cr_assert_eq(out.events, 701);
    scratch_drop(dir);
}

Test(migrate, one_that_fails_leaves_the_old_schema)
{
    char dir[64];
    char why[512] = "";
    struct eg_storage *s = NULL;
    scratch_make(dir);
    make_first(dir, "INSERT INTO agents VALUES('a',1),('b',1)");
    cr_assert_neq(eg_sqlite_open(dir, &s, why, sizeof(why)), EG_OK);
    cr_assert_neq(strstr(why, "9999_second.sql"), NULL, "%s", why);
    cr_assert_eq(store_sql(dir, "PRAGMA user_version"), eg_db_newest_version() - 1);
    cr_assert_eq(store_sql(dir, "SELECT count(*) FROM sqlite_schema WHERE name='extra'"), 0);
    cr_assert_eq(store_sql(dir, "SELECT count(*) FROM agents"), 2);
    (void)store_sql(dir, "UPDATE agents SET created_ms=2 WHERE id='b'");
    store_close(store_must_open(dir));
    cr_assert_eq(store_sql(dir, "PRAGMA user_version"), eg_db_newest_version());
    scratch_drop(dir);
}

/* A backup from before the upgrade can be taken, restored, and is migrated when it is opened. */
Test(migrate, an_older_backup_is_restored_and_migrated)
{
    char dir[64];
    char why[512] = "";
    scratch_make(dir);
    char copy[128];
    char back[128];
    (void)snprintf(copy, sizeof(copy), "%s/copy", dir);
    (void)snprintf(back, sizeof(back), "%s/back", dir);
    make_first(dir, "INSERT INTO agents VALUES('a',5)");
    cr_assert_eq(eg_sqlite_backup(dir, copy, NULL, NULL, why, sizeof(why)), EG_OK, "%s", why);
    cr_assert_eq(eg_sqlite_restore(copy, back, why, sizeof(why)), EG_OK, "%s", why);
    cr_assert_eq(store_sql(back, "PRAGMA user_version"), 1);
    store_close(store_must_open(back));
    cr_assert_eq(store_sql(back, "PRAGMA user_version"), eg_db_newest_version());
    cr_assert_eq(store_sql(back, "SELECT x FROM extra"), 5);
    scratch_drop(dir);
}
