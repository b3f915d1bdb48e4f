/*
 * protocol.h - fixed numbers and names of wire protocol version 1 (docs/protocol.md).
 */
#ifndef EBBGATE_PROTOCOL_H
#define EBBGATE_PROTOCOL_H

#define EG_VERSION "0.1.0"
#define EG_PROTOCOL_MIN 1
#define EG_PROTOCOL_MAX 1
#define EG_SUBPROTOCOL "ebbgate.v1"

#define EG_ID_MAX 128              /* bytes of sub, session_id, agent_id, message_id, event_id */
#define EG_JSON_DEPTH_MAX 32       /* nesting of a frame */
#define EG_HELLO_BYTES_MAX 16384   /* first frame */
#define EG_PRESENCE_BYTES_MAX 4096 /* data of presence */
#define EG_HISTORY_MAX 500         /* events in one page */
#define EG_TOKEN_BYTES_MAX 8192
#define EG_CONCURRENCY_MAX 1000
#define EG_LEEWAY_S 60 /* clock leeway of exp, nbf, iat */
#define EG_EXPIRY_NOTICE_MS 30000
#define EG_JSON_INT_MAX 9007199254740991LL

/* Capabilities a client may name in hello. */
enum eg_cap {
    EG_CAP_STREAMING = 1 << 0,
    EG_CAP_ACK = 1 << 1,
    EG_CAP_PRESENCE = 1 << 2,
    EG_CAP_RAW = 1 << 3
};

/* Scopes of a token. */
enum eg_scope {
    EG_SCOPE_READ = 1 << 0,
    EG_SCOPE_WRITE = 1 << 1,
    EG_SCOPE_AGENT = 1 << 2,
    EG_SCOPE_ADMIN = 1 << 3,
    EG_SCOPE_ADMIN_READ = 1 << 4
};

/* Why a resume could not replay. */
enum eg_resync { EG_RESYNC_NONE = 0, EG_RESYNC_TRIMMED, EG_RESYNC_AHEAD, EG_RESYNC_EPOCH };

#endif
