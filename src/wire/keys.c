/*
 * keys.c - Ed25519 keys as files (JWK, RFC 7517 and RFC 8037 2), and rings of them.
 *
 * Any thread. A ring owns its keys; the secret half of each lies in guarded memory (sodium_malloc)
 * that is wiped when the last reference goes. Everything that held a file's text is wiped too.
 * Loading fails as a whole: one file that cannot be read, is no key, or may be read by others, and
 * there is no ring, so that a mistake is seen at once and not when a token is refused. A key is
 * written under another name, flushed, and only then linked to its own.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "wire/json.h"
#include "wire/json_text.h"
#include "wire/token_text.h"

struct eg_keyring {
    int refs; /* atomic */
    int n, cap;
    struct eg_key *key;
    int signer; /* index, -1: none */
};

/* Says what is wrong with which file; the result is e. */
static enum eg_err tell(char *why, size_t size, enum eg_err e, const char *fmt, ...)
    EG_PRINTF(4, 5);

static enum eg_err tell(char *why, size_t size, enum eg_err e, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (why && size)
        vsnprintf(why, size, fmt, ap);
    va_end(ap);
    return e;
}

/* ---- one key as a file ---- */

/* Whether path lies in the folder that the service manager made for this service's credentials;
 * an access list may set the group bits there. */
static bool is_credential(const char *path)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    size_t n = dir ? strlen(dir) : 0;

    return n > 1 && strncmp(path, dir, n) == 0 && path[n] == '/' && !strstr(path + n, "/../");
}

/* The text of a key file; *n bytes. text has room for EG_KEY_FILE_MAX. */
static enum eg_err file_read(const char *path, bool private, char *text, size_t *n, char *why,
                             size_t size)
{
    mode_t others = is_credential(path) ? 007 : 077;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    enum eg_err e = EG_OK;

    *n = 0;
    if (fd < 0)
        return tell(why, size, errno == ENOENT ? EG_ENOTFOUND : EG_EIO, "%s: %s", path,
                    strerror(errno));
    if (fstat(fd, &st) != 0) {
        e = tell(why, size, EG_EIO, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        e = tell(why, size, EG_EINVALID, "%s: not a regular file", path);
    } else if (private && (st.st_mode & others)) {
        e = tell(why, size, EG_EDENIED,
                 "%s: others may read or write this private key (mode %04o); chmod 600 it", path,
                 (unsigned)(st.st_mode & 07777));
    } else if (st.st_size >= EG_KEY_FILE_MAX) {
        e = tell(why, size, EG_EINVALID, "%s: too long for a key", path);
    }
    while (!e && *n < EG_KEY_FILE_MAX) {
        ssize_t got = read(fd, text + *n, EG_KEY_FILE_MAX - *n);

        if (got > 0)
            *n += (size_t)got;
        else if (got == 0)
            break;
        else if (errno != EINTR)
            e = tell(why, size, EG_EIO, "%s: %s", path, strerror(errno));
    }
    close(fd);
    return e;
}

static enum eg_err file_load(const char *path, bool private, struct eg_key *key, char *why,
                             size_t size)
{
    char text[EG_KEY_FILE_MAX];
    const char *wrong;
    size_t n;
    enum eg_err e = file_read(path, private, text, &n, why, size);

    *key = (struct eg_key){0};
    if (!e) {
        wrong = eg_jwk_read((struct eg_slice){text, n}, private, key);
        if (wrong)
            e = tell(why, size, wrong == eg_jwk_no_memory ? EG_ENOMEM : EG_EINVALID, "%s: %s", path,
                     wrong);
    }
    sodium_memzero(text, sizeof(text));
    return e;
}

/* ---- rings ---- */

static void key_wipe(struct eg_key *k)
{
    sodium_free(k->secret); /* wipes it first; NULL is fine */
    sodium_memzero(k, sizeof(*k));
}

static struct eg_keyring *ring_new(void)
{
    struct eg_keyring *r = calloc(1, sizeof(*r));

    if (r) {
        r->refs = 1;
        r->signer = -1;
    }
    return r;
}

struct eg_keyring *eg_keyring_ref(struct eg_keyring *r)
{
    if (r)
        __atomic_add_fetch(&r->refs, 1, __ATOMIC_RELAXED);
    return r;
}

void eg_keyring_unref(struct eg_keyring *r)
{
    if (!r || __atomic_sub_fetch(&r->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (int i = 0; i < r->n; i++)
        key_wipe(&r->key[i]);
    free(r->key);
    free(r);
}

int eg_keyring_count(const struct eg_keyring *r)
{
    return r->n;
}

const struct eg_key_info *eg_keyring_at(const struct eg_keyring *r, int i)
{
    return i >= 0 && i < r->n ? &r->key[i].info : NULL;
}

const struct eg_key_info *eg_keyring_find(const struct eg_keyring *r, const char *kid)
{
    if (!kid)
        return r->n == 1 ? &r->key[0].info : NULL;
    for (int i = 0; i < r->n; i++)
        if (strcmp(r->key[i].info.kid, kid) == 0)
            return &r->key[i].info;
    return NULL;
}

const struct eg_key_info *eg_keyring_signer(const struct eg_keyring *r, const uint8_t **secret)
{
    if (r->signer < 0)
        return NULL;
    *secret = r->key[r->signer].secret;
    return &r->key[r->signer].info;
}

/* Takes key into the ring. A private key becomes the signing one, so files come in order. */
static enum eg_err ring_add(struct eg_keyring *r, struct eg_key *key, const char *path, char *why,
                            size_t size)
{
    for (int i = 0; i < r->n; i++) {
        struct eg_key *k = &r->key[i];
        bool same = memcmp(k->info.public_key, key->info.public_key, 32) == 0;

        if (strcmp(k->info.kid, key->info.kid) != 0)
            continue;
        if (!same)
            return tell(why, size, EG_EINVALID, "%s: another key is named %s too", path,
                        key->info.kid);
        /* The other half of a key that is here already, or the same file twice. */
        if (key->secret) {
            sodium_free(k->secret);
            k->secret = key->secret;
            key->secret = NULL;
            r->signer = i;
        }
        return EG_OK;
    }
    if (r->n == r->cap) {
        int cap = r->cap ? r->cap * 2 : 4;
        struct eg_key *keys = realloc(r->key, (size_t)cap * sizeof(*keys));

        if (!keys)
            return tell(why, size, EG_ENOMEM, "%s: out of memory", path);
        r->key = keys;
        r->cap = cap;
    }
    if (key->secret)
        r->signer = r->n;
    r->key[r->n++] = *key;
    key->secret = NULL;
    return EG_OK;
}

static enum eg_err ring_load_file(struct eg_keyring *r, const char *path, bool private, char *why,
                                  size_t size)
{
    struct eg_key key;
    enum eg_err e = file_load(path, private, &key, why, size);

    if (!e)
        e = ring_add(r, &key, path, why, size);
    key_wipe(&key);
    return e;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);

    return n > m && strcmp(name + n - m, end) == 0;
}

static int is_key_name(const struct dirent *d)
{
    return d->d_name[0] != '.' && (ends_with(d->d_name, ".key") || ends_with(d->d_name, ".pub"));
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The key files of dir in the order of their names; -1 with errno. */
static int list_keys(const char *dir, struct dirent ***out)
{
    return scandir(dir, out, is_key_name, by_name);
}

static enum eg_err ring_load_dir(struct eg_keyring *r, const char *dir, char *why, size_t size)
{
    struct dirent **list = NULL;
    int n = list_keys(dir, &list), saved = errno;
    enum eg_err e = EG_OK;
    char *path;

    if (n < 0)
        return tell(why, size, saved == ENOENT ? EG_ENOTFOUND : EG_EIO, "%s: %s", dir,
                    strerror(saved));
    for (int i = 0; i < n; i++) {
        if (!e) {
            if (asprintf(&path, "%s/%s", dir, list[i]->d_name) < 0) {
                e = tell(why, size, EG_ENOMEM, "%s: out of memory", dir);
            } else {
                e = ring_load_file(r, path, ends_with(path, ".key"), why, size);
                if (e == EG_ENOTFOUND) /* a dangling link: not the same as having no keys */
                    e = EG_EIO;
                free(path);
            }
        }
        free(list[i]);
    }
    free(list);
    if (!e && r->n == 0)
        e = tell(why, size, EG_ENOTFOUND, "%s: no keys (*.key, *.pub)", dir);
    return e;
}

enum eg_err eg_keyring_load(const char *dir, const char *file, struct eg_keyring **out, char *why,
                            size_t why_size)
{
    struct eg_keyring *r;
    enum eg_err e;

    *out = NULL;
    eg_sodium_ready();
    r = ring_new();
    if (!r)
        return tell(why, why_size, EG_ENOMEM, "out of memory");
    e = file ? ring_load_file(r, file, true, why, why_size) : ring_load_dir(r, dir, why, why_size);
    if (e) {
        eg_keyring_unref(r);
        return e;
    }
    if (r->signer >= 0)
        r->key[r->signer].info.signing = true;
    *out = r;
    return EG_OK;
}

void eg_keyring_jwks(const struct eg_keyring *r, struct eg_buf *out)
{
    eg_buf_str(out, "{\"keys\":[");
    for (int i = 0; i < r->n; i++) {
        eg_buf_str(out, i ? ",{" : "{");
        eg_jwk_public(&r->key[i].info, out);
        eg_json_kcstr(out, "use", "sig");
        eg_json_kcstr(out, "alg", "EdDSA");
        eg_buf_char(out, '}');
    }
    eg_buf_str(out, "]}");
}

/* ---- making and removing ---- */

/* Flushes the folder itself, so that a name in it survives. */
static enum eg_err dir_sync(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), failed;

    if (fd < 0)
        return EG_EIO;
    failed = fsync(fd);
    close(fd);
    return failed ? EG_EIO : EG_OK;
}

/* The same for the folder that dir lies in. */
static enum eg_err parent_sync(const char *dir)
{
    char *parent;
    enum eg_err e;

    if (asprintf(&parent, "%s/..", dir) < 0)
        return EG_ENOMEM;
    e = dir_sync(parent);
    free(parent);
    return e;
}

static bool write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return false;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

/* Puts text into a new file path of mode 0600, whole or not at all. */
static enum eg_err file_create(const char *dir, const char *path, struct eg_slice text)
{
    char *temporary;
    enum eg_err e = EG_EIO;
    int fd;

    if (asprintf(&temporary, "%s/.key-XXXXXX", dir) < 0)
        return EG_ENOMEM;
    fd = mkostemp(temporary, O_CLOEXEC); /* 0600 */
    if (fd >= 0) {
        bool written = write_all(fd, text.p, text.n) && fsync(fd) == 0;

        written &= close(fd) == 0;
        if (written && link(temporary, path) == 0)
            e = dir_sync(dir);
        else if (written && errno == EEXIST)
            e = EG_EEXISTS;
        unlink(temporary);
    }
    free(temporary);
    return e;
}

/* YYYYMMDDTHHMMSSmmm in UTC. */
static void stamp(int64_t wall_ms, char out[24])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    char day[16];

    gmtime_r(&seconds, &tm);
    strftime(day, sizeof(day), "%Y%m%dT%H%M%S", &tm);
    snprintf(out, 24, "%s%03d", day, (int)(wall_ms % 1000));
}

enum eg_err eg_key_generate(const char *dir, int64_t wall_ms, char kid[64], char *path,
                            size_t path_size)
{
    uint8_t seed[crypto_sign_SEEDBYTES], print[32], *secret;
    struct eg_key_info info = {.signing = true};
    char text[512], when[24], name[4096];
    enum eg_err e = EG_EIO;
    int n;

    eg_sodium_ready();
    secret = sodium_malloc(crypto_sign_SECRETKEYBYTES);
    if (!secret)
        return EG_ENOMEM;
    randombytes_buf(seed, sizeof(seed));
    crypto_sign_seed_keypair(info.public_key, secret, seed);
    sodium_free(secret);
    eg_jwk_thumbprint(info.public_key, print);
    sodium_bin2hex(info.kid, sizeof(info.kid), print, 8);
    stamp(wall_ms, when);
    n = snprintf(name, sizeof(name), "%s/%s-%s.key", dir, when, info.kid);
    if (n < 0 || (size_t)n >= sizeof(name) || (path && (size_t)n >= path_size)) {
        e = EG_EINVALID;
        goto out;
    }
    if (mkdir(dir, 0700) == 0)
        e = parent_sync(dir);
    else
        e = errno == EEXIST ? EG_OK : EG_EIO;
    if (e)
        goto out;
    e = file_create(dir, name,
                    (struct eg_slice){text, eg_jwk_private(&info, seed, text, sizeof(text))});
    if (e)
        goto out;
    memcpy(kid, info.kid, sizeof(info.kid));
    if (path)
        memcpy(path, name, (size_t)n + 1);
out:
    sodium_memzero(seed, sizeof(seed));
    sodium_memzero(text, sizeof(text));
    return e;
}

/* Removes the file when it holds the key kid. EG_ENOTFOUND when it does not. */
static enum eg_err remove_if(const char *path, const char *kid)
{
    char text[EG_KEY_FILE_MAX];
    struct eg_key key = {0};
    bool private = ends_with(path, ".key");
    const char *wrong;
    enum eg_err e = EG_ENOTFOUND;
    size_t n;

    /* Read as if public, so that a key whose mode is wrong can be removed too. */
    if (!file_read(path, false, text, &n, NULL, 0)) {
        wrong = eg_jwk_read((struct eg_slice){text, n}, private, &key);
        if (wrong == eg_jwk_no_memory)
            e = EG_ENOMEM;
        else if (!wrong && strcmp(key.info.kid, kid) == 0)
            e = unlink(path) == 0 ? EG_OK : EG_EIO;
    }
    sodium_memzero(text, sizeof(text));
    key_wipe(&key);
    return e;
}

enum eg_err eg_key_delete(const char *dir, const char *kid)
{
    struct dirent **list = NULL;
    int n, removed = 0;
    enum eg_err e = EG_OK;

    eg_sodium_ready();
    n = list_keys(dir, &list);
    if (n < 0)
        return errno == ENOENT ? EG_ENOTFOUND : EG_EIO;
    for (int i = 0; i < n; i++) {
        char *path;

        if (asprintf(&path, "%s/%s", dir, list[i]->d_name) < 0) {
            e = EG_ENOMEM;
        } else {
            enum eg_err one = remove_if(path, kid);

            removed += one == EG_OK;
            if (one != EG_OK && one != EG_ENOTFOUND)
                e = one;
            free(path);
        }
        free(list[i]);
    }
    free(list);
    if (!e)
        e = removed ? dir_sync(dir) : EG_ENOTFOUND;
    return e;
}
