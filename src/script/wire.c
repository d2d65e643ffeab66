// SPDX-License-Identifier: BSD-2-Clause
// What carries the bytes of scripts' sockets in the server: a conn for each TCP socket, with TLS where the script
// wants it, a datagram for each UDP socket. Only this file of theirs knows either.
#include "net/conn.h"
#include "net/datagram.h"
#include "script/tcp.h"
#include "script/udp.h"
#include "tls/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static unsigned conns;  // of scripts, with idle ones and those that drain

unsigned tcp_conn_count(void) {
    return conns;
}

static void conn_gone(struct conn_script *script) {
    (void)script;
    conns--;
}
static struct conn_script counted = { conn_gone };

static void data(struct conn *conn, struct span span) {
    tcp_data(conn->owner, span);
}

static void ended(struct conn *conn, int error) {
    tcp_ended(conn->owner, error);
}

static void written(struct conn *conn) {
    tcp_written(conn->owner);
}

static void broken(struct conn *conn, int error) {
    tcp_broken(conn->owner, error);
}

// It runs while the connection is idle.
static void timeout(struct conn *conn) {
    tcp_pool_lost(conn->owner);
}

static const struct conn_handler handler = { data, ended, written, broken, timeout, NULL };

// ---- TLS --------------------------------------------------------------------------------------------------

static const struct conn_handler shaking_handler = { .timeout = timeout };  // which never comes

static void shaken(struct conn *conn, void *owner, int error, const char *why) {
    struct tcp *tcp = owner;
    conn_adopt(conn, &handler, tcp);
    if (error < 0) {
        tcp_refused(tcp, tls_connect_why(conn, why));  // an alert may have to leave: tcp_close() lets it
        return;
    }
    tcp_connected(tcp, 0);
    if (tcp->conn)
        conn_read(conn);
}

static const struct tls_callbacks tls_callbacks = { .done = shaken };

// What the certificate must be for: what stands in the address before the port.
static struct slice host_of(const struct tcp *tcp) {
    struct slice host = slice_of(tcp->tls.name ? tcp->tls.name : tcp->target.text);
    if (tcp->tls.name)
        return host;
    if (slice_starts(host, SLICE_LIT("unix:")))
        return slice_make(NULL, 0);
    const char *colon = memrchr(host.at, ':', host.len);
    if (colon)
        host.len = (size_t)(colon - host.at);
    if (host.len > 1 && host.at[0] == '[')
        host = slice_make(host.at + 1, host.len - 2);
    return host;
}

// One for all sockets of the host that have no authorities of their own.
static struct tls_client *client_of(const struct tcp *tcp, struct error *error) {
    bool verify = tcp->tls.how == TCP_TLS_VERIFIED;
    struct tls_client **client = &tcp->base.host->tls[verify];
    if (tcp->tls.trust)
        return tcp->tls.trust;
    if (!*client && tls_client_for_scripts(tcp->base.host->conf, slice_make(NULL, 0), verify, client, error) < 0)
        return NULL;
    return *client;
}

static void shake(struct tcp *tcp) {
    char key[SOCKET_TARGET_MAX + TCP_TLS_NAME + 2];
    struct error error = { "memory is out" };
    struct tls_client *client = client_of(tcp, &error);
    // A session is resumed only where its certificate was verified for the same name.
    size_t len = (size_t)snprintf(key, sizeof key, "%s %s", tcp->target.text, tcp->tls.name ? tcp->tls.name : "");
    if (!client || tls_connect(tcp->conn, client, host_of(tcp), slice_make(key, len), false, &tls_callbacks, tcp) < 0)
        tcp_refused(tcp, error.text);
}

// A descriptor more. Single receives: a peer cannot have more under way than one of them.
static int begun(struct conn *conn) {
    conns++;
    conn->bulk = TCP_BUFFER;
    if (conn_set_script(conn, &counted) == 0)
        return 0;
    conns--;
    return -ENOMEM;
}

static void connected(struct eyeballs *eyeballs, struct conn *conn, const struct addr *addr, int error) {
    struct tcp *tcp = container_of(eyeballs, struct tcp, eyeballs);
    if (!conn) {
        tcp_connected(tcp, error);
        return;
    }
    tcp->conn = conn;
    tcp->addr = *addr;
    if (tcp->tls.how != TCP_PLAIN) {
        conn_adopt(conn, &shaking_handler, tcp);
        shake(tcp);
        return;
    }
    conn_adopt(conn, &handler, tcp);
    conn_read(conn);
    tcp_connected(tcp, 0);
}

// All the addresses that its target still has: none is left for tcp.c when they cannot be connected to.
static int tcp_connect(struct tcp *tcp) {
    struct socket_target *target = &tcp->target;
    unsigned first = target->at - 1;  // it was taken for this call
    target->at = target->count;
    eyeballs_init(&tcp->eyeballs, connected);
    tcp->eyeballs.began = begun;
    return eyeballs_start(&tcp->eyeballs, &target->addrs[first], target->count - first,
                          tcp->base.host->conf->of_address.connect_stagger);
}

static ssize_t tcp_send(struct tcp *tcp, const char *at, size_t len) {
    struct conn *conn = tcp->conn;
    size_t room = conn_waiting(conn) < TCP_BUFFER ? TCP_BUFFER - conn_waiting(conn) : 0;
    if (len > room)
        len = room;
    if (len == 0)
        return 0;
    if (queue_copy(&conn->out, at, len) < 0)
        return -ENOMEM;
    conn_flush(conn);
    return (ssize_t)len;
}

static void tcp_read(struct tcp *tcp, bool want) {
    if (want && !tcp->conn->want_read)
        conn_read(tcp->conn);
    else if (!want)
        conn_pause(tcp->conn);
}

static void tcp_shutdown(struct tcp *tcp) {
    conn_shutdown(tcp->conn);
}

static bool tcp_quiet(struct tcp *tcp) {
    return conn_quiet(tcp->conn);
}

static void tcp_idle(struct tcp *tcp, uint64_t ms) {
    if (ms > 0)
        timer_start(&tcp->conn->timer, ms);
    else
        timer_stop(&tcp->conn->timer);
}

static void tcp_close(struct tcp *tcp, bool torn) {
    struct conn *conn = tcp->conn;
    tcp->conn = NULL;
    eyeballs_stop(&tcp->eyeballs);
    if (!conn)
        return;
    conn->reset = torn;
    if (torn || conn->handler == &shaking_handler)  // before there is TLS nothing was sent
        conn_close(conn, CLOSE_none);
    else
        conn_finish(conn, CLOSE_none, 0);
}

// ---- datagrams --------------------------------------------------------------------------------------------

static void ready(void *owner, bool output) {
    udp_ready(owner, output);
}

static int udp_open(struct udp *udp) {
    udp->datagram = datagram_open(&udp->addr, ready, udp);
    return udp->datagram ? 0 : -errno;
}

static int udp_send(struct udp *udp, const char *at, size_t len) {
    return datagram_send(udp->datagram, at, len);
}

static int udp_receive(struct udp *udp, char *at, size_t room, size_t *ret_len) {
    return datagram_receive(udp->datagram, at, room, ret_len);
}

static void udp_await(struct udp *udp, bool output) {
    datagram_await(udp->datagram, output);
}

static void udp_close(struct udp *udp) {
    datagram_close(udp->datagram);
    udp->datagram = NULL;
}

const struct socket_wire wire_real = {
    .tcp_connect = tcp_connect,
    .tcp_send = tcp_send,
    .tcp_read = tcp_read,
    .tcp_shutdown = tcp_shutdown,
    .tcp_quiet = tcp_quiet,
    .tcp_idle = tcp_idle,
    .tcp_close = tcp_close,
    .udp_open = udp_open,
    .udp_send = udp_send,
    .udp_receive = udp_receive,
    .udp_await = udp_await,
    .udp_close = udp_close,
};
