/*
 * frame_hello.c - the fields of hello, in both spellings, and of the legacy join.
 *
 * Pure, any thread. Where a field has an older spelling, the newer one wins and the older one is
 * not looked at; null is as good as absent, but for capabilities, where it means none.
 */
#include "wire/frame_fields.h"
#include "wire/json_text.h"

static bool read_optional_id(struct eg_parse *p, const char *key, struct eg_slice *out)
{
    struct eg_json_member m;

    return !eg_parse_value(p, key, &m) || eg_read_id(p, &m, key, out);
}

/* client:{"name","version"}: for logs and the admin pages. */
static bool read_client(struct eg_parse *p)
{
    struct eg_frame *f = p->frame;
    struct eg_json_member m, part;

    if (!eg_parse_value(p, "client", &m))
        return true;
    if (m.kind != EG_JSON_OBJECT)
        return eg_refuse(p, "client", "must be an object");
    if (eg_json_find(m.value, "name", &part) && part.kind != EG_JSON_NULL &&
        !eg_read_id(p, &part, "client.name", &f->client_name))
        return false;
    return !eg_json_find(m.value, "version", &part) || part.kind == EG_JSON_NULL ||
           eg_read_id(p, &part, "client.version", &f->client_version);
}

/* One end of the version range: key, or member old_key of the older object (NULL: none). */
static bool read_version(struct eg_parse *p, const char *key, const char *old_key,
                         const char *old_field, int64_t *out, const char **told)
{
    struct eg_json_member m, old;

    *out = 1;
    *told = key;
    if (eg_parse_value(p, key, &m))
        return eg_read_integer(p, &m, key, 0, EG_JSON_INT_MAX, out);
    if (!old_key || !eg_parse_value(p, "protocol", &old))
        return true;
    if (old.kind != EG_JSON_OBJECT)
        return eg_refuse(p, "protocol", "must be an object with min and max");
    if (!eg_json_find(old.value, old_key, &m) || m.kind == EG_JSON_NULL)
        return true;
    *told = old_field;
    return eg_read_integer(p, &m, old_field, 0, EG_JSON_INT_MAX, out);
}

static bool read_versions(struct eg_parse *p)
{
    struct eg_frame *f = p->frame;
    bool join = f->type == EG_FRAME_JOIN;
    const char *min_told, *max_told;

    if (!read_version(p, join ? "min_version" : "protocol_min", join ? NULL : "min", "protocol.min",
                      &f->protocol_min, &min_told) ||
        !read_version(p, join ? "max_version" : "protocol_max", join ? NULL : "max", "protocol.max",
                      &f->protocol_max, &max_told))
        return false;
    if (f->protocol_min > f->protocol_max)
        return eg_refuse(p, min_told, "must not be greater than the highest version");
    return true;
}

static bool read_caps(struct eg_parse *p)
{
    static const struct {
        const char *name;
        enum eg_cap cap;
    } known[] = {{"\"streaming\"", EG_CAP_STREAMING},
                 {"\"ack\"", EG_CAP_ACK},
                 {"\"presence\"", EG_CAP_PRESENCE},
                 {"\"raw\"", EG_CAP_RAW}};
    struct eg_json_member m, one;
    const char *key = "capabilities", *at, *end;

    if (!eg_parse_get(p, key, &m)) {
        key = "caps";
        if (!eg_parse_get(p, key, &m))
            return true;
    }
    if (m.kind == EG_JSON_NULL)
        return true;
    if (m.kind != EG_JSON_ARRAY)
        return eg_refuse(p, key, "must be an array of strings");
    at = m.value.p + 1;
    end = m.value.p + m.value.n;
    while (eg_json_next(&at, end, false, &one)) {
        if (one.kind != EG_JSON_STRING)
            return eg_refuse(p, key, "must be an array of strings");
        for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
            if (eg_json_same(one.value, eg_slice_cstr(known[i].name)))
                p->frame->caps |= known[i].cap;
    }
    return true;
}

static bool read_role(struct eg_parse *p)
{
    struct eg_json_member m;
    struct eg_slice role;

    if (!eg_parse_value(p, "role", &m))
        return true;
    if (m.kind == EG_JSON_STRING) {
        role = eg_parse_text(p, m.value);
        if (eg_slice_is(role, "client"))
            return true;
        if (eg_slice_is(role, "agent")) {
            p->frame->role = EG_ROLE_AGENT;
            return true;
        }
    }
    return eg_refuse(p, "role", "must be \"client\" or \"agent\"");
}

/* A cursor, or "acked". */
static bool read_since(struct eg_parse *p)
{
    struct eg_json_member m;

    if (!eg_parse_value(p, "since", &m))
        return true;
    if (m.kind == EG_JSON_STRING && eg_slice_is(eg_parse_text(p, m.value), "acked")) {
        p->frame->since_acked = true;
        return true;
    }
    if (m.kind != EG_JSON_NUMBER)
        return eg_refuse(p, "since", "must be a cursor or \"acked\"");
    return eg_read_integer(p, &m, "since", 0, EG_JSON_INT_MAX, &p->frame->since);
}

static bool read_session(struct eg_parse *p)
{
    struct eg_frame *f = p->frame;
    struct eg_json_member m;

    if (!read_optional_id(p, "session_id", &f->session_id))
        return false;
    if (f->type == EG_FRAME_JOIN)
        return true;
    if (eg_parse_value(p, "create", &m) && !eg_read_bool(p, &m, "create", &f->create))
        return false;
    if (f->create && f->session_id.n && !eg_session_id_valid(f->session_id))
        return eg_refuse(p, "session_id", "must be 1 to 128 of A-Z a-z 0-9 . _ : -");
    return read_optional_id(p, "epoch", &f->epoch);
}

bool eg_read_hello(struct eg_parse *p)
{
    struct eg_frame *f = p->frame;
    struct eg_json_member m;

    if (!eg_parse_value(p, "agent_id", &m))
        return eg_refuse(p, "agent_id", "is required");
    if (!eg_read_id(p, &m, "agent_id", &f->agent_id) || !read_versions(p) || !read_session(p) ||
        !read_since(p))
        return false;
    if (eg_parse_value(p, "token", &m) && !eg_read_string(p, &m, "token", &f->token))
        return false;
    if (f->type == EG_FRAME_JOIN)
        return true;
    if (!read_caps(p) || !read_role(p) || !read_client(p))
        return false;
    return !eg_parse_value(p, "concurrency", &m) ||
           eg_read_integer(p, &m, "concurrency", 1, EG_CONCURRENCY_MAX, &f->concurrency);
}
