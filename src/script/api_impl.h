// SPDX-License-Identifier: BSD-2-Clause
// The functions behind the table in api.c, by the file that holds them. Their contract stands in api.h, their
// scripts' side in lua/moongate.lua.
#ifndef MOONGATE_SCRIPT_API_IMPL_H
#define MOONGATE_SCRIPT_API_IMPL_H

#include "base/slice.h"
#include "script/api.h"
#include "script/hooks.h"

#include <math.h>

// api.c: keeps the text for error_text() and returns MG_ERROR.
int mg_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline void mg_text_set(struct mg_text *text, struct slice from) {
    *text = (struct mg_text){ from.at ? from.at : "", (int32_t)from.len };
}
// Any number may come from a script; 0 is no handle.
static inline uint64_t mg_handle(double handle) {
    return handle >= 1 && handle < 9007199254740992.0 ? (uint64_t)handle : 0;
}

// api_message.c
struct exchange;
bool mg_response_open(const struct exchange *x);  // its head may still be changed
// Takes the next argument of a query off *rest, still encoded.
bool mg_arg_take(struct slice *rest, struct slice *ret_name, struct slice *ret_value);
// Decodes one as browsers write forms: "+" is a space; a "%" that does not begin an escape stands for itself.
// The result is not longer than `from`.
size_t mg_arg_decode(struct slice from, char *to);
int mg_request_text(double x, int field, struct mg_text *ret_text);
int mg_request_number(double x, int field, double *ret_number);
int mg_request_set(double x, int field, const char *at, size_t len);
int mg_request_arg(double x, const char *name, size_t len, struct mg_text *ret_value);
int mg_request_arg_next(double x, uint32_t *position, struct mg_text *ret_name, struct mg_text *ret_value);
int mg_request_reading(double x, uint32_t n, struct mg_text *ret_path);
int mg_request_failure(double x, uint32_t n, struct mg_text *ret_server, struct mg_text *ret_kind,
                       struct mg_text *ret_why);
int mg_reply_begin(double x);
int mg_reply_field(double x, const char *name, size_t name_len, const char *value, size_t value_len);
int mg_reply_end(double x, int status, const char *body, size_t len);
int mg_response_status(double x);
int mg_response_set_status(double x, int status);
int mg_response_reason(double x, struct mg_text *ret_text);
int mg_response_set_reason(double x, const char *at, size_t len);

// api_body.c
int mg_body_read(double x, int whose, struct mg_text *ret_text);
int mg_body_write(double x, int whose, const char *at, size_t len);
int mg_body_pass(double x, int whose);
int mg_body_append(double x, int whose, const char *at, size_t len);
int mg_body_abort(double x, int whose, int status);
int mg_body_whole(double x, int whose, double limit, struct mg_text *ret_text);
int mg_body_replace(double x, int whose, const char *at, size_t len);

// fetch.c
int mg_fetch_new(const char *method, size_t method_len, const char *target, size_t target_len, const char *to,
                 size_t to_len, double *ret_fetch);
int mg_fetch_field(double fetch, const char *name, size_t len, const char *value, size_t value_len);
int mg_fetch_start(double fetch, const char *body, size_t len);
int mg_fetch_status(double fetch, double *ret_status);
int mg_fetch_header(double fetch, uint32_t *position, struct mg_text *ret_name, struct mg_text *ret_value);
int mg_fetch_read(double fetch, struct mg_text *ret_text);
int mg_fetch_close(double fetch);

// resolve.c
int mg_resolve_new(const char *name, size_t len, int family, int allowed, double *ret_resolution);
int mg_resolve_service(double id, uint32_t at, struct mg_service *ret_service);
int mg_resolve_result(double resolution, struct mg_resolved *ret_resolved);
int mg_resolve_address(double resolution, uint32_t at, struct mg_text *ret_ip);
int mg_resolve_close(double resolution);
// tcp.c
int mg_tcp_connect(const char *address, size_t len, const char *pool, size_t pool_len, int how, void *trust,
                   const char *tls_name, size_t tls_len, double *ret_socket);
void *mg_trust_new(const char *pem, size_t len);
void *mg_trust_load(const char *path);
void mg_trust_free(void *trust);
int mg_tcp_connected(double socket, double *ret_reused);
int mg_tcp_send(double socket, const char *at, size_t len, double *ret_taken);
int mg_tcp_receive(double socket, int how, double size, const char *pattern, size_t len, double *ret_count);
int mg_tcp_take(double socket, double count, struct mg_text *ret_text);
int mg_tcp_drop(double socket, double count);
int mg_tcp_rest(double socket);
int mg_tcp_shutdown(double socket);
int mg_tcp_keepalive(double socket, double seconds, double most);
int mg_tcp_close(double socket);

// udp.c
int mg_udp_connect(const char *address, size_t len, double *ret_socket);
int mg_udp_connected(double socket);
int mg_udp_send(double socket, const char *at, size_t len);
int mg_udp_receive(double socket, double most, struct mg_text *ret_text);
int mg_udp_rest(double socket);
int mg_udp_close(double socket);

// job.c
int mg_job_timer(double seconds, int every, double *ret_job);
int mg_job_spawn(double *ret_job);
int mg_job_cancel(double job);
int mg_task_ticket(double *ret_ticket);
int mg_task_park(double seconds);
int mg_task_unpark(double ticket);

// api_headers.c
int mg_header_id(const char *name, size_t len);
int mg_headers_get(double x, int whose, int id, const char *name, size_t len, struct mg_text *ret_value);
int mg_headers_set(double x, int whose, const char *name, size_t len, const char *value, size_t value_len);
int mg_headers_add(double x, int whose, const char *name, size_t len, const char *value, size_t value_len);
int mg_headers_remove(double x, int whose, const char *name, size_t len);
int mg_headers_next(double x, int whose, const char *name, size_t len, uint32_t *position,
                    struct mg_text *ret_name, struct mg_text *ret_value);
// Whether a script may set the field in a message of that side; mg_error() if not.
int mg_header_check(int whose, struct slice name, struct slice value);

// api_shared.c
void *mg_cidr_new(void);
void mg_cidr_free(void *set);
int mg_cidr_add(void *set, const char *at, size_t len, uint32_t value);
int mg_cidr_load(void *set, const char *path, uint32_t value);
int mg_cidr_build(void *set);
double mg_cidr_find(const void *set, const char *ip, size_t len);
double mg_cidr_count(const void *set);
int mg_ip_network(const char *ip, size_t len, int bits4, int bits6, struct mg_text *ret_text);
double mg_hash(const char *at, size_t len);
void *mg_dict_find(const char *name);
int mg_dict_get(void *dict, const char *key, size_t len, struct mg_value *ret_value);
int mg_dict_set(void *dict, const char *key, size_t len, int type, double number, const char *text,
                size_t text_len, double ttl, int when);
int mg_dict_incr(void *dict, const char *key, size_t len, double by, double initial, double ttl,
                 double *ret_number);
int mg_dict_take(void *dict, const char *key, size_t len, double rate, double burst, double cost,
                 double *ret_wait);
int mg_dict_delete(void *dict, const char *key, size_t len);
int mg_dict_cas(void *dict, const char *key, size_t len, const struct mg_value *expected,
                const struct mg_value *value, double ttl);
int mg_dict_expire(void *dict, const char *key, size_t len, double ttl);
int mg_dict_ttl(void *dict, const char *key, size_t len, double *ret_seconds);
int mg_dict_keys(void *dict, const char *prefix, size_t len, uint32_t most, struct mg_text *ret_keys,
                 double *ret_more);
int mg_dict_push(void *dict, const char *key, size_t len, int right, const struct mg_value *value,
                 double *ret_count);
int mg_dict_pop(void *dict, const char *key, size_t len, int right, struct mg_value *ret_value);
int mg_dict_length(void *dict, const char *key, size_t len, double *ret_count);
int mg_dict_flush(void *dict);
int mg_dict_stats(void *dict, struct mg_dict_stats *ret_stats);

// api_metrics.c
int mg_metric_define(int kind, const char *names, size_t len, const double *bounds, int bound_count);
int mg_metric_series(int id, const char *values, size_t len, double **ret_words);

// api_servers.c
int mg_server_at(const char *upstream, size_t len, uint32_t index, struct mg_server *ret_server);
int mg_server_set(const char *upstream, size_t len, const char *address, size_t address_len, int admin,
                  int weight);

// api_proxied.c
int mg_conn_proxy(double conn, int field, struct mg_text *ret_text);
int mg_request_proxy_tlv(double x, int type, const char *at, size_t len);
// health.c
int mg_health_declare(const char *name, size_t len);
int mg_health_result(int good, const char *why, size_t len);

// api_keys.c
void *mg_key_new(const char *pem, size_t len);
void *mg_key_load(const char *path);
void mg_key_free(void *key);
int mg_key_verify(const void *key, int kind, const char *at, size_t len, const char *signature,
                  size_t signature_len);

// api_text.c
// Room for a result, until the next call; NULL when memory is out.
char *mg_scratch(size_t len);
int mg_text_encode(int how, const char *at, size_t len, struct mg_text *ret_text);
int mg_text_decode(int how, const char *at, size_t len, struct mg_text *ret_text);
int mg_text_check(int what, const char *at, size_t len);
int mg_digest_find(const char *name, size_t len);
int mg_digest(int kind, const char *at, size_t len, struct mg_text *ret_text);
int mg_hmac(int kind, const char *key, size_t key_len, const char *at, size_t len, struct mg_text *ret_text);
int mg_siphash(const char *key, size_t key_len, const char *at, size_t len, struct mg_text *ret_text);
int mg_equal(const char *a, size_t a_len, const char *b, size_t b_len);
int mg_random_bytes(size_t len, struct mg_text *ret_text);
int mg_random_integer(double limit, double *ret_number);
double mg_monotonic(void);
int mg_date_print(int how, double time, int digits, struct mg_text *ret_text);
int mg_date_parse(int how, const char *at, size_t len, double *ret_number);
int mg_query_next(const char *at, size_t len, uint32_t *position, struct mg_text *ret_name,
                  struct mg_text *ret_value);
int mg_cookie_next(const char *at, size_t len, uint32_t *position, struct mg_text *ret_name,
                   struct mg_text *ret_value);
int mg_request_cookie(double x, const char *name, size_t len, struct mg_text *ret_value);

#endif
