// SPDX-License-Identifier: BSD-2-Clause
// The counters of one worker, in the master's shared memory: written by that worker alone, read by the master
// for `moongatectl show stats`. Plain 64-bit adds; a reader may see them a moment old.
//
// To add a counter: a row here, counters->NAME++ where it happens.
#ifndef MOONGATE_BASE_COUNTERS_H
#define MOONGATE_BASE_COUNTERS_H

#include <stdint.h>

//  X(name, documentation)
#define COUNTERS(X) \
    X(connections_accepted, "client connections accepted") \
    X(connections_active, "client connections open now") \
    X(proxy_headers, "connections that began with a PROXY header (proxy_protocol)") \
    X(proxy_header_errors, "connections closed because they began with none or a bad one") \
    X(proxy_headers_denied, "connections closed because proxy_protocol_from does not name the peer") \
    X(connections_rejected, "client connections closed by a connect hook") \
    X(connections_limited, "times that accepting paused at a limit of connections, descriptors or memory") \
    X(connections_shed, "idle client connections closed to make room for others") \
    X(connections_refused, "client connections refused at the limit of connections") \
    X(clients_limited, "client connections refused by connections_per_client") \
    X(tls_handshakes, "TLS handshakes with clients that were completed") \
    X(tls_resumed, "of these: an earlier session was resumed") \
    X(tls_handshake_errors, "TLS handshakes with clients that failed") \
    X(tls_handshake_timeouts, "TLS handshakes that took longer than tls_handshake_timeout") \
    X(tls_handshakes_shed, "TLS handshakes that were ended at the limit of tls_handshakes, for newer ones") \
    X(tls_handshakes_active, "TLS handshakes with clients under way now") \
    X(tls_sessions_kept, "TLS sessions without a ticket that were put into session_cache") \
    X(staples_fetched, "OCSP responses that were asked for and taken (stapling)") \
    X(staple_errors, "times that one was asked for in vain") \
    X(requests_too_early, "requests answered 425: they came as early data and are not safe to repeat") \
    X(requests_refused, "requests answered 503 at memory_limit") \
    X(requests, "requests whose head was complete") \
    X(fetches, "requests that scripts made (gate.fetch)") \
    X(fetch_errors, "of these: without a whole response") \
    X(script_sockets, "sockets that scripts opened (gate.tcp, gate.udp) or took from their pool") \
    X(script_sockets_reused, "of these: pooled connections") \
    X(script_sockets_limited, "sockets refused by script_sockets or script_sockets_each") \
    X(script_sockets_active, "sockets that scripts have now") \
    X(script_sockets_idle, "pooled connections of scripts idle now") \
    X(requests_active, "exchanges under way now") \
    X(responses_1xx, "interim responses sent to clients") \
    X(responses_2xx, "final responses by class") \
    X(responses_3xx, "final responses by class") \
    X(responses_4xx, "final responses by class") \
    X(responses_5xx, "final responses by class") \
    X(http2_connections, "client connections that speak HTTP/2") \
    X(http2_resets, "HTTP/2 requests that clients took back (RST_STREAM)") \
    X(http2_errors, "HTTP/2 requests reset for an error of the client") \
    X(http2_refused, "of these: beyond http2_max_streams") \
    X(http2_connection_errors, "HTTP/2 connections ended for an error of the client") \
    X(http2_stalled, "HTTP/2 responses given up because the client gave no window (send_timeout, send_min_rate)") \
    X(http2_held, "times that HTTP/2 requests waited for room in http2_output_buffer") \
    X(http2_reset_floods, "HTTP/2 connections ended by http2_max_resets") \
    X(http2_error_floods, "HTTP/2 connections ended by http2_max_errors") \
    X(http2_continuation_floods, "HTTP/2 connections ended by http2_max_continuations") \
    X(http2_empty_floods, "HTTP/2 connections ended by http2_max_empty_frames") \
    X(http2_ping_floods, "HTTP/2 connections ended by http2_max_pings") \
    X(http2_settings_floods, "HTTP/2 connections ended by http2_max_settings") \
    X(http2_window_floods, "HTTP/2 connections ended by http2_max_window_updates") \
    X(http2_priority_floods, "HTTP/2 connections ended by http2_max_priorities") \
    X(http2_header_bombs, "HTTP/2 connections ended by a head of many times max_head") \
    X(aborted, "responses that could not be completed as announced") \
    X(bytes_from_clients, "bytes received from clients") \
    X(bytes_to_clients, "bytes sent to clients") \
    X(upstream_connects, "connections made to upstream servers") \
    X(upstream_raced, "of these, begun beside another one that took longer than connect_stagger") \
    X(upstream_connect_errors, "connections to upstream servers that failed") \
    X(upstream_tls_handshakes, "TLS handshakes with upstream servers") \
    X(upstream_tls_resumed, "of these: those that resumed a session") \
    X(upstream_tls_errors, "TLS handshakes with upstream servers that failed") \
    X(upstream_reused, "requests sent on a pooled connection") \
    X(upstream_retries, "requests sent again to the same or another server") \
    X(retries_connect, "of these: the server could not be connected to") \
    X(retries_stale, "of these: the pooled connection had ended") \
    X(retries_idempotent, "of these: closed without an answer, and repeating does no harm") \
    X(retries_timeout, "of these: no answer in time, and repeating does no harm") \
    X(retries_refused, "of these: the server said that it had not looked at the request") \
    X(retries_over_budget, "requests that were not sent again, as retry_budget was used up") \
    X(upstream_hedged, "requests sent to a second server as well, as the first one was slow (hedge)") \
    X(upstream_hedge_won, "of these: the second server's answer was taken") \
    X(upstream_hedge_withheld, "requests that were not, as no other server was free or retry_budget was used up") \
    X(upstream_streams, "requests sent as a stream of an HTTP/2 connection") \
    X(upstream_refused, "of these: those that the server said it had not looked at") \
    X(upstream_goaways, "HTTP/2 connections that their server took out of use (GOAWAY)") \
    X(upstream_http1_required, "times that a server was found to require HTTP/1.1 instead (HTTP_1_1_REQUIRED)") \
    X(upstream_pings_lost, "HTTP/2 connections closed because no answer to a PING came") \
    X(upstream_waiting, "requests that wait for a free server now (max_active)") \
    X(upstream_waited, "requests that had to wait for a free server") \
    X(upstream_none, "requests refused because no server of their upstream may be asked") \
    X(upstream_queue_full, "requests refused because too many waited already") \
    X(upstream_queue_timeouts, "requests that waited for queue_timeout in vain") \
    X(upstream_idle, "pooled connections idle now") \
    X(health_checks, "checks of servers that were begun (health)") \
    X(health_check_failures, "of these: those that found the server not well") \
    X(health_changes, "times that checks took a server out of use or back into it") \
    X(ejections, "times that a server was ejected for its failures (eject)") \
    X(ejections_withheld, "times that one was not, because too many were (max_ejected)") \
    X(tunnels, "connections that became a relay") \
    X(tunnels_active, "relays open now") \
    X(script_calls, "hooks called") \
    X(script_errors, "hooks that failed") \
    X(script_yields, "times that a hook waited") \
    X(scripts_active, "hooks, timers and tasks of scripts that are under way now: they run or wait") \
    X(timers_active, "timers and tasks of scripts that exist now") \
    X(handles_active, "what scripts hold on to now: connections, requests, timers, fetches and the like") \
    X(dns_hits, "names whose addresses, or whose lack of any, was in the resolver's cache") \
    X(dns_misses, "names that had to be asked for, or waited for with others") \
    X(dns_lookups, "names asked for at the resolvers") \
    X(dns_lookups_active, "names being asked for now") \
    X(dns_not_found, "names asked for that do not exist or have no address") \
    X(dns_failures, "names asked for in vain, as the resolvers failed") \
    X(dns_timeouts, "of these: no resolver answered in time") \
    X(dns_stale, "answers past their time that were used while the resolvers failed") \
    X(dns_scripted, "names that resolve hooks answered or refused") \
    X(dns_refused, "names that were not asked for because too many were (resolver_queries, resolver_cache)") \
    X(dns_entries_active, "names in the resolvers' caches now") \
    X(turns_shared, "times that a client connection left its further requests to the next turn, for others") \
    X(metric_series_lost, "times that a script's metric had no room for one more combination of labels") \
    X(buffers_starved, "times that a receive found no buffer") \
    X(ring_turns, "turns of the ring's loop") \
    X(ring_submissions, "operations handed to the kernel") \
    X(log_lines_dropped, "access log lines lost because the log could not be written fast enough")

struct counters {
#define X(name, doc) uint64_t name;
    COUNTERS(X)
#undef X
};

// Points at private memory until the worker sets it to its place in shared memory.
extern struct counters *counters;

#endif
