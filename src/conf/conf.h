// SPDX-License-Identifier: BSD-2-Clause
// The configuration as typed structs: what the rest of moongate reads. conf_load() fills it; it is immutable
// then.
//
// Glossary
//   directive  one `name arguments;` or `name arguments { ... }`; all of them stand in conf/directives.h
//   scope      the block in which a directive may stand: top, upstream, frontend, route
//   settings   the directives that top, frontend and route share: a route inherits from its frontend, that
//              from the top
//   source     the set of file texts a configuration is made of (conf/source.h)
//
// To add a directive, start here: a field in one of the structs below, a row in conf/directives.h. Parsing,
// inheritance, -T, --defaults and the manual follow from the row.
#ifndef MOONGATE_CONF_CONF_H
#define MOONGATE_CONF_CONF_H

#include "base/addr.h"
#include "base/arena.h"
#include "base/error.h"
#include "base/log.h"
#include "base/slice.h"

struct source;
struct conf_file;

// Where a directive or an argument stands. `file` lives as long as the configuration.
struct conf_place {
    const char *file;
    int line, column;
};

enum conf_script_error { SCRIPT_ERROR_FAIL, SCRIPT_ERROR_PASS };
enum conf_x_forwarded { X_FORWARDED_OFF, X_FORWARDED_APPEND, X_FORWARDED_REPLACE };
enum conf_balance { BALANCE_ROUND_ROBIN, BALANCE_LEAST_CONN, BALANCE_RANDOM2, BALANCE_HASH };
// What `balance hash` looks at.
enum conf_hash { HASH_CLIENT, HASH_HEADER, HASH_COOKIE, HASH_PATH, HASH_URI, HASH_KEY };
enum conf_retry { RETRY_CONNECT = 1, RETRY_STALE = 2, RETRY_IDEMPOTENT = 4, RETRY_TIMEOUT = 8, RETRY_REFUSED = 16 };
// PROTOCOL_OTHER: what scripts speak over sockets of theirs; nothing is offered by ALPN.
enum conf_protocol { PROTOCOL_AUTO, PROTOCOL_HTTP1, PROTOCOL_H2, PROTOCOL_OTHER };
enum conf_connections_full { CONNECTIONS_FULL_SHED, CONNECTIONS_FULL_WAIT, CONNECTIONS_FULL_REFUSE };
enum conf_log_style { LOG_STYLE_COMBINED, LOG_STYLE_JSON, LOG_STYLE_FORMAT };
enum conf_log_target { LOG_TARGET_STDERR, LOG_TARGET_SYSLOG, LOG_TARGET_FILE };

// `body_min_rate`, `send_min_rate`
struct conf_rate {
    uint64_t bytes;               // a second, 0: any
    uint64_t grace;               // averaged over so long
};

// `resolver...`: how names become addresses.
struct conf_resolver {
    struct addr *servers;         // NULL: as /etc/hosts and /etc/resolv.conf say
    unsigned server_count;
    uint64_t timeout;             // of a name, all tries together
    uint64_t tries;               // of each server
    uint64_t min_ttl, max_ttl;    // what an answer holds at least, at most
    uint64_t negative_ttl;        // that there is none
    uint64_t stale;               // how long beyond its time an answer is used while resolvers fail
    uint64_t cache;               // names kept
    uint64_t queries;             // names asked for at the same time
};

// `route_allow`: which addresses names that scripts give may stand for; `proxy_protocol_from`: which peers are believed.
struct conf_network {
    uint8_t key[16];              // addr_key()
    unsigned bits;                // of the key
};
struct conf_allow {
    bool any, public;
    struct conf_network *networks;
    unsigned count;
};

// HTTP/2 towards clients, for each connection. The max_ of floods count what comes within ten seconds.
struct conf_http2 {
    uint64_t max_streams;         // at the same time
    uint64_t stream_window;       // bytes of a request body ahead of what was taken on
    uint64_t connection_window;   // of all request bodies together
    uint64_t output_buffer;       // bytes of responses that wait before further requests do
    uint64_t header_table;        // bytes of each table of fields (RFC 7541)
    uint64_t max_continuations;   // frames of one head, behind its first
    uint64_t max_resets, max_errors, max_empty_frames, max_pings, max_settings, max_window_updates;
    uint64_t max_priorities;
    bool on;                      // where no TLS says what the client wants
};

// All times are milliseconds, all sizes bytes.
struct conf_settings {
    uint64_t header_timeout;      // the whole request head, from its first byte (the first one: from accept)
    uint64_t tls_handshake_timeout;
    uint64_t body_timeout;        // between two reads of a request body
    struct conf_rate body_min_rate;
    uint64_t send_timeout;        // a client that takes nothing of what waits for it
    struct conf_rate send_min_rate;
    uint64_t keepalive_timeout;   // an idle client connection
    uint64_t tunnel_timeout;      // a relay with no byte in either direction
    uint64_t linger_timeout;      // how long to read on after a final response, so that the client gets it
    uint64_t linger_max;          // bytes to read on at most, 0: no limit
    uint64_t notsent_lowat;       // bytes that the kernel takes beyond what it may send a client, 0: its default
    uint64_t connections_per_client;  // for each worker, 0: no limit
    uint64_t keepalive_requests;  // requests of one client connection, 0: no limit
    uint64_t max_head;            // bytes of a request head
    uint64_t max_headers;         // fields of a request head
    uint64_t max_uri;             // bytes of a request target
    uint64_t max_line;            // bytes of the line of one field
    uint64_t max_chunk_overhead;  // bytes of chunk framing beyond the content, 0: no limit
    uint64_t max_body;            // bytes of a request body, 0: no limit
    uint64_t max_pipelined;       // unparsed bytes of a client connection at which reading stops
    uint64_t buffer_high;         // bytes queued for one side at which reading the other side stops
    uint64_t buffer_low;          // and at which it goes on
    struct conf_http2 http2;
    bool half_close;              // a client that has ended its side still gets its response
    bool forwarded;               // add a Forwarded field (RFC 7239)
    enum conf_x_forwarded x_forwarded;
    const char *methods;          // that are let in, "GET, HEAD"; NULL: all but TRACE and TRACK
    const char *via;              // the name that moongate gives itself in Via fields, NULL: none are added
    enum conf_script_error on_script_error;
    uint64_t script_time_limit;   // of a hook from its start on, 0: no limit
    uint64_t script_body_limit;   // bytes of a body that a hook may ask for as a whole
    const struct conf_allow *route_allow;
    struct conf_access_log *access_log;  // NULL: off
};

struct conf_access_log {
    const char *path;             // absolute, or "stderr"
    enum conf_log_style style;
    struct conf_log_format *format;  // with LOG_STYLE_FORMAT
    struct conf_place place;
};

struct conf_log_format {
    struct conf_log_format *next;
    const char *name;
    const char *text;             // with $variables; checked by the access log's compiler
    struct conf_place place;
};

// `sticky cookie`
struct conf_sticky {
    struct slice name;            // of the cookie
    uint64_t ttl;                 // its Max-Age, 0: until the browser ends
    bool secure, httponly;
    const char *samesite, *path, *domain;  // as they are written in the field; NULL: none
    const char *key;              // what servers are disguised with; NULL: the master's
    struct conf_place place;
};

// What a `server` line names.
enum conf_server_kind { SERVER_ADDRESS, SERVER_NAME, SERVER_SERVICE };

struct conf_server {
    struct conf_server *next;
    enum conf_server_kind kind;
    struct addr addr;             // of SERVER_ADDRESS
    uint16_t port;                // of SERVER_NAME, for all addresses of `host`
    const char *name;             // as written
    struct slice host;            // that its certificate must have; at NULL: what `name` says
    uint64_t weight;              // 1 to 256
    bool backup;                  // asked when none of the others may be
    struct conf_place place;
};

// `health`: how servers are checked.
enum conf_health_kind { HEALTH_TCP, HEALTH_TLS, HEALTH_H2, HEALTH_HTTP, HEALTH_SCRIPT };
enum { CONF_STATUS_RANGES = 8, CONF_HEALTH_TEXT_MAX = 255 };
struct conf_status_range {
    uint16_t low, high;           // inclusive
};
struct conf_health {
    enum conf_health_kind kind;
    const char *method, *path;    // of HTTP, with the following
    const char *host;             // NULL: the server's name
    const char *body;             // that the response must contain; NULL: any
    struct conf_status_range status[CONF_STATUS_RANGES];
    unsigned status_count;
    const char *function;         // of scripts, by its name; NULL: none
    struct conf_place function_place;
    uint64_t every, timeout, jitter;
    uint64_t rise, fall;          // checks in a row
    bool start_down;              // one that was not checked yet is down
    struct conf_place place;
};

// `eject`: when requests are kept from a server that fails them. 0: not for that.
struct conf_eject {
    uint64_t connect;             // connections in a row that could not be made
    uint64_t consecutive;         // requests in a row without an answer
    uint64_t errors;              // responses in a row with 500 or more
    uint64_t rate;                // percent of responses with 500 or more
    uint64_t latency;             // times what the others take
    uint64_t window, requests;    // over which and of how many at least both are
    uint64_t time, most;          // for how long: the first time, at most
    uint64_t max_ejected;         // percent of the servers
};

// `retry_budget`: how many requests may be sent again, as a share of all.
struct conf_budget {
    bool on;
    uint64_t percent;
    uint64_t min;                 // and so many a second in any case
};

// How connections to servers are made.
struct conf_connecting {
    struct addr from4, from6;     // our own address, without a port; no address: the system's choice
    const char *from_interface;   // NULL: none
    bool fast_open;
    bool tcp_keepalive;
    uint64_t tcp_keepalive_idle, tcp_keepalive_interval, tcp_keepalive_count;  // 0: the system's
    uint64_t tcp_user_timeout;    // 0: the system's
};

enum conf_proxy_version { PROXY_VERSION_NONE, PROXY_VERSION_1, PROXY_VERSION_2 };
// What a header of version 2 says beside the addresses: bits.
enum conf_proxy_says {
    PROXY_SAYS_AUTHORITY = 1,
    PROXY_SAYS_ALPN = 2,
    PROXY_SAYS_TLS = 4,
    PROXY_SAYS_UNIQUE_ID = 8,
    PROXY_SAYS_CHECKSUM = 16,
};

struct conf_upstream {
    struct conf_upstream *next;
    const char *name;
    struct conf_server *servers;  // at least one
    unsigned server_count;
    enum conf_balance balance;
    enum conf_hash hash;          // with BALANCE_HASH
    const char *hash_name;        // of the header or cookie
    uint64_t hash_load;           // percent of its share that a server may have under way, 0: no limit
    struct conf_sticky *sticky;   // NULL: none
    uint64_t panic;               // percent of a level's servers: with fewer all of them are asked
    uint64_t slow_start;          // until a server that has come back has its whole weight
    enum conf_protocol protocol;
    struct conf_tls *tls;         // NULL: none
    uint64_t http2_connections;   // of one server, for each worker
    uint64_t http2_streams;       // requests under way on one of them
    uint64_t http2_window;        // bytes of a response that a server may send beyond what was passed on
    uint64_t http2_ping;          // silence after which a server is asked with PING, 0: never
    uint64_t keepalive;           // idle connections kept for each worker, 0: none
    uint64_t keepalive_idle;      // how long
    uint64_t keepalive_warm;      // of each server as many are kept ready, before they are needed
    struct conf_connecting connecting;
    enum conf_proxy_version proxy_protocol;
    unsigned proxy_says;          // bits of conf_proxy_says
    uint64_t connect_timeout;     // for one connection to be made, with those beside it
    uint64_t connect_stagger;     // until one more is begun beside it, 0: never
    uint64_t response_timeout;    // from the end of the request head sent to the response head
    uint64_t try_timeout;         // the same, while the request may be sent once more; 0: no other
    uint64_t read_timeout;        // between two reads of a response body
    uint64_t write_timeout;       // between two successful writes of a request
    uint64_t max_response_head;   // bytes of a response head
    uint64_t max_response_headers;
    unsigned retry;               // bits of conf_retry
    uint64_t tries;               // attempts for one exchange before it is answered 502 or 504
    uint64_t retry_timeout;       // from the first attempt to the begin of the last, 0: no limit
    uint64_t hedge;               // when a second server is asked, from the end of the request sent, 0: never
    uint64_t retry_body;          // bytes of a request body held for another attempt
    uint64_t max_active;          // exchanges and tunnels of a server at the same time, 0: no limit
    uint64_t queue;               // exchanges that may wait for a free server
    uint64_t queue_timeout;       // and for how long
    struct conf_eject eject;
    struct conf_budget retry_budget;
    struct conf_health *health;   // NULL: servers are not checked
    bool used;
    struct conf_place place;
};

// A certificate chain with its key, as PEM texts; both may be in one file.
struct conf_certificate {
    struct conf_certificate *next;
    const char *path, *key_path, *staple_path;
    struct slice text, key, staple;  // kept by the configuration
    struct conf_place place, key_place, staple_place;
};

// A file that a tls block names, beside its certificates.
struct conf_file_text {
    struct conf_file_text *next;
    const char *path;
    struct slice text;            // kept by the configuration
    struct conf_place place;
};

enum conf_verify_client { VERIFY_CLIENT_OFF, VERIFY_CLIENT_OPTIONAL, VERIFY_CLIENT_REQUIRED };
enum conf_stapling { STAPLING_OFF, STAPLING_AUTO, STAPLING_ON };
// `pin`: the SHA-256 of a public key (RFC 7469, 2.4)
struct conf_pin {
    struct conf_pin *next;
    unsigned char digest[32];
};

enum conf_tls_version { TLS_VERSION_1_2 = 1, TLS_VERSION_1_3 = 2 };

// What a `tls` block says: of a listener, or of an upstream.
struct conf_tls {
    struct conf_certificate *certificates;  // in order; of a listener at least one, the first is the default
    const char *alpn;             // protocols in order of preference, a space between them
    unsigned versions;            // bits of conf_tls_version
    const char *ciphers;          // of TLS 1.2, ':' between them
    const char *ciphersuites;     // of TLS 1.3
    const char *groups;
    enum conf_verify_client verify_client;
    struct conf_file_text *client_ca, *client_crl;
    enum conf_stapling stapling;
    const char *stapling_responder;  // a URL of http; NULL: what each certificate says
    bool session_tickets;
    bool early_data;
    uint64_t session_timeout;
    struct conf_file_text *ticket_keys;  // the first encrypts; none: the master's
    const char *key_log;          // NULL: none
    bool strict_names;            // a name that no certificate has ends the handshake
    bool verify;                  // an upstream: the server's certificate
    const char *ca;               // file of those who sign; NULL: the system's
    const char *crl;              // file of what they revoked; NULL: none
    struct slice ca_text, crl_text;
    const char *name;             // that the server's certificate must have; NULL: what the server is called
    struct conf_pin *pins;        // of which its key, or a signer's, must have one; NULL: any
    struct conf_place ca_place, crl_place;
    struct conf_place place, alpn_place, ciphers_place, ciphersuites_place, groups_place;
};

struct conf_listen {
    struct conf_listen *next;
    struct addr addr;
    const char *name;             // canonical text of the address: listeners are told apart by it
    uint64_t backlog;
    bool proxy_protocol;          // connections begin with a PROXY header
    struct conf_tls *tls;         // NULL: none
    struct conf_place place;
};

// `script FILE key=value ...;`
struct conf_script_setting {
    struct conf_script_setting *next;
    const char *key, *value;
};
struct conf_script {
    struct conf_script *next;
    const char *name;             // as written
    const char *path;             // where it was found
    struct slice text;            // its source, kept by the configuration
    struct conf_script_setting *settings;
    struct conf_place place;
};

struct conf_route {
    struct conf_route *next;
    const char *prefix;           // begins with '/'; longest first in the list
    struct conf_upstream *upstream;
    struct conf_settings settings;  // all inherited values filled in
    struct conf_place place;
};

struct conf_frontend {
    struct conf_frontend *next;
    const char *name;
    struct conf_listen *listens;  // at least one
    const struct conf_allow *proxy_protocol_from;  // whose headers are believed
    struct conf_script *scripts;  // in order
    struct conf_route *routes;    // longest prefix first
    struct conf_settings settings;
    struct conf_place place;
};

struct conf_shared {
    struct conf_shared *next;
    const char *name;
    uint64_t size;
    struct conf_place place;
};

struct conf_path {
    struct conf_path *next;
    const char *path;
};

struct conf {
    struct arena arena;           // everything below lives in it
    const char *file;             // the main file, absolute
    struct conf_file *files;      // the texts it was read from, for errors (conf/lexer.h)

    uint64_t workers;             // 0: one per core
    const char *user, *group;     // NULL group: the user's own
    const char *control;          // path of the control socket
    const char *pid_file;
    enum conf_log_target error_log;
    const char *error_log_path;   // with LOG_TARGET_FILE
    enum log_level error_level;
    uint64_t watchdog;            // 0: off
    uint64_t connections;         // client connections for each worker
    enum conf_connections_full connections_full;
    uint64_t tls_handshakes;      // under way at the same time for each worker
    uint64_t upstream_servers;    // addresses whose standing the workers share
    uint64_t session_cache;       // bytes of TLS sessions without a ticket, 0: none are kept
    uint64_t ticket_rotation;     // of the master's keys of session tickets
    uint64_t memory_limit;        // resident bytes for each worker, 0: no limit
    uint64_t receive_buffers;     // bytes of receive buffers for each worker
    uint64_t drain_timeout;       // graceful stop, and connections of a removed listener
    uint64_t reload_timeout;      // for all workers to load a new configuration
    bool script_unsafe;
    bool script_safe;             // endless code is stopped, at the price of compilation
    uint64_t script_run_limit;    // with it: how long code may run without a wait
    uint64_t script_memory_limit; // of one Lua state, 0: none
    struct conf_resolver resolver;
    uint64_t script_sockets;      // of scripts for each worker, idle ones included
    uint64_t script_sockets_each; // of one request, connection, timer or task
    uint64_t script_sockets_idle; // pooled, for each worker
    struct conf_path *scripts;    // folders where `script` and require look, in order; ours come last
    struct conf_shared *shared;
    struct conf_log_format *log_formats;
    struct conf_settings settings;

    struct conf_upstream *upstreams;
    struct conf_upstream of_address;  // the defaults: for addresses that scripts name
    struct conf_tls of_address_tls;   // and for those with https://
    const char *fetch_ca;         // file of those who sign for these; NULL: the system's
    struct conf_place fetch_ca_place;
    struct conf_frontend *frontends;
};

// Reads, parses and checks `path` through `source` (which reads from the disk, or from the texts a master
// gathered). Script files are found and their texts taken, not compiled. On an error: negative errno, and a
// text of the form
//   file:line:column: what is wrong, what was expected
// followed on the next lines by the line itself and a caret. -EINVAL for a bad configuration, else the file's
// error.
int conf_load(const char *path, struct source *source, struct conf **ret_conf, struct error *error)
    __attribute__((warn_unused_result));
void conf_free(struct conf *conf);

// script_sockets; 0 where there are no scripts.
uint64_t conf_script_sockets(const struct conf *conf);

// For layers that check an argument further: prints "file:line:column: ..." with the line, as conf_load does.
int conf_error(const struct conf *conf, struct conf_place place, struct error *error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

// Whether the settings that only a restart or an upgrade changes are the same in both; if not, the first that
// differs is named in *error and -EINVAL returned.
int conf_check_reloadable(const struct conf *old, const struct conf *new, struct error *error);

#endif
