// SPDX-License-Identifier: BSD-2-Clause
// Sockets of scripts (gate.tcp, gate.udp): what the two kinds share. tcp.c, tcp_pool.c and udp.c build on it;
// lua/moongate/sockets.lua is the side of the scripts.
//
// Who owns what: a socket belongs to the hook, timer or task that opened it (struct task, `sockets`) and ends
// with it at the latest; its handle is stale from then on. What it had still to send leaves all the same,
// unless a part of it had not even got room. A TCP connection that the script gave to the pool belongs to the
// pool, until it is taken, lost, too old, one too many, or its host ends.
//
// To add a kind: a struct with a `struct socket` in it, an end(), functions in api.h.
// TLS is the wire's affair (struct socket_wire): tcp.c knows only that it is wanted, and who must answer.
#ifndef MOONGATE_SCRIPT_SOCKET_H
#define MOONGATE_SCRIPT_SOCKET_H

#include "base/handle.h"
#include "script/host.h"

//  X(errno, word, documentation): what scripts are told when the network fails
#define SOCKET_FAILURES(X) \
    X(0, "closed", "the peer ended the connection, or its sending side") \
    X(EPIPE, "closed", "the same, noticed while sending") \
    X(ETIMEDOUT, "timeout", "the time is over") \
    X(ECONNREFUSED, "refused", "nobody listens there") \
    X(ECONNRESET, "reset", "the peer broke the connection") \
    X(ECONNABORTED, "reset", "the same") \
    X(ENETUNREACH, "unreachable", "there is no way there") \
    X(EHOSTUNREACH, "unreachable", "there is no way there") \
    X(ENETDOWN, "unreachable", "there is no way there") \
    X(EHOSTDOWN, "unreachable", "there is no way there") \
    X(EADDRNOTAVAIL, "unreachable", "there is no way there, or no port is left") \
    X(ENOENT, "not found", "there is no such unix socket") \
    X(EACCES, "forbidden", "the worker's user may not") \
    X(EPERM, "forbidden", "the worker's user may not") \
    X(EMSGSIZE, "too large", "more than a datagram carries, or than the call takes") \
    X(EPROTOTYPE, "wrong kind", "a unix socket of the other kind") \
    X(EAGAIN, "busy", "the peer takes no more connections for now") \
    X(EMFILE, "exhausted", "descriptors or memory of this machine are used up") \
    X(ENFILE, "exhausted", "descriptors or memory of this machine are used up") \
    X(ENOBUFS, "exhausted", "descriptors or memory of this machine are used up") \
    X(ENOMEM, "exhausted", "descriptors or memory of this machine are used up")

enum {
    SOCKET_TARGET_MAX = 271,  // bytes of a name with its port, or of an address
    SOCKET_ADDRS_MAX = 8,     // of a name: the others are not tried
};

// Where a socket is to be connected to: an address, or the addresses of a name that route_allow lets in.
struct socket_target {
    char text[SOCKET_TARGET_MAX + 1];  // as the script gave it
    const struct conf_allow *allow;    // of a name; NULL: it is an address
    struct resolver_guide *guide;      // of a name; NULL: none
    struct resolver_ask *ask;          // while it is being resolved
    void (*resolved)(void *owner);
    void *owner;
    const char *why;                   // there is none
    uint16_t port;
    unsigned count, at;                // addrs[at] is the next to be tried
    struct addr addrs[SOCKET_ADDRS_MAX];
};

struct socket {
    struct list link;   // its task's, while a script has it; idle ones: of the pool's bucket
    struct script_host *host;
    uint64_t id;        // handle; 0: no script has it
    unsigned *held;     // how many its request, connection, timer or task has; while a script has it
    enum handle_kind kind;
};

// What carries the bytes: net/conn.c and net/datagram.c, or the made-up peers of a test (test_peers.c).
struct tcp;
struct udp;
struct socket_wire {
    // 0: tcp_connected() will be called, or tcp_refused(); or a negative errno.
    int (*tcp_connect)(struct tcp *tcp);
    // Takes bytes to be sent; how many, 0: none for now, tcp_written() will be called. Negative: -ENOMEM.
    ssize_t (*tcp_send)(struct tcp *tcp, const char *at, size_t len);
    void (*tcp_read)(struct tcp *tcp, bool want);
    void (*tcp_shutdown)(struct tcp *tcp);
    bool (*tcp_quiet)(struct tcp *tcp);                  // nothing has come
    void (*tcp_idle)(struct tcp *tcp, uint64_t ms);      // tcp_pool_lost() after that time; 0: no more
    // What was sent leaves; torn: it does not, the peer sees a reset. Nothing is called any more.
    void (*tcp_close)(struct tcp *tcp, bool torn);

    int (*udp_open)(struct udp *udp);                    // 0, or a negative errno
    int (*udp_send)(struct udp *udp, const char *at, size_t len);  // as datagram_send()
    int (*udp_receive)(struct udp *udp, char *at, size_t room, size_t *ret_len);
    void (*udp_await)(struct udp *udp, bool output);     // udp_ready() will be called
    void (*udp_close)(struct udp *udp);
};
extern const struct socket_wire *socket_wire;

// Gives a socket to the task that runs now. MG_OK; MG_NONE: a limit is reached, or memory is out; MG_ERROR:
// none runs. `more`: it needs a descriptor that is not counted yet.
int socket_take(struct socket *socket, enum handle_kind kind, void *object, bool more)
    __attribute__((warn_unused_result));
// No script has it any more.
void socket_leave(struct socket *socket);
// socket_target.c. MG_OK: it is an address or a name; MG_NONE and why it is neither; MG_ERROR.
int socket_target_set(struct socket_target *target, const char *at, size_t len)
    __attribute__((warn_unused_result));
// True when it is known, as addresses are and names may be: then `why` is set or there is an address. Else
// resolved(owner) is called then, once, from the ring's flush.
bool socket_target_find(struct socket_target *target, struct resolver *resolver,
                        void (*resolved)(void *owner), void *owner) __attribute__((warn_unused_result));
// The next address; NULL: there is no further one.
const struct addr *socket_target_next(struct socket_target *target);
void socket_target_release(struct socket_target *target);  // resolved() is not called any more

// Keeps the word for error_text() and returns MG_NONE. `error`: a negative errno or 0.
int socket_failure(int error);

// Who waits at one end of a socket: his ticket, 0 nobody. MG_WAIT, or MG_ERROR when another task waits there.
int socket_await(uint64_t *waiter) __attribute__((warn_unused_result));
void socket_wake(uint64_t *waiter);
// The task that runs now does not wait any more.
void socket_rest(uint64_t *waiter);

// tcp.c
void tcp_end(struct socket *socket);
void tcp_connected(struct tcp *tcp, int error);
void tcp_refused(struct tcp *tcp, const char *why);  // instead of it: connected, but no TLS came of it
void tcp_data(struct tcp *tcp, struct span span);  // takes the span
void tcp_ended(struct tcp *tcp, int error);
void tcp_written(struct tcp *tcp);
void tcp_broken(struct tcp *tcp, int error);
unsigned tcp_conn_count(void);  // descriptors

// udp.c
void udp_end(struct socket *socket);
void udp_ready(struct udp *udp, bool output);

#endif
