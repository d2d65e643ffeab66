// SPDX-License-Identifier: BSD-2-Clause
// What carries the bytes of scripts' sockets in the server: a conn for each TCP socket, a datagram for each
// UDP socket. Only this file of theirs knows either. TLS will be a step in here.
#include "net/conn.h"
#include "net/datagram.h"
#include "script/tcp.h"
#include "script/udp.h"

#include <errno.h>

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

static const struct conn_handler handler = { data, ended, written, broken, timeout };

static void connected(struct conn *conn, int error) {
    tcp_connected(conn->owner, error);
}

static int tcp_connect(struct tcp *tcp) {
    struct conn *conn = conn_connect(&tcp->addr, connected, &handler, tcp);
    if (!conn)
        return -errno;
    conns++;
    if (conn_set_script(conn, &counted) < 0) {
        conns--;
        conn_close(conn, CLOSE_memory);
        return -ENOMEM;
    }
    conn->bulk = TCP_BUFFER;  // single receives: a peer cannot have more under way than one of them
    conn_read(conn);
    tcp->conn = conn;
    return 0;
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
    if (!conn)
        return;
    conn->reset = torn;
    if (torn)
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
