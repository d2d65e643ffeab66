// SPDX-License-Identifier: BSD-2-Clause
// The whole C API that scripts reach. lua/moongate.lua calls it through LuaJIT's FFI: the text between the
// two cdef marks is compiled into the program and handed to ffi.cdef, so declaration and caller cannot drift
// apart. The functions are reached through one struct of pointers (no symbol is exported): a compiled trace
// calls each of them directly.
//
// Rules: handles are numbers (base/handle.h) and one that is stale answers MG_STALE. No function calls back
// into Lua, blocks (but for those marked "while loading") or keeps a pointer that Lua gave it. Texts that
// come back through struct mg_text are valid until the next call. A change of anything below raises MG_ABI.
#ifndef MOONGATE_SCRIPT_API_H
#define MOONGATE_SCRIPT_API_H

#include <stddef.h>
#include <stdint.h>

/* cdef begin */
enum {
    MG_ABI = 12,
    MG_SERVICES = 255, /* in place of a family */

    /* Results. */
    MG_OK = 0,
    MG_STALE = -1, /* the handle's connection or exchange is gone */
    MG_ERROR = -2, /* error_text() says what is wrong */
    MG_NONE = -3,  /* there is no such thing; the end of a list */
    MG_WAIT = -4,  /* the caller yields; the call is made again (body_read) or was done (body_write) */

    MG_CUT = -5,   /* it broke off: there will be no end */

    /* Texts of a request. */
    MG_REQ_ID = 0,
    MG_REQ_METHOD,
    MG_REQ_TARGET,
    MG_REQ_PATH,
    MG_REQ_RAW_PATH,
    MG_REQ_QUERY,
    MG_REQ_HOST,
    MG_REQ_SCHEME,
    MG_REQ_VERSION,
    MG_REQ_UPSTREAM,
    MG_REQ_TERMINATION,
    MG_REQ_BALANCE_KEY,

    /* Numbers of a request. */
    MG_REQ_PORT = 0,
    MG_REQ_ATTEMPT,
    MG_REQ_BYTES_RECEIVED,
    MG_REQ_BYTES_SENT,
    MG_REQ_TOTAL_TIME,
    MG_REQ_FIRST_BYTE_TIME, /* MG_NONE: no response was begun */
    MG_REQ_UPSTREAM_TIME,   /* MG_NONE: there was no connection to a server */

    /* Of a connection. */
    MG_CONN_REMOTE_IP = 0,
    MG_CONN_LOCAL_IP,
    MG_CONN_ID = 0,
    MG_CONN_REMOTE_PORT,
    MG_CONN_LOCAL_PORT,
    MG_CONN_STARTED, /* wall time */
    MG_CONN_BYTES_IN,
    MG_CONN_BYTES_OUT,

    /* Of what the proxy in front has said of it. */
    MG_PROXY_VERSION = 0,
    MG_PROXY_REMOTE_IP,
    MG_PROXY_REMOTE_PORT,
    MG_PROXY_TLV = 0x100, /* and a type: its value */
    MG_PROXY_TLS = 0x200, /* and a type inside of that of TLS; of 0: whether its certificate is good, yes or no */

    /* Of a TLS connection: in the order of TLS_FIELDS (tls/stream.h). */
    MG_TLS_VERSION = 0,
    MG_TLS_CIPHER,
    MG_TLS_GROUP,
    MG_TLS_SERVER_NAME,
    MG_TLS_ALPN,
    MG_TLS_RESUMED,
    MG_TLS_FINGERPRINT,
    MG_TLS_OFFERED_ALPN,
    MG_TLS_OFFERED_VERSIONS,
    MG_TLS_CLIENT_SUBJECT,
    MG_TLS_CLIENT_ISSUER,
    MG_TLS_CLIENT_SERIAL,
    MG_TLS_CLIENT_FINGERPRINT,
    MG_TLS_CLIENT_NAMES,
    MG_TLS_CLIENT_NOT_BEFORE,
    MG_TLS_CLIENT_NOT_AFTER,
    MG_TLS_FIELD_COUNT,

    /* Whose headers. */
    MG_REQUEST = 0,
    MG_RESPONSE = 1,

    /* Types of a value in a shared dictionary. */
    MG_STRING = 0,
    MG_NUMBER = 1,
    MG_BOOLEAN = 2,
    MG_NIL = 3, /* none is expected, or it is to be deleted (dict_cas) */

    /* When a value is set. */
    MG_SET = 0,
    MG_ADD,     /* if there is none */
    MG_REPLACE, /* if there is one */
    MG_KEYS_MAX = 1 << 16,

    MG_METRIC_VALUE_MAX = 128,

    /* Ways to write bytes as text. */
    MG_BASE64 = 0,
    MG_BASE64URL,
    MG_HEX,
    MG_PERCENT,
    MG_TEXT_MAX = 1 << 28,
    MG_RANDOM_MAX = 1 << 16,

    /* What a text may be (text_check). */
    MG_IS_TOKEN = 0,
    MG_IS_COOKIE_VALUE,
    MG_IS_COOKIE_ATTRIBUTE,

    /* How much a socket receives: so many bytes; what is there, at most so many; what stands before a pattern;
       all until the end. */
    MG_TLS_PLAIN = 0,
    MG_TLS_VERIFIED = 1,
    MG_TLS_ANYBODY = 2,
    MG_RECEIVE_EXACTLY = 0,
    MG_RECEIVE_SOME,
    MG_RECEIVE_UNTIL,
    MG_RECEIVE_END,
    MG_RECEIVE_MAX = 1 << 24,
    MG_PATTERN_MAX = 128,

    /* Formats of dates. */
    MG_DATE_HTTP = 0,
    MG_DATE_RFC3339
};

struct mg_text {
    const char *at;
    int32_t len;
};

struct mg_value {
    double number;
    struct mg_text text;
    int32_t type;
};

struct mg_server {
    struct mg_text address, name, state, admin;
    double weight, active, requests;
};

struct mg_dict_stats {
    double entries, bytes, capacity, hits, misses, expired, evictions, recoveries;
};

struct mg_resolved {
    double ttl;    /* seconds */
    int32_t count; /* of addresses, or of services */
    int32_t stale;
};

struct mg_service {
    int32_t priority, weight, port;
    uint32_t first, count; /* of its addresses */
    struct mg_text target;
};

struct mg_api {
    uint32_t abi, size;
    const char *(*error_text)(void);

    int (*request_text)(double x, int field, struct mg_text *ret_text);
    int (*request_number)(double x, int field, double *ret_number);
    int (*request_set)(double x, int field, const char *at, size_t len); /* at NULL: no query */
    int (*request_arg)(double x, const char *name, size_t len, struct mg_text *ret_value);
    int (*request_arg_next)(double x, uint32_t *position, struct mg_text *ret_name,
                            struct mg_text *ret_value);
    /* The nth way to read the path, 0 the normalised one; MG_NONE behind the last. Some may be equal. */
    /* An attempt that failed, n from 0 for the latest back; *ret_server is empty when no server was asked. */
    int (*request_failure)(double x, uint32_t n, struct mg_text *ret_server, struct mg_text *ret_kind,
                           struct mg_text *ret_why);
    int (*request_reading)(double x, uint32_t n, struct mg_text *ret_path);
    int (*request_conn)(double x, double *ret_conn);

    int (*reply_begin)(double x);
    int (*reply_field)(double x, const char *name, size_t name_len, const char *value, size_t value_len);
    int (*reply_end)(double x, int status, const char *body, size_t len);

    int (*response_status)(double x);
    int (*response_set_status)(double x, int status);
    int (*response_reason)(double x, struct mg_text *ret_text);
    int (*response_set_reason)(double x, const char *at, size_t len);

    /* In the body hooks: the next piece of the body, MG_NONE at its end. */
    int (*body_read)(double x, int whose, struct mg_text *ret_text);
    int (*body_write)(double x, int whose, const char *at, size_t len);
    int (*body_pass)(double x, int whose);
    int (*body_append)(double x, int whose, const char *at, size_t len);
    int (*body_abort)(double x, int whose, int status);
    /* In the hooks before. MG_WAIT: the caller yields and asks again; MG_NONE: more than the limit (below 0:
       script_body_limit); MG_CUT. */
    int (*body_whole)(double x, int whose, double limit, struct mg_text *ret_text);
    int (*body_replace)(double x, int whose, const char *at, size_t len);

    int (*header_id)(const char *name, size_t len);
    int (*headers_get)(double x, int whose, int id, const char *name, size_t len, struct mg_text *ret_value);
    int (*headers_set)(double x, int whose, const char *name, size_t len, const char *value,
                       size_t value_len);
    int (*headers_add)(double x, int whose, const char *name, size_t len, const char *value,
                       size_t value_len);
    int (*headers_remove)(double x, int whose, const char *name, size_t len);
    /* Every field from *position on, or those of a name (len > 0). */
    int (*headers_next)(double x, int whose, const char *name, size_t len, uint32_t *position,
                        struct mg_text *ret_name, struct mg_text *ret_value);

    int (*conn_text)(double conn, int field, struct mg_text *ret_text);
    int (*conn_number)(double conn, int field, double *ret_number);
    int (*conn_reject)(double conn);
    int (*conn_tls)(double conn, int field, struct mg_text *ret_text); /* MG_NONE: unknown; MG_TLS_FIELD_COUNT: whether
                                                                          it has TLS at all */
    int (*conn_proxy)(double conn, int field, struct mg_text *ret_text); /* MG_NONE: there is no such thing */
    int (*conn_certificate)(double conn, const char *name, size_t len);
    int (*conn_tunnel)(double conn, const char *address, size_t len);

    int (*sleep)(double seconds); /* the caller yields after it */
    /* Timers and tasks (lua/moongate/tasks.lua). A job's function is found in Lua by the job's number; a ticket
       stands for the hook, timer or task that runs now, until it is over. */
    int (*job_timer)(double seconds, int every, double *ret_job);
    int (*job_spawn)(double *ret_job);
    int (*job_cancel)(double job);            /* MG_NONE: it is over */
    int (*health_declare)(const char *name, size_t len); /* MG_NONE: there is one of that name */
    int (*health_result)(int good, const char *why, size_t len);
    int (*task_ticket)(double *ret_ticket);
    int (*task_park)(double seconds);         /* after task_ticket(); the caller yields after it */
    int (*task_unpark)(double ticket);        /* MG_NONE: it does not wait */
    /* Requests of scripts (lua/moongate/fetch.lua). MG_WAIT: the caller parks and asks again; MG_ERROR: why
       there is no response or only a part of one; MG_NONE: the end. */
    int (*fetch_new)(const char *method, size_t method_len, const char *target, size_t target_len, const char *to,
                     size_t to_len, double *ret_fetch);
    int (*fetch_field)(double fetch, const char *name, size_t len, const char *value, size_t value_len);
    int (*fetch_start)(double fetch, const char *body, size_t len); /* body NULL: none */
    int (*fetch_status)(double fetch, double *ret_status);
    int (*fetch_header)(double fetch, uint32_t *position, struct mg_text *ret_name, struct mg_text *ret_value);
    int (*fetch_read)(double fetch, struct mg_text *ret_text);
    int (*fetch_close)(double fetch);
    /* Names (lua/moongate/resolve.lua). MG_WAIT: the caller parks and asks again; MG_ERROR: why there is no
       address. family is 4, 6 or 0 for both; allowed: only those that route_allow lets in. */
    int (*resolve_new)(const char *name, size_t len, int family, int allowed, double *ret_resolution);
    int (*resolve_service)(double resolution, uint32_t at, struct mg_service *ret_service); /* as the next one */
    int (*resolve_result)(double resolution, struct mg_resolved *ret_resolved);
    int (*resolve_address)(double resolution, uint32_t at, struct mg_text *ret_ip); /* from 0; then MG_NONE */
    int (*resolve_close)(double resolution);
    /* Sockets of scripts (lua/moongate/sockets.lua). MG_WAIT: the caller parks and asks again, or says by
       ..._rest() that it will not; MG_NONE: error_text() says what the network or a limit did. */
    /* tls: MG_TLS_...; trust: of trust_new() or NULL; tls_name: empty for that of the address. */
    int (*tcp_connect)(const char *address, size_t len, const char *pool, size_t pool_len, int tls, void *trust,
                       const char *tls_name, size_t tls_len, double *ret_socket);
    int (*tcp_connected)(double socket, double *ret_reused);
    int (*tcp_send)(double socket, const char *at, size_t len, double *ret_taken);
    int (*tcp_receive)(double socket, int how, double size, const char *pattern, size_t len, double *ret_count);
    int (*tcp_take)(double socket, double count, struct mg_text *ret_text); /* of what is there, a piece */
    int (*tcp_drop)(double socket, double count);
    int (*tcp_rest)(double socket);
    int (*tcp_shutdown)(double socket);
    int (*tcp_keepalive)(double socket, double seconds, double most);
    int (*tcp_close)(double socket); /* MG_NONE: it is closed already */
    int (*udp_connect)(const char *address, size_t len, double *ret_socket);
    int (*udp_connected)(double socket);
    int (*udp_send)(double socket, const char *at, size_t len);
    int (*udp_receive)(double socket, double most, struct mg_text *ret_text);
    int (*udp_rest)(double socket);
    int (*udp_close)(double socket); /* MG_NONE: it is closed already */
    double (*now)(void);
    int (*log_enabled)(int level);
    void (*log)(int level, const char *script, const char *at, size_t len);

    /* Sets of networks; all but cidr_find while loading. */
    void *(*cidr_new)(void);
    void (*cidr_free)(void *set);
    int (*cidr_add)(void *set, const char *at, size_t len, uint32_t value);
    int (*cidr_load)(void *set, const char *path, uint32_t value);
    int (*cidr_build)(void *set);
    double (*cidr_find)(const void *set, const char *ip, size_t len); /* the value, or MG_NONE */
    double (*cidr_count)(const void *set);
    int (*ip_network)(const char *ip, size_t len, int bits4, int bits6, struct mg_text *ret_text);
    double (*hash)(const char *at, size_t len);

    /* Shared dictionaries; times are seconds, 0: for ever. */
    void *(*dict_find)(const char *name); /* while loading */
    int (*dict_get)(void *dict, const char *key, size_t len, struct mg_value *ret_value);
    int (*dict_set)(void *dict, const char *key, size_t len, int type, double number, const char *text,
                    size_t text_len, double ttl, int when); /* MG_NONE: it is not the time */
    int (*dict_incr)(void *dict, const char *key, size_t len, double by, double initial, double ttl,
                     double *ret_number);
    int (*dict_take)(void *dict, const char *key, size_t len, double rate, double burst, double cost,
                     double *ret_wait);
    int (*dict_delete)(void *dict, const char *key, size_t len);
    int (*dict_cas)(void *dict, const char *key, size_t len, const struct mg_value *expected,
                    const struct mg_value *value, double ttl); /* MG_NONE: it was not what is expected */
    int (*dict_expire)(void *dict, const char *key, size_t len, double ttl);
    int (*dict_ttl)(void *dict, const char *key, size_t len, double *ret_seconds);
    /* Each key behind a byte with its length; *ret_more is 1 when there were more. */
    int (*dict_keys)(void *dict, const char *prefix, size_t len, uint32_t most, struct mg_text *ret_keys,
                     double *ret_more);
    int (*dict_push)(void *dict, const char *key, size_t len, int right, const struct mg_value *value,
                     double *ret_count); /* MG_NONE: the list is full */
    int (*dict_pop)(void *dict, const char *key, size_t len, int right, struct mg_value *ret_value);
    int (*dict_length)(void *dict, const char *key, size_t len, double *ret_count);
    int (*dict_flush)(void *dict);
    int (*dict_stats)(void *dict, struct mg_dict_stats *ret_stats);

    /* Metrics. Names, help and labels have a NUL behind each, and so have values. */
    int (*metric_define)(int kind, const char *names, size_t len, const double *bounds,
                         int bound_count); /* the id, or an error; while loading */
    int (*metric_series)(int id, const char *values, size_t len,
                         double **ret_words); /* MG_NONE: those of the ones that are too many */

    /* Servers of upstreams. MG_NONE: there is no such one. */
    int (*server_at)(const char *upstream, size_t len, uint32_t index, struct mg_server *ret_server);
    int (*server_set)(const char *upstream, size_t len, const char *address, size_t address_len,
                      int admin, int weight); /* -1: as it is; weight 0: as configured */

    /* Bytes and text. MG_NONE: what is to be decoded or parsed is not of that form. */
    int (*text_encode)(int how, const char *at, size_t len, struct mg_text *ret_text);
    int (*text_decode)(int how, const char *at, size_t len, struct mg_text *ret_text);
    int (*text_check)(int what, const char *at, size_t len); /* 1: it is, 0: it is not */
    int (*digest_find)(const char *name, size_t len);        /* the kind, or MG_NONE */
    int (*digest)(int kind, const char *at, size_t len, struct mg_text *ret_text);
    int (*hmac)(int kind, const char *key, size_t key_len, const char *at, size_t len,
                struct mg_text *ret_text);
    int (*siphash)(const char *key, size_t key_len, const char *at, size_t len, struct mg_text *ret_text);
    int (*equal)(const char *a, size_t a_len, const char *b, size_t b_len); /* 1 or 0 */
    /* Public keys, while loading; NULL: error_text(). key_verify: 1 or 0. */
    void *(*key_new)(const char *pem, size_t len);
    void *(*key_load)(const char *path);
    void (*key_free)(void *key);
    int (*key_verify)(const void *key, int kind, const char *at, size_t len, const char *signature,
                      size_t signature_len);
    /* Whom sockets trust, while loading; NULL: error_text(). */
    void *(*trust_new)(const char *pem, size_t len);
    void *(*trust_load)(const char *path);
    void (*trust_free)(void *trust);
    int (*random_bytes)(size_t len, struct mg_text *ret_text);
    int (*random_integer)(double limit, double *ret_number); /* 0 to limit, inclusive */
    double (*monotonic)(void);
    int (*date_print)(int how, double time, int digits, struct mg_text *ret_text);
    int (*date_parse)(int how, const char *at, size_t len, double *ret_number);
    int (*query_next)(const char *at, size_t len, uint32_t *position, struct mg_text *ret_name,
                      struct mg_text *ret_value);
    int (*cookie_next)(const char *at, size_t len, uint32_t *position, struct mg_text *ret_name,
                       struct mg_text *ret_value);
    int (*request_cookie)(double x, const char *name, size_t len, struct mg_text *ret_value);
    int (*request_proxy_tlv)(double x, int type, const char *at, size_t len);
};
/* cdef end */

extern const struct mg_api mg_api;

#endif
