// SPDX-License-Identifier: BSD-2-Clause
// Made-up peers of the sockets that scripts open in a test (gate.tcp, gate.udp): a wire (socket.h) that
// carries bytes to the test's side (lua/test/peers.lua), which looks at the events and says what the peer
// does. What a peer sends comes in the next turn, as it would from the kernel.
#include "script/test_world.h"

#include "base/check.h"
#include "script/tcp.h"
#include "script/udp.h"

#include <errno.h>
#include <stdlib.h>

struct made_datagram {
    struct made_datagram *next;
    struct text text;
};

// One connection, or one socket for datagrams, as its peer sees it.
struct made {
    struct tcp *tcp;  // one of them; both NULL: it is closed
    struct udp *udp;
    struct ring_flush flusher;
    struct timer idle;
    bool answered;       // whether it is connected was said: then `error`
    bool told;           // and the socket knows
    bool wants, ending;  // what it reads; the peer has ended it, with end_error
    int error, end_error;
    struct text pending;               // sent by the peer, not taken yet
    struct made_datagram *first;
    bool waits;                        // for a datagram
};

static struct made **made;
static unsigned count;
static struct peer_event *events;
static unsigned event_first, event_count;

static void tell(enum peer_event_kind kind, unsigned peer, const char *at, size_t len) {
    events = world_grow(events, event_count, sizeof *events);
    struct peer_event *event = &events[event_count++];
    *event = (struct peer_event){ .kind = kind, .peer = peer };
    text_add(&event->text, at, len);
}

bool made_event(struct peer_event *ret_event) {
    if (event_first == event_count) {
        event_first = event_count = 0;
        return false;
    }
    *ret_event = events[event_first++];
    return true;
}

// ---- what happens in the next turn ------------------------------------------------------------------------

static void deliver(struct made *peer) {
    size_t taken = 0;
    while (peer->tcp && peer->wants && taken < peer->pending.len) {
        size_t len = peer->pending.len - taken;
        len = len > TCP_BUFFER ? TCP_BUFFER : len;
        struct block *block = block_new(len);
        check_fatal(block);
        memcpy(block->base, peer->pending.at + taken, len);
        block->used = (uint32_t)len;
        taken += len;
        tcp_data(peer->tcp, (struct span){ block, block->base, (uint32_t)len });
    }
    if (taken > 0) {
        struct text rest = { 0 };
        text_add(&rest, peer->pending.at + taken, peer->pending.len - taken);
        text_release(&peer->pending);
        peer->pending = rest;
    }
}

static void turn(struct ring_flush *flusher) {
    struct made *peer = container_of(flusher, struct made, flusher);
    if (peer->udp) {
        if (peer->waits && (peer->first || peer->error < 0)) {
            peer->waits = false;
            udp_ready(peer->udp, false);
        }
        return;
    }
    if (peer->tcp && peer->answered && !peer->told) {
        peer->told = true;
        tcp_connected(peer->tcp, peer->error);
    }
    if (peer->told && peer->error == 0)
        deliver(peer);
    if (peer->tcp && peer->ending && peer->pending.len == 0 && peer->told) {
        peer->ending = false;
        if (peer->end_error < 0)
            tcp_broken(peer->tcp, peer->end_error);
        if (peer->tcp)
            tcp_ended(peer->tcp, peer->end_error);
    }
}

static void idle_too_long(struct timer *timer) {
    tcp_pool_lost(container_of(timer, struct made, idle)->tcp);
}

// ---- the wire ---------------------------------------------------------------------------------------------

static struct made *make(const struct socket_target *target, const struct addr *addr, bool datagrams,
                         unsigned *ret_number) {
    char text[ADDR_TEXT_MAX];
    struct made *peer = calloc(1, sizeof *peer);
    check_fatal(peer);
    made = world_grow(made, count, sizeof *made);
    made[count++] = peer;
    list_init(&peer->flusher.link);
    peer->flusher.flush = turn;
    timer_init(&peer->idle, idle_too_long);
    *ret_number = count;
    tell(datagrams ? PEER_OPENED : PEER_CONNECTS, count, text, addr_print(addr, text));
    if (target->allow) {
        struct text *all = &events[event_count - 1].text;  // and the name
        text_add(all, "", 1);
        text_add(all, target->text, strlen(target->text));
    }
    return peer;
}

static int tcp_connect(struct tcp *tcp) {
    make(&tcp->target, &tcp->addr, false, &tcp->peer)->tcp = tcp;
    return 0;
}

static ssize_t tcp_send(struct tcp *tcp, const char *at, size_t len) {
    tell(PEER_SENT, tcp->peer, at, len);
    return (ssize_t)len;
}

static void tcp_read(struct tcp *tcp, bool want) {
    struct made *peer = made[tcp->peer - 1];
    peer->wants = want;
    if (want && peer->pending.len > 0)
        ring_flush_later(&peer->flusher);
}

static void tcp_shutdown(struct tcp *tcp) {
    tell(PEER_SHUT, tcp->peer, "", 0);
}

static bool tcp_quiet(struct tcp *tcp) {
    const struct made *peer = made[tcp->peer - 1];
    return peer->pending.len == 0 && !peer->ending;
}

static void tcp_idle(struct tcp *tcp, uint64_t ms) {
    struct made *peer = made[tcp->peer - 1];
    if (ms > 0)
        timer_start(&peer->idle, ms);
    else
        timer_stop(&peer->idle);
}

static void gone(unsigned number) {
    struct made *peer = made[number - 1];
    if (!peer->tcp && !peer->udp)
        return;
    peer->tcp = NULL;
    peer->udp = NULL;
    timer_stop(&peer->idle);
    list_remove(&peer->flusher.link);
    tell(PEER_CLOSED, number, "", 0);
}

static void tcp_close(struct tcp *tcp, bool torn) {
    (void)torn;  // all that was sent has arrived
    if (tcp->peer > 0)
        gone(tcp->peer);
    tcp->peer = 0;
}

static int udp_open(struct udp *udp) {
    make(&udp->target, &udp->addr, true, &udp->peer)->udp = udp;
    return 0;
}

static int udp_send(struct udp *udp, const char *at, size_t len) {
    if (len > 65507)
        return -EMSGSIZE;
    tell(PEER_SENT, udp->peer, at, len);
    return 0;
}

static int udp_receive(struct udp *udp, char *at, size_t room, size_t *ret_len) {
    struct made *peer = made[udp->peer - 1];
    struct made_datagram *datagram = peer->first;
    if (!datagram) {
        int error = peer->error < 0 ? peer->error : -EAGAIN;
        peer->error = 0;
        return error;
    }
    peer->first = datagram->next;
    size_t len = datagram->text.len;
    if (len <= room)
        memcpy(at, datagram->text.at, len);
    text_release(&datagram->text);
    free(datagram);
    *ret_len = len;
    return len <= room ? 0 : -EMSGSIZE;
}

static void udp_await(struct udp *udp, bool output) {
    struct made *peer = made[udp->peer - 1];
    peer->waits |= !output;
    ring_flush_later(&peer->flusher);
}

static void udp_close(struct udp *udp) {
    if (udp->peer > 0)
        gone(udp->peer);
}

static const struct socket_wire wire_made_up = {
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

// ---- what the test's side says ----------------------------------------------------------------------------

unsigned made_count(void) {
    return count;
}

bool made_answer(unsigned number, const char *word) {
    struct made *peer = made[number - 1];
    int error = word ? 1 : 0;
#define X(code, text, doc)                                    \
    if (error == 1 && code != 0 && strcmp(word, text) == 0) \
        error = -(code);
    SOCKET_FAILURES(X)
#undef X
    if (error == 1)
        return false;
    peer->answered = true;
    peer->error = error;
    ring_flush_later(&peer->flusher);
    return true;
}

void made_push(unsigned number, struct slice text) {
    struct made *peer = made[number - 1];
    if (!peer->tcp && !peer->udp)
        return;
    if (peer->tcp) {
        text_add(&peer->pending, text.at, text.len);
    } else {
        struct made_datagram *datagram = calloc(1, sizeof *datagram), **at = &peer->first;
        check_fatal(datagram);
        text_add(&datagram->text, text.at, text.len);
        while (*at)
            at = &(*at)->next;
        *at = datagram;
    }
    ring_flush_later(&peer->flusher);
}

void made_end(unsigned number, bool reset) {
    struct made *peer = made[number - 1];
    if (!peer->tcp)
        return;
    peer->ending = true;
    peer->end_error = reset ? -ECONNRESET : 0;
    ring_flush_later(&peer->flusher);
}

// ---- life -------------------------------------------------------------------------------------------------

void made_begin(void) {
    socket_wire = &wire_made_up;
}

void made_release(void) {
    struct peer_event event;
    while (made_event(&event))
        text_release(&event.text);
    for (unsigned i = 0; i < count; i++) {
        while (made[i]->first) {
            struct made_datagram *datagram = made[i]->first;
            made[i]->first = datagram->next;
            text_release(&datagram->text);
            free(datagram);
        }
        text_release(&made[i]->pending);
        free(made[i]);
    }
    free(made);
    free(events);
    made = NULL;
    events = NULL;
    count = 0;
    socket_wire = &wire_real;
}
