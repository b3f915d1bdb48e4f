/* Configuration: what wins over what, every mistake with its place, numbers kept whole. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/config.h"

static char dir[64], file[96];

static void setup(void)
{
    strcpy(dir, "/tmp/ebbgate-config.XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/ebbgate.conf", dir);
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    cr_assert_eq(system(command), 0);
}

TestSuite(config, .init = setup, .fini = teardown);

static void put(const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f, "%s", path);
    fputs(text, f);
    fclose(f);
}

static char *home_env[] = {"HOME=/home/somebody", NULL};

/* Loads file alone. */
static enum eg_err load(struct eg_config *c)
{
    struct eg_config_args args = {.file = file, .env = home_env};
    return eg_config_load(&args, c);
}

/* The mistakes as text. */
static const char *mistakes(struct eg_config *c)
{
    eg_buf_char(&c->mistakes, '\0');
    return c->mistakes.p;
}

/* One mistake in the file with text, in line, saying what. */
static void expect_mistake(const char *text, int line, const char *what)
{
    struct eg_config c;
    char want[320];
    put("ebbgate.conf", text);
    cr_assert_eq(load(&c), EG_EINVALID, "%s", text);
    cr_assert_eq(c.mistake_count, 1, "%s: %s", text, mistakes(&c));
    if (line > 0)
        snprintf(want, sizeof want, "%s:%d: %s\n", file, line, what);
    else
        snprintf(want, sizeof want, "%s: %s\n", file, what);
    cr_assert_str_eq(mistakes(&c), want);
    eg_config_free(&c);
}

Test(config, nothing_given)
{
    struct eg_config_args args = {.env = home_env};
    struct eg_config c;
    cr_assert_eq(eg_config_load(&args, &c), EG_OK);
    cr_assert_str_eq(c.settings->data, "/home/somebody/.local/share/ebbgate");
    cr_assert_null(c.file);
    for (int i = 0; i < EG_SETTING_COUNT; i++)
        cr_assert_null(c.origin[i]);
    eg_config_free(&c);
}

Test(config, data_folder)
{
    char *env[] = {"HOME=/home/x", "XDG_DATA_HOME=/xdg", NULL};
    struct eg_config_args args = {.env = env};
    struct eg_config c;
    cr_assert_eq(eg_config_load(&args, &c), EG_OK);
    cr_assert_str_eq(c.settings->data, "/xdg/ebbgate");
    eg_config_free(&c);
}

Test(config, a_file_of_every_kind_of_value)
{
    struct eg_config c;
    put("ebbgate.conf", "# a comment with 99999999999\n"
                        "listen = \"0.0.0.0:8000\";\n"
                        "agents = [\"a\", \"b\"];   // two\n"
                        "allowed_origins = (\"https://x.example\");\n"
                        "max_payload = 2048\n"
                        "turn_lease = 1.5;\n"
                        "abort_grace_ms = 250;\n"
                        "drain_timeout = \"2m\";\n"
                        "retention_bytes = 5000000000;\n"
                        "/* 88888888888\n */ min_free_bytes = 3000000000L;\n"
                        "audience = \"9999999999 \\\"x\\\"\";\n");
    enum eg_err err = load(&c);
    cr_assert_eq(err, EG_OK, "%s", mistakes(&c));
    cr_assert_str_eq(c.settings->listen, "0.0.0.0:8000");
    cr_assert_str_eq(c.settings->agents[1], "b");
    cr_assert_str_eq(c.settings->allowed_origins[0], "https://x.example");
    cr_assert_eq(c.settings->max_payload, 2048);
    cr_assert_eq(c.settings->turn_lease_ms, 1500);
    cr_assert_eq(c.settings->abort_grace_ms, 250);
    cr_assert_eq(c.settings->drain_timeout_ms, 120000);
    cr_assert_eq(c.settings->retention_bytes, 5000000000);
    cr_assert_eq(c.settings->min_free_bytes, 3000000000);
    cr_assert_str_eq(c.settings->audience, "9999999999 \"x\"");
    eg_config_free(&c);
}

Test(config, flag_over_environment_over_folder_over_file)
{
    char *env[] = {"HOME=/h", "EBBGATE_MAX_ATTEMPTS=4", "EBBGATE_AGENTS=e1,e2",
                   "EBBGATE_TURN_LEASE_MS=700", NULL};
    struct eg_config_args args = {.file = file, .env = env, .nflags = 2};
    args.flags[0] = (struct eg_config_flag){"max-attempts", "5"};
    args.flags[1] = (struct eg_config_flag){"abort-grace-ms", "9"};
    struct eg_config c;
    char path[160];
    put("ebbgate.conf",
        "max_attempts = 1;\nmax_payload = 2000;\nworkers = 9;\nagents = [\"f\"];\n");
    snprintf(path, sizeof path, "%s/conf.d", dir);
    cr_assert_eq(mkdir(path, 0700), 0);
    put("conf.d/20-later.conf", "max_payload = 4000;\nmax_attempts = 3;\n");
    put("conf.d/10-first.conf", "max_payload = 3000;\n");
    put("conf.d/ignored.txt", "this is = not read\n");
    cr_assert_eq(eg_config_load(&args, &c), EG_OK, "%s", mistakes(&c));
    cr_assert_eq(c.settings->max_attempts, 5);
    cr_assert_eq(c.settings->max_payload, 4000);
    cr_assert_eq(c.settings->workers, 9);
    cr_assert_str_eq(c.settings->agents[0], "e1");
    cr_assert_eq(c.settings->turn_lease_ms, 700);
    cr_assert_eq(c.settings->abort_grace_ms, 9);
    cr_assert_str_eq(c.origin[EG_SETTING_AT_max_attempts], "--max-attempts");
    cr_assert_str_eq(c.origin[EG_SETTING_AT_agents], "environment EBBGATE_AGENTS");
    snprintf(path, sizeof path, "%s/conf.d/20-later.conf:1", dir);
    cr_assert_str_eq(c.origin[EG_SETTING_AT_max_payload], path);
    snprintf(path, sizeof path, "%s:3", file);
    cr_assert_str_eq(c.origin[EG_SETTING_AT_workers], path);
    eg_config_free(&c);
}

Test(config, each_mistake_has_its_place)
{
    expect_mistake("max_payload = 5000;\nmax_paylod = 1;\n", 2,
                   "unknown setting max_paylod; did you mean max_payload?");
    expect_mistake("colour = \"blue\";\n", 1, "unknown setting colour");
    expect_mistake("\n\nmax_payload = 1;\n", 3, "max_payload must be in the range 1k to 64m");
    expect_mistake("max_attempts = \"4096\";\n", 1, "max_attempts must be a number without quotes");
    expect_mistake("max_payload = 4096.5;\n", 1, "max_payload must be a whole number");
    expect_mistake("max_payload = true;\n", 1, "max_payload must not be true or false");
    expect_mistake("max_payload = [1];\n", 1,
                   "max_payload must be a list of texts: [\"one\", \"two\"]");
    expect_mistake("agents = [1, 2];\n", 1, "agents must be a list of texts: [\"one\", \"two\"]");
    expect_mistake("agents = \"a,b\";\n", 1, "agents must be a list of texts: [\"one\", \"two\"]");
    expect_mistake("listen = [\"a\"];\n", 1, "listen must be one value, not a list");
    expect_mistake("listen = 7070;\n", 1, "listen must be a text");
    expect_mistake("turn_lease = \"soon\";\n", 1,
                   "turn_lease must be a duration such as 10, 500ms, 10s, 5m, 2h or 7d");
    expect_mistake("turn_lease_ms = \"10s\";\n", 1,
                   "turn_lease_ms must be a number without quotes");
    expect_mistake("turn_lease = 10;\nturn_lease_ms = 10;\n", 2,
                   "turn_lease was given already in line 1");
    expect_mistake("listen : { port = 1; };\n", 1, "listen must be a value, not a group");
    expect_mistake("max_payload = 5000;\nworkers = ;\n", 2, "syntax error");
    expect_mistake("workers = 9;\nworkers = 8;\n", 2, "duplicate setting name");
    expect_mistake("listen = \"nowhere\";\n", 1,
                   "listen must be ADDRESS:PORT, for example 127.0.0.1:7070");
    expect_mistake("@include \"/etc/passwd\"\n", 1,
                   "@include is not supported; put the file into conf.d/");
}

/* libconfig alone would read 4294967301 as 5. */
Test(config, numbers_do_not_wrap)
{
    expect_mistake("workers = 4294967301;\n", 1, "workers must be in the range 4 to 512");
    expect_mistake("workers = 99999999999999999999;\n", 1, "workers must be in the range 4 to 512");
}

Test(config, all_mistakes_at_once)
{
    char *env[] = {"HOME=/h",         "EBBGATE_WORKERS=many", "EBBGATE_LISEN=x",
                   "EBBGATE_TOKEN=t", "OTHER_LISEN=x",        NULL};
    struct eg_config_args args = {.file = file, .env = env, .nflags = 1};
    args.flags[0] = (struct eg_config_flag){"readers", "99"};
    struct eg_config c;
    put("ebbgate.conf", "max_paylod = 1;\nmax_attempts = 0;\nlog_level = \"loud\";\n");
    cr_assert_eq(eg_config_load(&args, &c), EG_EINVALID);
    cr_assert_eq(c.mistake_count, 5, "%s", mistakes(&c));
    cr_assert(strstr(mistakes(&c), ":3: log_level must be error, warn, info or debug\n"));
    cr_assert(strstr(mistakes(&c), "environment EBBGATE_WORKERS: must be a whole number\n"));
    cr_assert(strstr(mistakes(&c), "--readers: must be in the range 1 to 16\n"));
    eg_buf_char(&c.warnings, '\0');
    cr_assert_str_eq(c.warnings.p,
                     "environment EBBGATE_LISEN: names no setting; did you mean EBBGATE_LISTEN?\n");
    eg_config_free(&c);
}

Test(config, files_that_cannot_be_read)
{
    struct eg_config c;
    char want[200];
    cr_assert_eq(load(&c), EG_EINVALID);
    snprintf(want, sizeof want, "%s: cannot be read: No such file or directory\n", file);
    cr_assert_str_eq(mistakes(&c), want);
    eg_config_free(&c);

    cr_assert_eq(mkdir(file, 0700), 0);
    cr_assert_eq(load(&c), EG_EINVALID);
    snprintf(want, sizeof want, "%s: cannot be read: Is a directory\n", file);
    cr_assert_str_eq(mistakes(&c), want);
    eg_config_free(&c);
}

Test(config, what_is_printed_is_read_back)
{
    struct eg_config c, back;
    struct eg_buf out = {0};
    put("ebbgate.conf",
        "agents = [\"a\"];\nretention_bytes = 5000000000;\nturn_lease = \"90s\";\n");
    cr_assert_eq(load(&c), EG_OK);
    eg_config_print(&c, false, &out);
    char *text = eg_buf_take(&out);
    cr_assert(strstr(text, "turn_lease = \"90s\";"), "%s", text);
    cr_assert(strstr(text, "# default\n"));
    put("ebbgate.conf", text);
    free(text);
    cr_assert_eq(load(&back), EG_OK, "%s", mistakes(&back));
    for (int i = 0; i < EG_SETTING_COUNT; i++)
        cr_assert(eg_setting_same(&eg_setting_table[i], c.settings, back.settings), "%s",
                  eg_setting_table[i].name);
    eg_config_free(&c);
    eg_config_free(&back);
}
