/*
 * fuzz_config.c - any bytes as configuration: a file, a file beside it in conf.d/, the environment,
 * flags. Either there is a list of mistakes, each with its place (file and line) and a sentence, or
 * a set of settings within their bounds; what `ebbgate config` prints of it is read back as the
 * same, and is strict JSON when that is asked for.
 *
 * Input: the first byte says what the rest is: 0 the file, 1 the file in conf.d/, 2 lines of the
 * environment (without EBBGATE_), 3 lines NAME=VALUE of flags.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/config.h"
#include "wire/frame.h"
#include "wire/json.h"

#define LINES_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libconfig 1.5 loses a string that it has read when the syntax breaks behind it. Our own omissions
 * would show by what its other functions allocate. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:strbuf_append\nleak:libconfig_yylex\n";
}

static char dir[40];
static char main_path[64], side_path[64], side_dir[64];

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void clean_up(void)
{
    unlink(side_path);
    rmdir(side_dir);
    unlink(main_path);
    rmdir(dir);
}

static void set_up(void)
{
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(dir, sizeof dir, "%s/ebbgate-fuzz-XXXXXX", base);
    must(mkdtemp(dir) != NULL);
    snprintf(main_path, sizeof main_path, "%s/main.conf", dir);
    snprintf(side_dir, sizeof side_dir, "%s/conf.d", dir);
    snprintf(side_path, sizeof side_path, "%s/10.conf", side_dir);
    must(mkdir(side_dir, 0700) == 0);
    atexit(clean_up);
}

static void put(const char *path, const void *p, size_t n)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    close(fd);
}

/* Each mistake is one line: WHERE: what, and for a file WHERE names it. */
static void check_mistakes(const struct eg_config *c, bool of_file)
{
    const char *at = c->mistakes.p, *end = at ? at + c->mistakes.n : NULL;
    int lines = 0;
    must(c->mistakes.err == EG_OK);
    for (; at < end; lines++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const struct eg_slice line = {at, stop ? (size_t)(stop - at) : 0};
        must(stop && line.n > 10 && memmem(line.p, line.n, ": ", 2));
        if (of_file)
            must(strncmp(at, dir, strlen(dir)) == 0);
        for (size_t i = 0; of_file && i < line.n; i++)
            must((unsigned char)line.p[i] >= 0x20 && line.p[i] != 0x7f);
        at = stop + 1;
    }
    must(lines == c->mistake_count);
}

static void check_bounds(const struct eg_settings *s)
{
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        const struct eg_setting *d = &eg_setting_table[i];
        const char *at = (const char *)s + d->offset;
        if (d->type == EG_SETTING_INT || d->type == EG_SETTING_SIZE || d->type == EG_SETTING_DUR) {
            const int64_t v = *(const int64_t *)(const void *)at;
            must(v >= d->min && v <= d->max);
        } else if (d->type == EG_SETTING_STR) {
            must(*(char *const *)(const void *)at != NULL);
        } else if (d->type == EG_SETTING_LIST) {
            must(*(char **const *)(const void *)at != NULL);
        }
    }
}

static void check_accepted(const struct eg_config *c, char **env)
{
    struct eg_config again;
    struct eg_buf text = {0}, json = {0};
    struct eg_json_doc doc;
    const struct eg_config_args args = {.file = main_path, .env = env, .quiet = true};
    check_bounds(c->settings);
    eg_config_print(c, true, &json);
    must(json.err == EG_OK && json.p[json.n - 1] == '\n');
    must(eg_json_scan((struct eg_slice){json.p, json.n - 1}, EG_JSON_DEPTH_MAX, &doc) == EG_OK);
    eg_config_print(c, false, &text);
    must(text.err == EG_OK);
    put(main_path, text.p, text.n);
    unlink(side_path);
    const enum eg_err err = eg_config_load(&args, &again);
    if (err != EG_OK)
        fprintf(stderr, "%.*s\n%.*s\n", (int)text.n, text.p, (int)again.mistakes.n,
                again.mistakes.p);
    must(err == EG_OK);
    for (int i = 0; i < EG_SETTING_COUNT; i++) {
        if (!eg_setting_same(&eg_setting_table[i], c->settings, again.settings)) {
            fprintf(stderr, "%s is not the same\n", eg_setting_table[i].name);
            abort();
        }
    }
    eg_config_free(&again);
    eg_buf_free(&text);
    eg_buf_free(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char home[] = "HOME=/home/fuzz";
    char *plain[] = {home, NULL}, *env[LINES_MAX + 2] = {home};
    struct eg_config_args args = {.env = env};
    struct eg_config c;
    char *made[LINES_MAX];
    int n = 0;
    if (!main_path[0])
        set_up();
    if (size == 0)
        return 0;
    const unsigned mode = data[0] % 4;
    char *text = strndup((const char *)data + 1, size - 1), *rest = text;
    must(text != NULL);
    if (mode == 0) {
        args.file = main_path;
        put(main_path, data + 1, size - 1);
        unlink(side_path);
    } else if (mode == 1) {
        args.file = main_path;
        put(main_path, "max_payload = 65536;\n", 21);
        put(side_path, data + 1, size - 1);
    }
    for (char *line; mode > 1 && n < LINES_MAX && (line = strsep(&rest, "\n"));) {
        char *value = strchr(line, '=');
        if (mode == 2) {
            must(asprintf(&made[n], "EBBGATE_%s", line) > 0);
            env[1 + n] = made[n];
            n++;
        } else if (value) {
            *value++ = '\0';
            struct eg_config_flag *f = &args.flags[args.nflags++];
            snprintf(f->name, sizeof f->name, "%s", line);
            f->value = value;
            if (args.nflags == LINES_MAX)
                break;
        }
    }
    /* The environment may name a file; that is not what is tried here. */
    for (int i = 0; i < n; i++) {
        if (strncmp(made[i], "EBBGATE_CONFIG=", 15) == 0)
            made[i][8] = 'K';
    }
    const enum eg_err err = eg_config_load(&args, &c);
    must(err == EG_OK || err == EG_EINVALID);
    must((err == EG_EINVALID) == (c.mistake_count > 0));
    if (mode < 2)
        check_mistakes(&c, true);
    if (err == EG_OK)
        check_accepted(&c, plain);
    eg_config_free(&c);
    for (int i = 0; i < n; i++)
        free(made[i]);
    free(text);
    return 0;
}
