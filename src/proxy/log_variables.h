// SPDX-License-Identifier: BSD-2-Clause
// The variables of access log formats. To add one: a row in LOG_VARIABLES and a function put_NAME in
// log_variables.c that calls exactly one of line_text(), line_safe(), line_number(), line_seconds(),
// line_flag(), line_absent(), or opens and closes a value of several parts. The manual prints this list.
#ifndef MOONGATE_PROXY_LOG_VARIABLES_H
#define MOONGATE_PROXY_LOG_VARIABLES_H

#include "proxy/log_line.h"

//  X(name, documentation). Names that end in _NAME stand for a family: any field's name in place of NAME.
// clang-format off
#define LOG_VARIABLES(X) \
    X(remote_addr, "the client's IP address, \"unix\" for a unix socket") \
    X(proxy_addr, "the IP address of the proxy in front that has said so (listen ... proxy_protocol)") \
    X(remote_port, "the client's port") \
    X(remote_user, "the user name of HTTP basic authentication (RFC 7617), checked or not") \
    X(local_addr, "the address that the client connected to") \
    X(local_port, "the port that the client connected to") \
    X(connection, "the client connection's number, unique in the worker's life") \
    X(request_id, "the request id that error responses and the error log show") \
    X(time_local, "when the line was written, local time: 23/Nov/2026:13:05:00 +0100") \
    X(time_iso8601, "when the line was written, local time: 2026-11-23T13:05:00+01:00") \
    X(msec, "when the line was written, in seconds since 1970 with milliseconds") \
    X(request, "the request line: method, target and protocol") \
    X(method, "the request's method") \
    X(target, "the request's target as the client sent it") \
    X(path, "the normalised path without the query") \
    X(query, "the query without its question mark") \
    X(host, "the host that was asked for, with its port if one was given") \
    X(scheme, "http or https") \
    X(tls_version, "the version of TLS: TLSv1.2, TLSv1.3") \
    X(tls_cipher, "the cipher suite, as OpenSSL names it") \
    X(tls_group, "the group of the TLS key exchange") \
    X(tls_server_name, "the name that the client asked for in the TLS handshake (SNI)") \
    X(tls_alpn, "the protocol that ALPN chose") \
    X(tls_resumed, "yes when the connection resumed an earlier TLS session, no when not") \
    X(tls_fingerprint, "a fingerprint of the client's TLS hello, in the manner of JA4") \
    X(tls_client_subject, "the subject of the client's certificate, as RFC 2253 writes it") \
    X(tls_client_issuer, "who signed the client's certificate") \
    X(tls_client_serial, "the serial number of the client's certificate, in hexadecimal digits") \
    X(tls_client_fingerprint, "the SHA-256 digest of the client's certificate, likewise") \
    X(tls_client_names, "the DNS names, mail addresses and URIs of the client's certificate") \
    X(protocol, "the request's protocol: HTTP/1.1") \
    X(status, "the response's status; absent when no response was begun") \
    X(reason, "the response's reason phrase") \
    X(bytes_sent, "bytes of the response body sent to the client") \
    X(bytes_received, "bytes of the request body received from the client") \
    X(request_header_NAME, "a field of the request, underscores for dashes; repeated ones joined by commas") \
    X(response_header_NAME, "a field of the response, likewise") \
    X(upstream_addr, "the server that was asked last, as the configuration names it") \
    X(upstream_name, "the upstream that the request was routed to") \
    X(upstream_attempts, "how many times a server was asked") \
    X(upstream_hedged, "won when a second server was asked as well (hedge) and its answer taken, lost when it was not") \
    X(upstream_reused, "yes when the last attempt used a pooled connection, no when it was a new one") \
    X(upstream_connect_time, "seconds from the complete request head to the connection to the server") \
    X(upstream_header_time, "seconds from then until the response head was complete") \
    X(upstream_time, "seconds from the connection to the server to the exchange's end") \
    X(receive_time, "seconds from the first byte of the request head to its last") \
    X(first_byte_time, "seconds from the first byte of the request to that of the response") \
    X(total_time, "seconds from the first byte of the request to the exchange's end") \
    X(termination, "why the exchange ended, none when as it should") \
    X(frontend, "the frontend's name") \
    X(worker, "the worker's number") \
    X(pid, "the worker's process id")
// clang-format on

struct log_variable {
    struct slice name;
    void (*put)(struct log_line *line);
    const char *doc;
};

enum {
#define X(variable, doc) +1
    LOG_VARIABLE_COUNT = LOG_VARIABLES(X)
#undef X
};
extern const struct log_variable log_variables[LOG_VARIABLE_COUNT];

// To be called before a line: takes the time that its variables show from the cached clock.
void log_variables_tick(void);

#endif
