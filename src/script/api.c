// SPDX-License-Identifier: BSD-2-Clause
// The table of the C API (api.h), and its small parts: connections, waiting, time, logs. Messages, headers
// and what is shared stand in the api_*.c beside it.
#include "script/api.h"

#include "base/addr.h"
#include "base/clock.h"
#include "base/handle.h"
#include "base/log.h"
#include "proxy/divert.h"
#include "script/api_impl.h"
#include "script/host.h"
#include "tls/stream.h"

#include <stdarg.h>
#include <stdio.h>

static char error_buffer[2048];

int mg_error(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(error_buffer, sizeof error_buffer, format, args);
    va_end(args);
    return MG_ERROR;
}

static const char *mg_error_text(void) {
    return error_buffer;
}

// ---- connections ------------------------------------------------------------------------------------------

static int mg_request_conn(double handle, double *ret_conn) {
    struct exchange *x = handle_get(HANDLE_EXCHANGE, mg_handle(handle));
    if (!x)
        return MG_STALE;
    struct conn *conn = x->down && x->down->conn ? x->down->conn(x) : NULL;
    if (!conn)
        return MG_STALE;
    struct exchange_record *record = exchange_record_of(x);
    if (!conn_record_of(record->task.chain->host, conn))
        return mg_error("memory is out");
    *ret_conn = (double)conn->handle;
    return MG_OK;
}

static int mg_conn_text(double handle, int field, struct mg_text *ret_text) {
    static char text[ADDR_IP_MAX];
    struct conn *conn = handle_get(HANDLE_CONN, mg_handle(handle));
    if (!conn)
        return MG_STALE;
    size_t len = addr_print_ip(field == MG_CONN_REMOTE_IP ? conn_remote(conn) : conn_local(conn), text);
    mg_text_set(ret_text, slice_make(text, len));
    return MG_OK;
}

static double wall_now(void) {
    return (double)clock_wall_us_now() / 1e6;
}

static int mg_conn_number(double handle, int field, double *ret_number) {
    struct conn *conn = handle_get(HANDLE_CONN, mg_handle(handle));
    if (!conn)
        return MG_STALE;
    switch (field) {
    case MG_CONN_ID:
        *ret_number = (double)conn->id;
        break;
    case MG_CONN_REMOTE_PORT:
        *ret_number = addr_port(conn_remote(conn));
        break;
    case MG_CONN_LOCAL_PORT:
        *ret_number = addr_port(conn_local(conn));
        break;
    case MG_CONN_STARTED:
        *ret_number = wall_now() - ((double)clock_us_now() - (double)conn->started_us) / 1e6;
        break;
    case MG_CONN_BYTES_IN:
        *ret_number = (double)conn->bytes_in;
        break;
    default:
        *ret_number = (double)conn->bytes_out;
    }
    return MG_OK;
}

static int mg_conn_reject(double handle) {
    struct conn *conn = handle_get(HANDLE_CONN, mg_handle(handle));
    if (!conn)
        return MG_STALE;
    if (!task_running || !task_running->conn || task_running->conn->conn != conn)
        return mg_error("reject() is for the hooks of the connection alone: answer a request with req:respond(...)");
    task_running->conn->rejected = true;
    return MG_OK;
}

_Static_assert(MG_TLS_FIELD_COUNT == (int)TLS_FIELD_COUNT && MG_TLS_CLIENT_NOT_AFTER == (int)TLS_client_not_after &&
                   MG_TLS_FINGERPRINT == (int)TLS_fingerprint,
               "fields of TLS connections have the order of tls/stream.h");

static int mg_conn_tls(double handle, int field, struct mg_text *ret_text) {
    struct conn *conn = handle_get(HANDLE_CONN, mg_handle(handle));
    if (!conn)
        return MG_STALE;
    if (!tls_on(conn))
        return MG_NONE;
    if (field < 0 || field >= MG_TLS_FIELD_COUNT)
        return MG_OK;
    struct slice text = tls_field(conn, (enum tls_field)field);
    if (text.len == 0)
        return MG_NONE;
    mg_text_set(ret_text, text);
    return MG_OK;
}

// The conn whose tls_hello hook runs.
static int greeted(double handle, const char *call, struct conn **ret_conn) {
    struct conn *conn = *ret_conn = handle_get(HANDLE_CONN, mg_handle(handle));
    if (!conn)
        return MG_STALE;
    if (!task_running || !task_running->conn || task_running->conn->conn != conn ||
        task_running->hook != HOOK_tls_hello)
        return mg_error("%s is for the tls_hello hook alone", call);
    return MG_OK;
}

static int mg_conn_certificate(double handle, const char *name, size_t len) {
    struct conn *conn;
    int rc = greeted(handle, "certificate()", &conn);
    if (rc != MG_OK)
        return rc;
    if (tls_choose(conn, slice_make(name, len)) < 0)
        return mg_error("the listener has no certificate of \"%.*s\"", (int)(len > 255 ? 255 : len), name);
    task_running->conn->answered = true;
    return MG_OK;
}

static int mg_conn_tunnel(double handle, const char *address, size_t len) {
    struct conn *conn;
    struct error error;
    int rc = greeted(handle, "tunnel()", &conn);
    if (rc != MG_OK)
        return rc;
    if (divert_check(slice_make(address, len), &error) < 0)
        return mg_error("%s", error.text);
    if (tls_set_diversion(conn, slice_make(address, len)) < 0)
        return mg_error("memory is out");
    task_running->conn->answered = true;
    return MG_OK;
}

// ---- waiting, time, logs ----------------------------------------------------------------------------------

static int mg_sleep(double seconds) {
    if (!task_running)
        return mg_error("gate.sleep is for hooks: a script must not wait while it loads");
    if (!(seconds >= 0 && seconds <= 1e6))
        return mg_error("gate.sleep takes 0 to 1000000 seconds");
    task_running->wait = WAIT_TIME;
    task_running->sleep_ms = (uint64_t)(seconds * 1000 + 0.999);
    return MG_OK;
}

static int mg_log_enabled(int level) {
    return level >= 0 && level < LOG_LEVEL_COUNT && log_enabled((enum log_level)level);
}

static void mg_log(int level, const char *script, const char *at, size_t len) {
    if (!mg_log_enabled(level))
        return;
    int shown = len > 3000 ? 3000 : (int)len;
    if (task_running && task_running->x)
        log_write((enum log_level)level, "%s: %.*s, request %s", script, shown, at,
                  exchange_id(task_running->x));
    else
        log_write((enum log_level)level, "%s: %.*s", script, shown, at);
}

const struct mg_api mg_api = {
    .abi = MG_ABI,
    .size = sizeof(struct mg_api),
    .error_text = mg_error_text,
    .request_text = mg_request_text,
    .request_number = mg_request_number,
    .request_set = mg_request_set,
    .request_arg = mg_request_arg,
    .request_arg_next = mg_request_arg_next,
    .request_failure = mg_request_failure,
    .request_reading = mg_request_reading,
    .request_conn = mg_request_conn,
    .reply_begin = mg_reply_begin,
    .reply_field = mg_reply_field,
    .reply_end = mg_reply_end,
    .response_status = mg_response_status,
    .response_set_status = mg_response_set_status,
    .response_reason = mg_response_reason,
    .response_set_reason = mg_response_set_reason,
    .body_read = mg_body_read,
    .body_write = mg_body_write,
    .body_pass = mg_body_pass,
    .body_append = mg_body_append,
    .body_abort = mg_body_abort,
    .body_whole = mg_body_whole,
    .body_replace = mg_body_replace,
    .header_id = mg_header_id,
    .headers_get = mg_headers_get,
    .headers_set = mg_headers_set,
    .headers_add = mg_headers_add,
    .headers_remove = mg_headers_remove,
    .headers_next = mg_headers_next,
    .conn_text = mg_conn_text,
    .conn_number = mg_conn_number,
    .conn_reject = mg_conn_reject,
    .conn_tls = mg_conn_tls,
    .conn_proxy = mg_conn_proxy,
    .request_proxy_tlv = mg_request_proxy_tlv,
    .conn_certificate = mg_conn_certificate,
    .conn_tunnel = mg_conn_tunnel,
    .sleep = mg_sleep,
    .job_timer = mg_job_timer,
    .job_spawn = mg_job_spawn,
    .job_cancel = mg_job_cancel,
    .health_declare = mg_health_declare,
    .health_result = mg_health_result,
    .task_ticket = mg_task_ticket,
    .task_park = mg_task_park,
    .task_unpark = mg_task_unpark,
    .fetch_new = mg_fetch_new,
    .fetch_field = mg_fetch_field,
    .fetch_start = mg_fetch_start,
    .fetch_status = mg_fetch_status,
    .fetch_header = mg_fetch_header,
    .fetch_read = mg_fetch_read,
    .fetch_close = mg_fetch_close,
    .resolve_new = mg_resolve_new,
    .resolve_service = mg_resolve_service,
    .resolve_result = mg_resolve_result,
    .resolve_address = mg_resolve_address,
    .resolve_close = mg_resolve_close,
    .tcp_connect = mg_tcp_connect,
    .tcp_connected = mg_tcp_connected,
    .tcp_send = mg_tcp_send,
    .tcp_receive = mg_tcp_receive,
    .tcp_take = mg_tcp_take,
    .tcp_drop = mg_tcp_drop,
    .tcp_rest = mg_tcp_rest,
    .tcp_shutdown = mg_tcp_shutdown,
    .tcp_keepalive = mg_tcp_keepalive,
    .tcp_close = mg_tcp_close,
    .udp_connect = mg_udp_connect,
    .udp_connected = mg_udp_connected,
    .udp_send = mg_udp_send,
    .udp_receive = mg_udp_receive,
    .udp_rest = mg_udp_rest,
    .udp_close = mg_udp_close,
    .now = wall_now,
    .log_enabled = mg_log_enabled,
    .log = mg_log,
    .cidr_new = mg_cidr_new,
    .cidr_free = mg_cidr_free,
    .cidr_add = mg_cidr_add,
    .cidr_load = mg_cidr_load,
    .cidr_build = mg_cidr_build,
    .cidr_find = mg_cidr_find,
    .cidr_count = mg_cidr_count,
    .ip_network = mg_ip_network,
    .hash = mg_hash,
    .dict_find = mg_dict_find,
    .dict_get = mg_dict_get,
    .dict_set = mg_dict_set,
    .dict_incr = mg_dict_incr,
    .dict_take = mg_dict_take,
    .dict_delete = mg_dict_delete,
    .dict_cas = mg_dict_cas,
    .dict_expire = mg_dict_expire,
    .dict_ttl = mg_dict_ttl,
    .dict_keys = mg_dict_keys,
    .dict_push = mg_dict_push,
    .dict_pop = mg_dict_pop,
    .dict_length = mg_dict_length,
    .dict_flush = mg_dict_flush,
    .dict_stats = mg_dict_stats,
    .metric_define = mg_metric_define,
    .metric_series = mg_metric_series,
    .server_at = mg_server_at,
    .server_set = mg_server_set,
    .text_encode = mg_text_encode,
    .text_decode = mg_text_decode,
    .text_check = mg_text_check,
    .digest_find = mg_digest_find,
    .digest = mg_digest,
    .hmac = mg_hmac,
    .siphash = mg_siphash,
    .equal = mg_equal,
    .key_new = mg_key_new,
    .key_load = mg_key_load,
    .key_free = mg_key_free,
    .key_verify = mg_key_verify,
    .trust_new = mg_trust_new,
    .trust_load = mg_trust_load,
    .trust_free = mg_trust_free,
    .random_bytes = mg_random_bytes,
    .random_integer = mg_random_integer,
    .monotonic = mg_monotonic,
    .date_print = mg_date_print,
    .date_parse = mg_date_parse,
    .query_next = mg_query_next,
    .cookie_next = mg_cookie_next,
    .request_cookie = mg_request_cookie,
};
