// SPDX-License-Identifier: BSD-2-Clause
// Stream sockets of scripts (gate.tcp): what came and was not received, who waits for what, and the functions
// that Lua calls through api.h (lua/moongate/sockets.lua). The bytes go over a wire (socket.h), idle
// connections lie in tcp_pool.c.
//
// Memory: each direction holds TCP_BUFFER bytes, the inner one more only while a call asks for more at once;
// then the peer is held back.
#include "script/tcp.h"

#include "base/counters.h"
#include "base/slab.h"
#include "script/api_impl.h"
#include "tls/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct slab tcp_slab = SLAB_INIT(sizeof(struct tcp), 64);

static void tls_release(struct tcp_tls *tls) {
    tls_client_unref(tls->trust);
    free(tls->name);
}

void tcp_free(struct tcp *tcp) {
    queue_release(&tcp->in);
    tls_release(&tcp->tls);
    slab_put(&tcp_slab, tcp);
}

void tcp_end(struct socket *socket) {
    struct tcp *tcp = container_of(socket, struct tcp, base);
    socket_leave(socket);
    socket_wake(&tcp->reader);
    socket_wake(&tcp->writer);
    socket_target_release(&tcp->target);
    socket_wire->tcp_close(tcp, tcp->torn);
    tcp_free(tcp);
}

// Whether the peer may send.
static void hold_back(struct tcp *tcp) {
    if (tcp->state == TCP_RESOLVING || tcp->state == TCP_CONNECTING || tcp->ended)
        return;
    size_t most = tcp->reader && tcp->wake_at > TCP_BUFFER ? tcp->wake_at : TCP_BUFFER;
    socket_wire->tcp_read(tcp, tcp->in.bytes - tcp->shown < most);
}

// ---- what the wire tells ----------------------------------------------------------------------------------

// To the next address of its target that it can be tried with; `failure` says why the last one failed.
static void connect_next(struct tcp *tcp) {
    const struct addr *addr;
    tcp->state = TCP_CONNECTING;
    while ((addr = socket_target_next(&tcp->target))) {
        tcp->addr = *addr;
        tcp->failure = socket_wire->tcp_connect(tcp);
        if (tcp->failure == 0)
            return;
    }
}

void tcp_connected(struct tcp *tcp, int error) {
    tcp->failure = error;
    if (error == 0) {
        tcp->state = TCP_OPEN;
    } else {
        socket_wire->tcp_close(tcp, false);
        connect_next(tcp);
    }
    if (tcp->failure < 0 || tcp->state == TCP_OPEN)
        socket_wake(&tcp->reader);
}

void tcp_refused(struct tcp *tcp, const char *why) {
    snprintf(tcp->why, sizeof tcp->why, "tls: %s", why);
    socket_wire->tcp_close(tcp, false);
    socket_wake(&tcp->reader);
}

static void resolved(void *owner) {
    struct tcp *tcp = owner;
    if (!tcp->target.why)
        connect_next(tcp);
    if (tcp->target.why || tcp->failure < 0)
        socket_wake(&tcp->reader);
}

static void end(struct tcp *tcp, int error) {
    tcp->ended = true;
    tcp->end_error = error;
    socket_wake(&tcp->reader);
}

void tcp_data(struct tcp *tcp, struct span span) {
    if (tcp->state == TCP_IDLE || tcp->ended) {
        block_unref(span.block);
        if (tcp->state == TCP_IDLE)
            tcp_pool_lost(tcp);  // nobody asked for it
        return;
    }
    // Copied out of the receive buffer: nobody knows when the script will take it.
    if (queue_put(&tcp->in, span) < 0 || queue_unpin(&tcp->in) < 0) {
        socket_wire->tcp_read(tcp, false);
        end(tcp, -ENOMEM);
        return;
    }
    if (tcp->reader && tcp->in.bytes - tcp->shown >= tcp->wake_at)
        socket_wake(&tcp->reader);
    hold_back(tcp);
}

void tcp_ended(struct tcp *tcp, int error) {
    if (tcp->state == TCP_IDLE)
        tcp_pool_lost(tcp);
    else if (!tcp->ended)
        end(tcp, error);
}

void tcp_written(struct tcp *tcp) {
    socket_wake(&tcp->writer);
}

void tcp_broken(struct tcp *tcp, int error) {
    if (tcp->state == TCP_IDLE) {
        tcp_pool_lost(tcp);
        return;
    }
    tcp->broken = true;
    tcp->break_error = error;
    socket_wake(&tcp->writer);
}

// ---- looking for a pattern --------------------------------------------------------------------------------

static void search_begin(struct tcp_search *search, const char *pattern, size_t len) {
    search->len = (uint8_t)len;
    search->at = search->matched = 0;
    memcpy(search->pattern, pattern, len);
    search->fall[0] = 0;
    for (unsigned i = 1, n = 0; i < len; i++) {
        while (n > 0 && pattern[i] != pattern[n])
            n = search->fall[n - 1];
        n += pattern[i] == pattern[n];
        search->fall[i] = (uint8_t)n;
    }
}

static bool search_byte(struct tcp_search *search, char c) {
    while (search->matched > 0 && search->pattern[search->matched] != c)
        search->matched = search->fall[search->matched - 1];
    search->matched = (uint8_t)(search->matched + (search->pattern[search->matched] == c));
    search->at++;
    return search->matched == search->len;
}

// Each byte is looked at once, however small the pieces in which it comes. *ret_before: the bytes before the
// pattern.
static bool find(struct tcp *tcp, const char *pattern, size_t len, size_t *ret_before) {
    struct tcp_search *search = &tcp->search;
    if (search->len != len || memcmp(search->pattern, pattern, len) != 0)
        search_begin(search, pattern, len);
    size_t from = 0;
    for (const struct piece *piece = tcp->in.head; piece; from += piece->span.len, piece = piece->next)
        while (search->at < from + piece->span.len)
            if (search_byte(search, piece->span.at[search->at - from])) {
                *ret_before = search->at - len;
                search->at = search->matched = 0;
                return true;
            }
    return false;
}

// ---- what the script asks for -----------------------------------------------------------------------------

static struct tcp *tcp_of(double id) {
    return handle_get(HANDLE_TCP, mg_handle(id));
}

static void drop(struct tcp *tcp, size_t count) {
    if (count == 0)
        return;
    queue_drop(&tcp->in, count);
    tcp->search.at = tcp->search.matched = 0;
    hold_back(tcp);
}

// Lua has copied what it was shown.
static void settle(struct tcp *tcp) {
    size_t shown = tcp->shown;
    tcp->shown = 0;
    drop(tcp, shown);
}

// Where TLS is to be verified, there must be a name for the certificate.
static int read_tls(const struct socket_target *target, int how, void *trust, const char *name, size_t len,
                    struct tcp_tls *tls) {
    *tls = (struct tcp_tls){ .how = how };
    if (how < TCP_PLAIN || how > TCP_TLS_ANYBODY || len > TCP_TLS_NAME || memchr(name, 0, len))
        return mg_error("the name in tls has at most %d bytes, none of them zero", TCP_TLS_NAME);
    if (how == TCP_TLS_VERIFIED && len == 0 && strncmp(target->text, "unix:", 5) == 0)
        return mg_error("a unix socket has no name that a certificate could have: give one (tls = { name = ... })");
    if (len > 0 && !(tls->name = strndup(name, len)))
        return socket_failure(-ENOMEM);
    tls->trust = how == TCP_TLS_VERIFIED && trust ? tls_client_ref(trust) : NULL;
    return MG_OK;
}

int mg_tcp_connect(const char *address, size_t len, const char *pool, size_t pool_len, int how, void *trust,
                   const char *tls_name, size_t tls_len, double *ret_socket) {
    char name[TCP_POOL_NAME + 1] = "";
    struct socket_target target;
    struct tcp_tls tls;
    if (pool_len > TCP_POOL_NAME || memchr(pool, 0, pool_len))
        return mg_error("the name of a pool has at most %d bytes, none of them zero", TCP_POOL_NAME);
    memcpy(name, pool, pool_len);
    int rc = socket_target_set(&target, address, len);
    if (rc != MG_OK)
        return rc;
    rc = read_tls(&target, how, trust, tls_name, tls_len, &tls);
    if (rc != MG_OK)
        return rc;
    struct script_host *host = task_running->chain->host;
    struct tcp *tcp = tcp_pool_take(host, &target, name, &tls);
    bool idle = tcp != NULL;
    if (idle) {
        tls_release(&tls);  // it has the same
    } else {
        tcp = slab_get(&tcp_slab);
        if (!tcp) {
            tls_release(&tls);
            return socket_failure(-ENOMEM);
        }
        *tcp = (struct tcp){ .state = TCP_RESOLVING, .target = target, .tls = tls };
        list_init(&tcp->recent);
        memcpy(tcp->pool, name, sizeof name);
    }
    rc = socket_take(&tcp->base, HANDLE_TCP, tcp, !idle);
    if (rc != MG_OK) {
        tcp_end(&tcp->base);
        return rc;
    }
    counters->script_sockets++;
    if (!idle && socket_target_find(&tcp->target, host->resolver, resolved, tcp) && !tcp->target.why)
        connect_next(tcp);
    *ret_socket = (double)tcp->base.id;
    return MG_OK;
}

int mg_tcp_connected(double id, double *ret_reused) {
    struct tcp *tcp = tcp_of(id);
    if (!tcp)
        return MG_STALE;
    if (tcp->target.why) {
        mg_error("%s", tcp->target.why);
        return MG_NONE;
    }
    if (tcp->why[0]) {
        mg_error("%s", tcp->why);
        return MG_NONE;
    }
    if (tcp->failure < 0)
        return socket_failure(tcp->failure);
    *ret_reused = tcp->reused;
    return tcp->state == TCP_OPEN ? MG_OK : socket_await(&tcp->reader);
}

int mg_tcp_send(double id, const char *at, size_t len, double *ret_taken) {
    struct tcp *tcp = tcp_of(id);
    if (!tcp)
        return MG_STALE;
    if (tcp->shut || tcp->broken)
        return socket_failure(tcp->broken ? tcp->break_error : 0);
    ssize_t n = socket_wire->tcp_send(tcp, at, len);
    tcp->torn = n < (ssize_t)len;
    if (n == 0 && len > 0)
        return socket_await(&tcp->writer);
    if (n < 0) {
        tcp->broken = true;  // who knows what of it would leave
        tcp->break_error = (int)n;
        return socket_failure((int)n);
    }
    *ret_taken = (double)n;
    return MG_OK;
}

static int await(struct tcp *tcp, size_t wake_at) {
    if (tcp->ended)
        return socket_failure(tcp->end_error);
    tcp->wake_at = wake_at;
    int rc = socket_await(&tcp->reader);
    hold_back(tcp);
    return rc;
}

int mg_tcp_receive(double id, int how, double size, const char *pattern, size_t len, double *ret_count) {
    struct tcp *tcp = tcp_of(id);
    if (!tcp)
        return MG_STALE;
    if (!(size >= 0 && size <= MG_RECEIVE_MAX))
        return mg_error("one call receives 0 to %d bytes", MG_RECEIVE_MAX);
    if (how == MG_RECEIVE_UNTIL && (len == 0 || len > MG_PATTERN_MAX))
        return mg_error("a pattern has 1 to %d bytes", MG_PATTERN_MAX);
    settle(tcp);
    size_t most = (size_t)size, have = tcp->in.bytes, count = have < most ? have : most, wake_at = 1;
    bool there = false, too_large = false;
    switch (how) {
    case MG_RECEIVE_EXACTLY:
        there = have >= most;
        wake_at = most;
        break;
    case MG_RECEIVE_UNTIL:
        there = find(tcp, pattern, len, &count);
        too_large = there ? count > most : have >= most + len;
        wake_at = have + 1;
        break;
    case MG_RECEIVE_END:
        there = tcp->ended && tcp->end_error == 0;
        too_large = have > most;
        wake_at = most + 1;
        break;
    default:
        there = have > 0 && most > 0;
    }
    if (too_large)
        return socket_failure(-EMSGSIZE);
    if (!there)
        return await(tcp, wake_at);
    *ret_count = (double)count;
    return MG_OK;
}

int mg_tcp_take(double id, double count, struct mg_text *ret_text) {
    struct tcp *tcp = tcp_of(id);
    struct slice view;
    if (!tcp)
        return MG_STALE;
    settle(tcp);
    if (!queue_peek(&tcp->in, &view))
        return MG_NONE;
    tcp->shown = (double)view.len < count ? view.len : (size_t)count;
    mg_text_set(ret_text, slice_make(view.at, tcp->shown));
    return MG_OK;
}

int mg_tcp_drop(double id, double count) {
    struct tcp *tcp = tcp_of(id);
    if (!tcp)
        return MG_STALE;
    settle(tcp);
    drop(tcp, (double)tcp->in.bytes < count ? tcp->in.bytes : (size_t)count);
    return MG_OK;
}

int mg_tcp_rest(double id) {
    struct tcp *tcp = tcp_of(id);
    if (!tcp)
        return MG_STALE;
    socket_rest(&tcp->reader);
    socket_rest(&tcp->writer);
    hold_back(tcp);
    return MG_OK;
}

int mg_tcp_shutdown(double id) {
    struct tcp *tcp = tcp_of(id);
    if (!tcp)
        return MG_STALE;
    if (tcp->broken)
        return socket_failure(tcp->break_error);
    if (!tcp->shut)
        socket_wire->tcp_shutdown(tcp);
    tcp->shut = true;
    return MG_OK;
}

int mg_tcp_keepalive(double id, double seconds, double most) {
    struct tcp *tcp = tcp_of(id);
    if (!tcp)
        return MG_STALE;
    if (!(seconds > 0 && seconds <= 1e6) || !(most >= 1 && most <= 1e6))
        return mg_error("keepalive takes seconds, up to 1000000, and a number of connections from 1 on");
    settle(tcp);
    const char *why = tcp->in.bytes > 0              ? "something was not received"
        : tcp->ended || tcp->broken || tcp->shut     ? "closed"
        : tcp->torn                                  ? "something was not sent"
        : tcp->state != TCP_OPEN                     ? "not connected"
                                                     : NULL;
    if (why) {
        tcp_end(&tcp->base);
        mg_error("%s", why);
        return MG_NONE;
    }
    socket_leave(&tcp->base);
    socket_wake(&tcp->reader);
    socket_wake(&tcp->writer);
    if (tcp_pool_put(tcp, (uint64_t)(seconds * 1000 + 0.999), (unsigned)most) == 0)
        return MG_OK;
    mg_error("limit");
    return MG_NONE;
}

int mg_tcp_close(double id) {
    struct tcp *tcp = tcp_of(id);
    if (!tcp)
        return MG_NONE;
    tcp_end(&tcp->base);
    return MG_OK;
}
