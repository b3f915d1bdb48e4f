/*
 * gate.c - see gate.h.
 */
#include "app/gate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "ebbgate/codes.h"

#define DEFAULT_URL "ws://127.0.0.1:7070/ws"

static bool make_token(struct eg_gate *g)
{
    char why[256] = "";
    eg_buf_reset(&g->token);
    g->minted_ms = eg_clock_mono_ms();
    if (eg_keys_mint(g->ring, &g->mint, &g->token, why, sizeof why) != EG_OK) {
        eg_complain(g->cmd, "cannot make a token: %s", why);
        return false;
    }
    eg_buf_char(&g->token, '\0');
    return g->token.err == EG_OK;
}

static bool same_keys(const struct eg_keyring *a, const struct eg_keyring *b)
{
    int n = eg_keyring_count(a);
    if (eg_keyring_count(b) != n)
        return false;
    for (int i = 0; i < n; i++) {
        if (strcmp(eg_keyring_at(a, i)->kid, eg_keyring_at(b, i)->kid) != 0)
            return false;
    }
    return true;
}

/* Takes the keys that are there now: ours may have been withdrawn. Whether they are others. */
static bool reload_keys(struct eg_gate *g)
{
    struct eg_keyring *now = NULL;
    char why[512] = "", made[8];
    if (eg_keys_load(g->config.settings, false, &now, made, sizeof made, why, sizeof why) != EG_OK)
        return false;
    bool same = same_keys(g->ring, now);
    eg_keyring_unref(g->ring);
    g->ring = now;
    return !same;
}

int eg_gate_init(struct eg_gate *g, const struct eg_command *cmd, const struct eg_gate_opts *o,
                 const struct eg_mint *mint)
{
    const char *token = o->token ? o->token : getenv("EBBGATE_TOKEN");
    const char *url = o->url ? o->url : getenv("EBBGATE_URL");
    memset(g, 0, sizeof *g);
    g->cmd = cmd;
    g->url = url && *url ? url : DEFAULT_URL;
    g->retry_after_ms = -1;
    if (token && *token) {
        eg_buf_str(&g->token, token);
        eg_buf_char(&g->token, '\0');
        return strpbrk(token, " \r\n\t") ? eg_usage(cmd, "the token is malformed") : EG_PROCEED;
    }
    int code = eg_cli_data(cmd, &o->data, &g->config);
    if (code != EG_PROCEED)
        return code;
    char why[512] = "", made[8];
    enum eg_err err =
        eg_keys_load(g->config.settings, false, &g->ring, made, sizeof made, why, sizeof why);
    if (err != EG_OK) {
        eg_complain(cmd, "no --token, and no key to make one: %s", *why ? why : eg_err_text(err));
        return EG_EXIT_CONFIG;
    }
    g->mint = *mint;
    if (g->mint.ttl_ms == 0)
        g->mint.ttl_ms = EG_DAY_MS;
    if (g->mint.ttl_ms > g->config.settings->max_token_lifetime_ms)
        g->mint.ttl_ms = g->config.settings->max_token_lifetime_ms;
    if (*g->config.settings->audience)
        g->mint.audience = g->config.settings->audience;
    return make_token(g) ? EG_PROCEED : EG_EXIT_CONFIG;
}

void eg_gate_free(struct eg_gate *g)
{
    eg_buf_free(&g->token);
    eg_keyring_unref(g->ring);
    if (g->config.settings)
        eg_config_free(&g->config);
}

static void copy_text(const struct eg_json_doc *doc, const char *key, char *to, size_t size)
{
    char *text = eg_field_text(doc, key);
    snprintf(to, size, "%s", text ? text : "");
    free(text);
}

void eg_gate_note(struct eg_gate *g, const struct eg_json_doc *doc)
{
    int64_t seconds = eg_field_int_or(doc, "retry_after_seconds", -1);
    copy_text(doc, "code", g->code, sizeof g->code);
    copy_text(doc, "message", g->message, sizeof g->message);
    copy_text(doc, "next_step", g->next_step, sizeof g->next_step);
    g->retry_after_ms = seconds >= 0 && seconds < 86400 ? seconds * 1000 : -1;
}

bool eg_gate_renew(struct eg_gate *g, struct eg_buf *out)
{
    if (!g->ring)
        return false;
    (void)reload_keys(g);
    if (!make_token(g))
        return false;
    eg_buf_str(out, "{\"type\":\"auth\"");
    eg_json_kstr(out, "token", (struct eg_slice){g->token.p, g->token.n - 1});
    eg_buf_char(out, '}');
    return out->err == EG_OK;
}

/* A new token for the next connection, unless the one refused is that new already, of the same
 * keys. */
static int with_fresh_token(struct eg_gate *g, struct eg_wsc *c, const char *why)
{
    bool fresh = g->ring && !reload_keys(g) && eg_clock_mono_ms() - g->minted_ms < 5000;
    if (g->ring && !fresh && make_token(g) && eg_wsc_token(c, g->token.p))
        return EG_PROCEED;
    eg_complain(g->cmd, "refused: %s", why);
    return EG_EXIT_FAILED;
}

/* The upgrade itself was refused, with an HTTP status. A 2xx is no gateway's: something before it
 * shows a page meanwhile, and a patient caller waits for the gateway. */
static int upgrade_refused(struct eg_gate *g, struct eg_wsc *c, const struct eg_wsc_end *end,
                           bool patient)
{
    if (patient && end->http_status >= 200 && end->http_status <= 299)
        return EG_PROCEED;
    if (end->http_status == 401)
        return with_fresh_token(g, c, end->reason);
    if (end->http_status == 408 || end->http_status == 425 || end->http_status == 429 ||
        end->http_status >= 500)
        return EG_PROCEED;
    if (end->http_status == 404)
        eg_complain(g->cmd, "refused: %s (is the public listener at %s?)", end->reason, g->url);
    else
        eg_complain(g->cmd, "refused: %s", end->reason);
    return EG_EXIT_FAILED;
}

int eg_gate_lost(struct eg_gate *g, struct eg_wsc *c, const struct eg_wsc_end *end, bool patient)
{
    char said[330];
    int code = EG_PROCEED;
    snprintf(said, sizeof said, "%s%s%s", *g->message ? g->message : end->reason,
             *g->code ? " - " : "", g->code);
    if (g->retry_after_ms >= 0)
        eg_wsc_retry_after(c, g->retry_after_ms);
    if (end->http_status > 0) {
        code = upgrade_refused(g, c, end, patient);
    } else if (end->close_code == EG_CLOSE_CREDENTIALS ||
               strcmp(g->next_step, "reauthenticate") == 0) {
        code = with_fresh_token(g, c, *said ? said : "the token is no longer good");
    } else if (end->close_code == EG_CLOSE_REFUSED || strcmp(g->next_step, "do_not_retry") == 0 ||
               strcmp(g->next_step, "upgrade_client") == 0 ||
               strcmp(g->next_step, "downgrade_client") == 0) {
        eg_complain(g->cmd, "refused: %s", said);
        code = EG_EXIT_FAILED;
    } else if (end->close_code == EG_CLOSE_NORMAL) {
        eg_complain(g->cmd, "the gateway ended the connection%s%s", *end->reason ? ": " : "",
                    end->reason);
        code = EG_EXIT_FAILED;
    } else if (!end->was_open && !patient) {
        eg_complain(g->cmd, "%s (is the gateway running at %s?)", end->reason, g->url);
        code = EG_EXIT_FAILED;
    }
    g->code[0] = g->message[0] = g->next_step[0] = '\0';
    g->retry_after_ms = -1;
    return code;
}
