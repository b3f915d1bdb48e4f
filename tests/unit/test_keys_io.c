/*
 * test_keys_io.c - key files on a disk that fails: each call that reads, makes or removes one,
 * once. A failure is told, and no half of a key is left under its name.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failing_calls.h"
#include "wire/token.h"

static char base[64], dir[80];
static char kid[64], path[300];

static void make(void)
{
    strcpy(base, "/tmp/ebbgate-keys-io-XXXXXX");
    cr_assert(mkdtemp(base));
    snprintf(dir, sizeof dir, "%s/keys", base);
    cr_assert_eq(eg_key_generate(dir, 1000, kid, path, sizeof path), EG_OK);
}

static void drop(void)
{
    char command[100];

    snprintf(command, sizeof command, "rm -rf '%s'", base);
    cr_assert_eq(system(command), 0);
}

TestSuite(keys_io, .init = make, .fini = drop);

/* How many files there are in the folder, hidden ones too. */
static int files(void)
{
    DIR *d = opendir(dir);
    int n = 0;

    cr_assert(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static enum eg_err load(char why[300])
{
    struct eg_keyring *r = NULL;
    enum eg_err e = eg_keyring_load(dir, NULL, &r, why, 300);

    cr_assert_eq(e == EG_OK, r != NULL);
    eg_keyring_unref(r);
    return e;
}

Test(keys_io, reading)
{
    static const enum failing_call calls[] = {FAILING_OPEN, FAILING_FSTAT, FAILING_READ};
    char why[300];

    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        failing_call_order(calls[i], 0, EIO);
        cr_expect_eq(load(why), EG_EIO, "call %zu", i);
        cr_expect(failing_call_done(), "call %zu", i);
        cr_expect(strstr(why, path) && strstr(why, strerror(EIO)), "%s", why);
    }
    failing_call_order(FAILING_READ, 0, EINTR);
    cr_expect_eq(load(why), EG_OK, "an interrupted read goes on");
    cr_expect(failing_call_done());
    failing_call_short(7);
    cr_expect_eq(load(why), EG_OK, "a file that comes in pieces");
    failing_call_done();
}

Test(keys_io, making)
{
    static const enum failing_call calls[] = {FAILING_WRITE, FAILING_FSYNC, FAILING_CLOSE,
                                              FAILING_LINK};
    char why[300], made[64], where[300];

    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        failing_call_order(calls[i], 0, EIO);
        cr_expect_eq(eg_key_generate(dir, 2000, made, where, sizeof where), EG_EIO, "call %zu", i);
        cr_expect(failing_call_done(), "call %zu", i);
        cr_expect_eq(files(), 1, "call %zu left something", i);
        cr_expect_eq(load(why), EG_OK, "%s", why);
    }
    failing_call_order(FAILING_LINK, 0, EEXIST);
    cr_expect_eq(eg_key_generate(dir, 2000, made, NULL, 0), EG_EEXISTS);
    /* The flush of the folder: the key is there, but whether it stays is not known. */
    failing_call_order(FAILING_OPEN, 0, EMFILE);
    cr_expect_eq(eg_key_generate(dir, 2000, made, NULL, 0), EG_EIO);
    cr_expect(failing_call_done());
    failing_call_order(FAILING_FSYNC, 1, EIO);
    cr_expect_eq(eg_key_generate(dir, 3000, made, NULL, 0), EG_EIO);
    cr_expect(failing_call_done());
    cr_expect_eq(load(why), EG_OK, "%s", why);
}

Test(keys_io, making_in_pieces)
{
    char why[300], made[64], where[300];

    failing_call_short(5);
    cr_assert_eq(eg_key_generate(dir, 2000, made, where, sizeof where), EG_OK);
    failing_call_done();
    failing_call_order(FAILING_WRITE, 0, EINTR);
    cr_assert_eq(eg_key_generate(dir, 3000, made, where, sizeof where), EG_OK);
    cr_expect(failing_call_done());
    cr_expect_eq(files(), 3);
    cr_expect_eq(load(why), EG_OK, "%s", why);
}

Test(keys_io, a_new_folder)
{
    char other[100], made[64];

    snprintf(other, sizeof other, "%s/others", base);
    failing_call_order(FAILING_OPEN, 0, EACCES); /* the folder it lies in */
    cr_expect_eq(eg_key_generate(other, 1000, made, NULL, 0), EG_EIO);
    cr_expect(failing_call_done());
    snprintf(other, sizeof other, "%s/no/such", base);
    cr_expect_eq(eg_key_generate(other, 1000, made, NULL, 0), EG_EIO);
    cr_expect_eq(eg_key_generate(dir, 4000, made, path, 20), EG_EINVALID, "room for the name");
    memset(other, 'd', sizeof other);
    char far[5000];
    memset(far, '/', sizeof far - 1);
    far[sizeof far - 1] = '\0';
    cr_expect_eq(eg_key_generate(far, 1000, made, NULL, 0), EG_EINVALID);
}

Test(keys_io, removing)
{
    char second[64];

    cr_assert_eq(eg_key_generate(dir, 2000, second, NULL, 0), EG_OK);
    failing_call_order(FAILING_UNLINK, 0, EACCES);
    cr_expect_eq(eg_key_delete(dir, kid), EG_EIO);
    cr_expect(failing_call_done());
    cr_expect_eq(access(path, F_OK), 0);
    /* The flush of the folder afterwards. */
    failing_call_order(FAILING_FSYNC, 0, EIO);
    cr_expect_eq(eg_key_delete(dir, kid), EG_EIO);
    cr_expect(failing_call_done());
    cr_expect_neq(access(path, F_OK), 0);
    cr_expect_eq(eg_key_delete(dir, kid), EG_ENOTFOUND);
    cr_expect_eq(eg_key_delete(dir, second), EG_OK);
}

Test(keys_io, a_reason_needs_no_place)
{
    struct eg_keyring *r = NULL;
    char one[1] = {'x'};

    cr_expect_eq(eg_keyring_load("/nonexistent", NULL, &r, NULL, 0), EG_ENOTFOUND);
    cr_expect_eq(eg_keyring_load("/nonexistent", NULL, &r, one, 0), EG_ENOTFOUND);
    cr_expect_eq(one[0], 'x');
}
