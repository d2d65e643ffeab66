// SPDX-License-Identifier: BSD-2-Clause
// Connections over the ring: reading by multishot or bounded single receives, one send at a time, closing as
// cancel, drain, free in one function. What the bytes mean is the handler's affair; who calls: codecs, pools,
// relays.
#include "net/conn.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/handle.h"
#include "base/log.h"
#include "base/slab.h"
#include "conf/conf.h"
#include "net/conn_layer.h"
#include "net/proxy_header.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct conn_parts {
    struct addr remote, *local;
    struct conn_script *script;
    struct proxied *proxied;
};

enum { STALL_MS = 30000 };  // until an owner knows better

// How much of the output a layer seals at a time: enough for the kernel to be busy with, not more than may be
// held for a receiver that is slow.
enum { SEAL_MOST = 128 << 10, SEAL_SLOW = 8 << 10 };

static struct slab conn_slab = SLAB_INIT(sizeof(struct conn), 1024);
static struct list pinning = { &pinning, &pinning };  // conns whose output holds receive buffers
static unsigned count, client_count;
static uint64_t last_id;

static const char *const reason_names[] = {
#define X(name, doc) #name,
    CLOSE_REASONS(X)
#undef X
};

const char *close_reason_text(enum close_reason reason) {
    static const char *const texts[] = {
#define X(name, doc) doc,
        CLOSE_REASONS(X)
#undef X
    };
    return reason < sizeof texts / sizeof *texts ? texts[reason] : "?";
}

const char *close_reason_name(enum close_reason reason) {
    return reason < CLOSE_REASON_COUNT ? reason_names[reason] : "?";
}

unsigned conn_count(void) {
    return count;
}

unsigned conn_client_count(void) {
    return client_count;
}

static void nobody_cares(int error) {
    (void)error;
}
void (*conn_exhausted)(int error) = nobody_cares;

bool conn_means_exhausted(int error) {
    return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

static const char *const state_names[] = { "connecting", "open", "finishing", "closing" };

static void set_state(struct conn *conn, enum conn_state state) {
    log_debug("conn %llu: %s -> %s (%s)", (unsigned long long)conn->id, state_names[conn->state],
              state_names[state], close_reason_name(conn->reason));
    conn->state = state;
}

// ---- receiving --------------------------------------------------------------------------------------------

static void arm_recv(struct conn *conn) {
    if (conn->reading != READING_OFF || conn->recv.pending || (conn->layer && conn->layer->ended))
        return;
    if (conn->bulk) {
        conn->reading = READING_ONCE;
        ring_recv_once(&conn->recv, conn->fd, conn->bulk);
    } else {
        conn->reading = READING_MULTI;
        ring_recv_multishot(&conn->recv, conn->fd);
    }
}

static void recv_done(struct op *op, const struct completion *c);

static void watch_done(struct op *op, const struct completion *c) {
    struct conn *conn = container_of(op, struct conn, recv);
    bool watching = conn->reading == READING_WATCHING;
    if (!c->more) {
        op_init(&conn->recv, recv_done);
        conn->reading = READING_OFF;
    }
    if (conn->state == CONN_CLOSING)
        ring_flush_later(&conn->flusher);
    else if (watching && conn->handler->readable)
        conn->handler->readable(conn);
    else if (watching && c->res > 0)
        conn->handler->ended(conn, c->res & (POLLHUP | POLLERR) ? -ECONNRESET : 0);
    else if (conn->want_read)
        arm_recv(conn);
}

void conn_watch(struct conn *conn) {
    op_init(&conn->recv, watch_done);
    conn->reading = READING_WATCHING;
    ring_poll_multishot(&conn->recv, conn->fd, POLLRDHUP);
}

void conn_await(struct conn *conn) {
    op_init(&conn->recv, watch_done);
    conn->reading = READING_WATCHING;
    ring_poll_once(&conn->recv, conn->fd, POLLIN | POLLRDHUP);
}

ssize_t conn_receive(struct conn *conn, char *to, size_t room, bool peek) {
    ssize_t n = recv(conn->fd, to, room, MSG_DONTWAIT | (peek ? MSG_PEEK : 0));
    if (n < 0)
        return -errno;
    if (!peek)
        conn->bytes_in += (size_t)n;
    return n;
}

void conn_read(struct conn *conn) {
    conn->want_read = true;
    if (conn->reading == READING_WATCHING) {
        conn->reading = READING_STOPPING;
        ring_cancel(&conn->recv);
    } else if (conn->state == CONN_OPEN) {
        arm_recv(conn);
    }
}

void conn_pause(struct conn *conn) {
    conn->want_read = false;
    if (conn->reading == READING_MULTI) {
        conn->reading = READING_STOPPING;
        ring_cancel(&conn->recv);
    } else if (conn->reading == READING_STARVED) {
        list_remove(&conn->starved.link);
        conn->reading = READING_OFF;
    }
}

// Bytes of conn->out that are in the kernel's hands.
static size_t held(const struct conn *conn) {
    return conn->layer ? 0 : conn->in_flight;
}

// Output that waits gives its receive buffers back, but for what is in the kernel's hands.
static void copy_out(struct conn *conn) {
    if (queue_unpin_behind(&conn->out, held(conn)) < 0)
        log_warn("conn %llu: no memory to copy output out of receive buffers", (unsigned long long)conn->id);
}

// Receive buffers ran out: output to slow receivers gives its own back. What is being sent is cancelled,
// copied and sent again (send_done); while somebody is starved no further output begins to hold any
// (hold_or_copy).
static void relieve(void) {
    list_each(link, &pinning) {
        struct conn *conn = container_of(link, struct conn, pinning);
        list_remove(link);
        copy_out(conn);
        if (queue_pins(&conn->out, held(conn)))
            ring_cancel(&conn->send);
    }
}

static void fed(struct ring_starved *starved) {
    struct conn *conn = container_of(starved, struct conn, starved);
    conn->reading = READING_OFF;
    if (conn->want_read)
        arm_recv(conn);
}

static void recv_done(struct op *op, const struct completion *c) {
    struct conn *conn = container_of(op, struct conn, recv);
    if (conn->state == CONN_CLOSING || conn->state == CONN_FINISHING) {
        if (c->span.block)
            block_unref(c->span.block);
        if (conn->state == CONN_FINISHING && c->span.len > conn->linger_left)
            conn_close(conn, conn->reason);
        conn->linger_left -= c->span.len;
        if (conn->state == CONN_FINISHING && !c->more) {
            conn->reading =
                c->res > 0 || c->res == -ECANCELED || c->res == -ENOBUFS ? READING_OFF : READING_ENDED;
            if (conn->reading == READING_OFF && c->res != -ENOBUFS) {
                arm_recv(conn);
                return;
            }
        }
        if (!c->more)
            ring_flush_later(&conn->flusher);
        return;
    }
    if (!c->more)
        conn->reading = READING_OFF;
    if (c->span.block) {
        conn->bytes_in += c->span.len;
        if (conn->layer)
            conn->layer->ops->received(conn, c->span);
        else
            conn->handler->data(conn, c->span);
        if (!c->more && conn->state == CONN_OPEN && conn->want_read)
            arm_recv(conn);
    } else if (c->res == -ENOBUFS) {
        conn->reading = READING_STARVED;
        ring_wait_buffers(&conn->starved, op);
        if (ring_buffers_awaited())
            relieve();
    } else if (c->res == -ECANCELED || c->res == -EINTR || c->res == -EAGAIN) {
        if (!c->more && conn->want_read)
            arm_recv(conn);
    } else if (!c->more) {
        conn->reading = READING_ENDED;
        if (!conn->layer)
            conn->handler->ended(conn, c->res);
        else if (!conn->layer->ended)
            conn->layer->ops->ended(conn, c->res);
    }
}

bool conn_ended(const struct conn *conn) {
    return conn->reading == READING_ENDED || (conn->layer && conn->layer->ended);
}

// ---- sending ----------------------------------------------------------------------------------------------

static void hold_or_copy(struct conn *conn) {
    if ((conn->slow && ring_buffers_scarce()) || ring_buffers_awaited())
        copy_out(conn);
    else if (!list_linked(&conn->pinning) && queue_pins(&conn->out, conn->out.bytes))
        list_push_back(&pinning, &conn->pinning);
}

// What is sent from.
static struct queue *wire(struct conn *conn) {
    return conn->layer ? &conn->layer->wire : &conn->out;
}

static void start_send(struct conn *conn) {
    struct iovec vectors[RING_VECTORS];
    size_t bytes;
    unsigned n = queue_vectors(wire(conn), vectors, RING_VECTORS, &bytes);
    conn->in_flight = (uint32_t)bytes;
    if (n == 1)
        ring_send(&conn->send, conn->fd, vectors[0].iov_base, vectors[0].iov_len);
    else
        ring_sendv(&conn->send, conn->fd, vectors, n);
}

static void do_shutdown(struct conn *conn) {
    conn->shut = true;
    conn->shut_wanted = false;
    if (shutdown(conn->fd, SHUT_WR) < 0 && errno != ENOTCONN)
        log_debug("conn %llu: shutdown: %m", (unsigned long long)conn->id);
}

static void took(struct conn *conn, size_t bytes) {
    size_t before = conn_waiting(conn);
    conn->bytes_out += bytes;
    queue_drop(wire(conn), bytes);
    if (conn->layer && conn->layer->sealed > conn->layer->wire.bytes)
        conn->layer->sealed = conn->layer->wire.bytes;
    // Of a layer's own output the owner is not told when it has left: it must not wait for that.
    conn->slow = conn->layer ? conn->layer->sealed > 0 : conn->out.bytes > 0;
    ring_flush_later(&conn->flusher);
    // A layer has output of its own, which is no affair of the handler's.
    if (conn->state != CONN_FINISHING && (!conn->layer || conn_waiting(conn) < before))
        conn->handler->written(conn);
}

static void fail_sending(struct conn *conn, int error) {
    conn->broken = true;
    if (conn->state == CONN_FINISHING)
        conn_close(conn, conn->reason);
    else if (conn->layer)
        conn->layer->ops->broken(conn, error);
    else
        conn->handler->broken(conn, error);
}

static void send_done(struct op *op, const struct completion *c) {
    struct conn *conn = container_of(op, struct conn, send);
    conn->in_flight = 0;
    if (!conn->layer && conn->out.bytes == (c->res > 0 ? (size_t)c->res : 0))
        list_remove(&conn->pinning);
    if (conn->state == CONN_CLOSING) {
        ring_flush_later(&conn->flusher);
        return;
    }
    if (c->res >= 0) {
        took(conn, (size_t)c->res);
    } else if (c->res == -ECANCELED || c->res == -EAGAIN || c->res == -EINTR || c->res == -ENOBUFS) {
        copy_out(conn);
        ring_flush_later(&conn->flusher);
    } else {
        fail_sending(conn, c->res);
    }
}

void conn_flush(struct conn *conn) {
    ring_flush_later(&conn->flusher);
}

int conn_put_first(struct conn *conn, struct slice bytes) {
    struct block *block = block_new(bytes.len);
    if (!block)
        return -ENOMEM;
    memcpy(block->base, bytes.at, bytes.len);
    block->used = (uint32_t)bytes.len;
    ring_flush_later(&conn->flusher);
    return queue_unget(wire(conn), (struct span){ block, block->base, (uint32_t)bytes.len });
}

uint64_t conn_taken(const struct conn *conn) {
    int waiting = 0;
    if (ioctl(conn->fd, SIOCOUTQ, &waiting) < 0)
        waiting = 0;
    return conn->bytes_out - (uint64_t)waiting;
}

bool conn_quiet(const struct conn *conn) {
    char byte;
    return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR);
}

void conn_shutdown(struct conn *conn) {
    conn->shut_wanted = true;
    ring_flush_later(&conn->flusher);
}

// ---- closing ----------------------------------------------------------------------------------------------

static void conn_free(struct conn *conn) {
    if (conn->reset)
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
    ring_close(conn->fd);
    queue_release(&conn->out);
    if (conn->layer) {
        queue_release(&conn->layer->wire);
        conn->layer->ops->freed(conn);
    }
    timer_stop(&conn->timer);
    list_remove(&conn->link);
    list_remove(&conn->starved.link);
    list_remove(&conn->pinning);
    if (conn->parts) {
        if (conn->parts->script)
            conn->parts->script->gone(conn->parts->script);
        free(conn->parts->local);
        free(conn->parts->proxied);
        free(conn->parts);
    }
    handle_drop(conn->handle);
    peers_leave(conn->peer);
    count--;
    client_count -= conn->accepted;
    slab_put(&conn_slab, conn);
}

// The one place where a conn ends: no operation pending, then free. Runs in the ring's flush, never inside a
// handler.
static void drain(struct conn *conn) {
    if (!conn->recv.pending && !conn->send.pending)
        conn_free(conn);
    // else the last completion brings us back here
}

// Fills the wire of a conn with a layer, when nothing is on it. False when the conn can send no more.
static bool seal(struct conn *conn) {
    struct conn_layer *layer = conn->layer;
    if (conn->send.pending || layer->wire.bytes > 0 || conn->out.bytes == 0)
        return true;
    int rc = layer->ops->seal(conn, conn->slow ? SEAL_SLOW : SEAL_MOST);
    if (conn->out.bytes == 0)
        list_remove(&conn->pinning);
    if (rc == 0)
        return true;
    // Unlike after a send that failed the peer is there, and may wait for what is lost for as long as we for its
    // answer.
    if (conn->state == CONN_FINISHING || layer->ended) {
        fail_sending(conn, rc);
    } else {
        conn->broken = true;
        conn_deliver_end(conn, rc);
    }
    return false;
}

// No more comes from the owner, and all that came is on the wire: the layer says so behind it, in the same send.
static void say_end(struct conn *conn) {
    if (!conn->layer || conn->layer->closed)
        return;
    conn->layer->closed = true;
    conn->layer->ops->shutdown(conn);
}

static void finish(struct conn *conn) {
    if (conn->linger_ms == 0 || conn_ended(conn)) {
        conn_close(conn, conn->reason);
        return;
    }
    if (!conn->shut) {
        do_shutdown(conn);
        timer_start(&conn->timer, conn->linger_ms);
    }
    conn->want_read = true;
    arm_recv(conn);
}

static void flush(struct ring_flush *flusher) {
    struct conn *conn = container_of(flusher, struct conn, flusher);
    if (conn->state == CONN_CLOSING) {
        drain(conn);
        return;
    }
    if (conn->state == CONN_CONNECTING)
        return;
    if (conn->out.bytes > 0 && !conn->broken) {
        hold_or_copy(conn);
        if (conn->layer && !seal(conn))
            return;
    }
    bool ends = (conn->shut_wanted || conn->state == CONN_FINISHING) && conn->out.bytes == 0 && !conn->shut;
    if (ends && !conn->broken)
        say_end(conn);
    if (wire(conn)->bytes > 0 && !conn->broken) {
        if (!conn->send.pending)
            start_send(conn);
    } else if (ends && conn->shut_wanted) {
        do_shutdown(conn);
    }
    if (conn->state == CONN_FINISHING && wire(conn)->bytes == 0 && conn->out.bytes == 0)
        finish(conn);
}

static void tell_memory(const struct conn *conn) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_error("conn %llu: memory is out: it is closed", (unsigned long long)conn->id);
}

void conn_close(struct conn *conn, enum close_reason reason) {
    if (!conn || conn->state == CONN_CLOSING)
        return;
    if (conn->reason == CLOSE_none)
        conn->reason = reason;
    if (reason == CLOSE_memory)
        tell_memory(conn);
    set_state(conn, CONN_CLOSING);
    timer_stop(&conn->timer);
    list_remove(&conn->starved.link);
    ring_cancel(&conn->recv);
    ring_cancel(&conn->send);
    ring_flush_later(&conn->flusher);
}

void conn_finish(struct conn *conn, enum close_reason reason, uint64_t linger_ms) {
    if (conn->state != CONN_OPEN || conn->broken) {
        conn_close(conn, reason);
        return;
    }
    conn->reason = reason;
    conn->linger_ms = linger_ms;
    set_state(conn, CONN_FINISHING);
    pace_begin(&conn->pace, conn_taken(conn));
    timer_start(&conn->timer, pace_next_ms(&conn->pace, &conn->send_limits));
    ring_flush_later(&conn->flusher);
}

static void timed_out(struct timer *timer) {
    struct conn *conn = container_of(timer, struct conn, timer);
    if (conn->state != CONN_FINISHING)
        conn->handler->timeout(conn);
    else if (!conn->shut && pace_look(&conn->pace, &conn->send_limits, conn_taken(conn)) == PACE_GOOD)
        timer_start(&conn->timer, pace_next_ms(&conn->pace, &conn->send_limits));
    else
        conn_close(conn, conn->reason);
}

// ---- beginning --------------------------------------------------------------------------------------------

static struct conn *conn_new(int fd, const struct conn_handler *handler, void *owner) {
    struct conn *conn = slab_get(&conn_slab);
    if (!conn)
        return NULL;
    *conn =
        (struct conn){ .handler = handler, .owner = owner, .fd = fd, .id = ++last_id, .state = CONN_OPEN };
    conn->send_limits.stall_ms = STALL_MS;
    conn->linger_left = UINT64_MAX;
    queue_init(&conn->out);
    timer_init(&conn->timer, timed_out);
    op_init(&conn->recv, recv_done);
    op_init(&conn->send, send_done);
    list_init(&conn->flusher.link);
    conn->flusher.flush = flush;
    list_init(&conn->starved.link);
    conn->starved.fed = fed;
    list_init(&conn->pinning);
    list_init(&conn->link);
    conn->started_us = clock_us();
    count++;
    return conn;
}

struct conn *conn_accepted(int fd, const struct conn_handler *handler, void *owner) {
    struct conn *conn = conn_new(fd, handler, owner);
    if (!conn) {
        close(fd);
        return NULL;
    }
    conn->accepted = true;
    client_count++;
    return conn;
}

static void connect_done(struct op *op, const struct completion *c) {
    struct conn *conn = container_of(op, struct conn, send);
    if (conn->state == CONN_CLOSING) {
        ring_flush_later(&conn->flusher);
        return;
    }
    op_init(&conn->send, send_done);
    if (c->res == 0) {
        set_state(conn, CONN_OPEN);
        if (conn->want_read)
            arm_recv(conn);
        if (conn->out.bytes > 0)
            ring_flush_later(&conn->flusher);
    }
    conn->connected(conn, c->res);
}

static bool set(int fd, int level, int option, uint64_t value) {
    return setsockopt(fd, level, option, &(int){ (int)value }, sizeof(int)) == 0;
}

static bool keep_alive(int fd, const struct conf_connecting *how) {
    return set(fd, SOL_SOCKET, SO_KEEPALIVE, 1) &&
        (how->tcp_keepalive_idle == 0 ||
         set(fd, IPPROTO_TCP, TCP_KEEPIDLE, how->tcp_keepalive_idle / 1000)) &&
        (how->tcp_keepalive_interval == 0 ||
         set(fd, IPPROTO_TCP, TCP_KEEPINTVL, how->tcp_keepalive_interval / 1000)) &&
        (how->tcp_keepalive_count == 0 || set(fd, IPPROTO_TCP, TCP_KEEPCNT, how->tcp_keepalive_count));
}

// A port is chosen by connect(), so that one may serve several connections to different servers. An interface
// needs no privilege on a socket that is bound to none (Linux 5.7).
static bool bind_from(int fd, int family, const struct conf_connecting *how) {
    const struct addr *from = family == AF_INET ? &how->from4 : &how->from6;
    const char *interface = how->from_interface;
    if (interface &&
        setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strlen(interface) + 1) < 0)
        return false;
    return from->len == 0 ||
        (set(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1) && bind(fd, &from->sa, from->len) == 0);
}

static bool prepare(int fd, int family, const struct conf_connecting *how) {
    if (!bind_from(fd, family, how) || (how->tcp_keepalive && !keep_alive(fd, how)))
        return false;
    if (how->fast_open)  // what the system does not allow is no more than slower
        set(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
    return how->tcp_user_timeout == 0 || set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, how->tcp_user_timeout);
}

struct conn *conn_connect(const struct addr *addr, const struct conf_connecting *how,
                          void (*connected)(struct conn *conn, int error), const struct conn_handler *handler,
                          void *owner) {
    int fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        int error = errno;
        if (conn_means_exhausted(error))
            conn_exhausted(error);
        errno = error;
        return NULL;
    }
    if (addr->sa.sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
    if (how && addr->sa.sa_family != AF_UNIX && !prepare(fd, addr->sa.sa_family, how)) {
        int error = errno;
        close(fd);
        errno = error;
        return NULL;
    }
    struct conn *conn = conn_new(fd, handler, owner);
    if (!conn || !(conn->parts = calloc(1, sizeof *conn->parts))) {
        if (conn)
            conn_free(conn);
        else
            close(fd);
        errno = ENOMEM;
        return NULL;
    }
    conn->parts->remote = *addr;
    conn->state = CONN_CONNECTING;
    conn->connected = connected;
    conn->send.done = connect_done;
    ring_connect(&conn->send, fd, &conn->parts->remote.sa, conn->parts->remote.len);
    return conn;
}

void conn_set_layer(struct conn *conn, struct conn_layer *layer, const struct conn_layer_ops *ops) {
    *layer = (struct conn_layer){ .ops = ops };
    queue_init(&layer->wire);
    conn->layer = layer;
}

size_t conn_layer_waiting(const struct conn_layer *layer) {
    return layer->sealed;
}

void conn_deliver(struct conn *conn, struct span span) {
    if (conn->state == CONN_OPEN && !conn->layer->ended)
        conn->handler->data(conn, span);
    else
        block_unref(span.block);
}

void conn_deliver_end(struct conn *conn, int error) {
    if (conn->state != CONN_OPEN || conn->layer->ended)
        return;
    conn->layer->ended = true;
    conn_pause(conn);
    conn->handler->ended(conn, error);
}

void conn_deliver_broken(struct conn *conn, int error) {
    conn->handler->broken(conn, error);
}

void conn_adopt(struct conn *conn, const struct conn_handler *handler, void *owner) {
    conn->handler = handler;
    conn->owner = owner;
}

// ---- what is asked for now and then -----------------------------------------------------------------------

static struct conn_parts *parts_of(struct conn *conn) {
    if (!conn->parts)
        conn->parts = calloc(1, sizeof *conn->parts);
    return conn->parts;
}

static const struct addr *ask(struct conn *conn, bool remote) {
    static const struct addr unknown;
    struct conn_parts *parts = parts_of(conn);
    if (!parts)
        return &unknown;
    if (!remote && !parts->local && !(parts->local = calloc(1, sizeof *parts->local)))
        return &unknown;
    struct addr *addr = remote ? &parts->remote : parts->local;
    if (addr->len == 0) {
        socklen_t len = sizeof *addr - offsetof(struct addr, sa);
        if ((remote ? getpeername : getsockname)(conn->fd, &addr->sa, &len) < 0)
            *addr = unknown;
        else
            addr->len = len;
    }
    return addr;
}

const struct addr *conn_remote(struct conn *conn) {
    return ask(conn, true);
}

const struct addr *conn_local(struct conn *conn) {
    return ask(conn, false);
}

int conn_set_proxied(struct conn *conn, struct proxied *proxied) {
    const struct addr *remote = conn_remote(conn);
    (void)conn_local(conn);  // it makes its place
    struct conn_parts *parts = conn->parts;
    if (!parts || !parts->local)
        return -ENOMEM;
    proxied->proxy = *remote;
    if (proxied->source.len > 0)
        parts->remote = proxied->source;
    if (proxied->destination.len > 0)
        *parts->local = proxied->destination;
    parts->proxied = proxied;
    return 0;
}

const struct proxied *conn_proxied(const struct conn *conn) {
    return conn->parts ? conn->parts->proxied : NULL;
}

int conn_set_script(struct conn *conn, struct conn_script *script) {
    if (!script && !conn->parts)
        return 0;
    struct conn_parts *parts = parts_of(conn);
    if (!parts)
        return -ENOMEM;
    parts->script = script;
    return 0;
}

struct conn_script *conn_get_script(struct conn *conn) {
    return conn->parts ? conn->parts->script : NULL;
}

// ---- made up ----------------------------------------------------------------------------------------------

struct conn *conn_made_up(const struct addr *remote, const struct addr *local) {
    struct conn *conn = calloc(1, sizeof *conn);
    if (!conn || !(conn->parts = calloc(1, sizeof *conn->parts)) ||
        !(conn->parts->local = calloc(1, sizeof *conn->parts->local))) {
        if (conn)
            free(conn->parts);
        free(conn);
        return NULL;
    }
    conn->fd = -1;
    conn->id = ++last_id;
    conn->state = CONN_OPEN;
    conn->started_us = clock_us_now();
    conn->parts->remote = *remote;
    *conn->parts->local = *local;
    return conn;
}

void conn_unmake(struct conn *conn) {
    if (conn->parts->script)
        conn->parts->script->gone(conn->parts->script);
    handle_drop(conn->handle);
    free(conn->parts->local);
    free(conn->parts);
    free(conn);
}
