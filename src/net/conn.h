// SPDX-License-Identifier: BSD-2-Clause
// A conn is a byte stream to one peer, whatever carries it. This header is all that codecs, pools and relays
// know.
//
// Who owns what: the conn owns its descriptor, its operations and its output queue; it belongs to the codec
// (or pool, or relay) whose handler it carries, until conn_close() or conn_finish(); then it belongs to
// itself, drains its last completions and frees itself. No handler is called after that.
#ifndef MOONGATE_NET_CONN_H
#define MOONGATE_NET_CONN_H

#include "base/addr.h"
#include "base/block.h"
#include "base/pace.h"
#include "base/timer.h"
#include "net/peers.h"
#include "ring/ring.h"

struct conn;
struct conn_layer;
struct conf_connecting;

//  X(name, documentation): why a connection ended; the reason of its last exchange, too. Feeds the log and
//  the counters.
#define CLOSE_REASONS(X) \
    X(none, "still open, or ended in the normal way") \
    X(client_closed, "the client closed the connection") \
    X(client_reset, "the client reset the connection or it broke") \
    X(proxy_header, "no PROXY header came where proxy_protocol wants one, or a bad one") \
    X(proxy_denied, "proxy_protocol_from does not name the peer") \
    X(tls_handshake, "the TLS handshake failed") \
    X(tls_timeout, "the TLS handshake was not done in tls_handshake_timeout") \
    X(header_timeout, "the request head was not complete in header_timeout") \
    X(body_timeout, "no byte of the request body came within body_timeout") \
    X(send_timeout, "the client took no byte within send_timeout") \
    X(min_rate, "the client sent less than body_min_rate or took less than send_min_rate") \
    X(keepalive_timeout, "the connection was idle for keepalive_timeout") \
    X(tunnel_timeout, "no byte passed a tunnel within tunnel_timeout") \
    X(bad_request, "the client broke the protocol") \
    X(limit, "a configured limit was passed") \
    X(shed, "closed while it was idle, to make room for others") \
    X(rejected, "a script rejected the connection") \
    X(script_error, "a script failed") \
    X(script_abort, "a script's body hook gave the message up") \
    X(no_route, "no route and no script said where to") \
    X(upstream_name, "the name of a server that a script gave could not be resolved") \
    X(upstream_denied, "the name of a server that a script gave stands for no address that route_allow lets in") \
    X(upstream_connect, "no upstream server could be connected to") \
    X(upstream_tls, "the TLS handshake with the upstream server failed") \
    X(upstream_timeout, "the upstream server did not answer in time") \
    X(upstream_busy, "no server of the upstream was free (max_active), and the queue was full or too slow") \
    X(upstream_none, "no server of the upstream may be asked: all are down, set so or not resolved") \
    X(upstream_closed, "the upstream server closed the connection too early") \
    X(upstream_reset, "the connection to the upstream server broke") \
    X(upstream_protocol, "the upstream server broke the protocol") \
    X(outrun, "another server answered sooner (hedge)") \
    X(drain, "the worker or the listener is going away") \
    X(memory, "memory is out") \
    X(overload, "the worker is at its memory_limit") \
    X(internal, "a defect of moongate")

enum close_reason {
#define X(name, doc) CLOSE_##name,
    CLOSE_REASONS(X)
#undef X
    CLOSE_REASON_COUNT
};
const char *close_reason_name(enum close_reason reason);
const char *close_reason_text(enum close_reason reason);  // its documentation

struct conn_handler {
    // Bytes came; takes the span. May still be called after conn_pause(), with what was under way.
    void (*data)(struct conn *conn, struct span span);
    // The peer will send no more: error 0 (orderly) or negative errno. Called once.
    void (*ended)(struct conn *conn, int error);
    // Some output left; conn_waiting() is what still waits.
    void (*written)(struct conn *conn);
    // Output failed: negative errno. Called once; nothing more will leave.
    void (*broken)(struct conn *conn, int error);
    // conn->timer fired.
    void (*timeout)(struct conn *conn);
    // After conn_await(): bytes wait to be read, or the end, or an error.
    void (*readable)(struct conn *conn);
};

enum conn_state {
    CONN_CONNECTING,  // connect op pending; no read, no write yet
    CONN_OPEN,        // descriptor valid, handler set
    CONN_FINISHING,   // no handler: output drains, shutdown, reads are thrown away until EOF or linger time
    CONN_CLOSING,     // no handler: operations were cancelled, waiting for the last completion
};

enum conn_reading {
    READING_OFF,      // no recv pending
    READING_WATCHING, // a poll for the peer's end is pending, as the recv op
    READING_MULTI,    // multishot recv armed
    READING_ONCE,     // a single bounded recv pending
    READING_STOPPING, // cancel sent, bytes may still come; then OFF, or on again when wanted meanwhile
    READING_STARVED,  // on the ring's list of those who wait for receive buffers
    READING_ENDED,    // EOF or an error was delivered
};

struct conn {
    const struct conn_handler *handler;
    void *owner;               // of the handler
    struct queue out;          // what is to be sent, in order; without a layer the front may be in the
                               // kernel's hands
    struct conn_layer *layer;  // net/conn_layer.h; NULL: the output is sent as it is
    struct timer timer;        // one time-out at a time, for the owner
    struct op recv, send;
    struct ring_flush flusher;
    struct ring_starved starved;
    struct list pinning;       // on conn.c's list of those whose output holds receive buffers
    uint32_t in_flight;        // bytes of the front of the output, or of the wire, that the kernel has
    struct list link;          // on the worker's list of client conns, or in a pool: the owner's use
    const char *listener;      // accepted: its name, which lives as long as the process; the owner sets it
    uint64_t id;               // unique in this worker's life
    uint64_t handle;           // base/handle.h; 0 until a script asks
    uint64_t started_us;       // monotonic: accepted or connect begun
    uint64_t bytes_in, bytes_out;
    int fd;
    enum conn_state state;
    enum conn_reading reading;
    enum close_reason reason;  // why it was closed or finished
    bool want_read;            // the owner reads (between conn_read and conn_pause)
    uint32_t bulk;             // not 0: single reads of at most so many bytes, not multishot; set by
                               // the owner once a receiver was slow
    bool secure;               // encrypted: requests of it are https
    bool early;                // what comes may be somebody's copy of what the peer sent before (RFC 8470)
    bool shut;                 // our sending side was shut down
    bool shut_wanted;          // shut it down when the output has drained
    bool broken;               // output failed
    bool reset;                // close with RST
    bool slow;                 // the last send was short: the receiver is slower than we are
    bool accepted;             // from a listener: counted by conn_client_count()
    uint8_t index;             // free for the owner (the relay: which side it is)
    struct pace pace;          // of what the owner watches; FINISHING: of the output
    struct pace_limits send_limits;  // FINISHING: how slowly the output may leave; the owner sets it
    uint64_t linger_ms;        // FINISHING: how long to read on after the output
    uint64_t linger_left;      // FINISHING: how many bytes to read on; the owner sets it
    void (*connected)(struct conn *conn, int error);
    struct peer *peer;         // net/peers.h, left when the conn is freed; NULL: not counted
    struct conn_parts *parts;  // less used: addresses, script state; allocated on demand (conn.c)
};

// From an accepted descriptor (taken; closed on failure). NULL when memory is out.
struct conn *conn_accepted(int fd, const struct conn_handler *handler, void *owner)
    __attribute__((warn_unused_result));
// Begins to connect; connected(conn, 0 or negative errno) is called later, never at once. On failure the conn
// must be closed. NULL with errno set when no socket or memory can be had, or what `how` demands cannot be done.
// how: conf/conf.h; NULL: as the system likes.
struct conn *conn_connect(const struct addr *addr, const struct conf_connecting *how, void (*connected)(struct conn *conn, int error),
                          const struct conn_handler *handler, void *owner)
    __attribute__((warn_unused_result));
// Gives the conn to a new owner.
void conn_adopt(struct conn *conn, const struct conn_handler *handler, void *owner);

// Before the first conn_read(): reads nothing, but calls ended(): -ECONNRESET when the peer is gone, 0 (and
// later perhaps again) when it will send no more. Only conn_read() and conn_close() may follow.
void conn_watch(struct conn *conn);
// Before the first conn_read(), which may follow: calls readable() once.
void conn_await(struct conn *conn);
// What waits to be read, without waiting: how many bytes, 0 at the end, or a negative errno (-EAGAIN). peek: they stay.
ssize_t conn_receive(struct conn *conn, char *to, size_t room, bool peek) __attribute__((warn_unused_result));
void conn_read(struct conn *conn);   // deliver bytes from now on
void conn_pause(struct conn *conn);  // deliver no more than what is under way
// Call after putting something on conn->out: the send is submitted before the ring waits again.
void conn_flush(struct conn *conn);
// Bytes of output that the kernel has not taken yet, whatever layer they are in: what a slow receiver is known
// by, and whether all has left.
size_t conn_layer_waiting(const struct conn_layer *layer);
static inline size_t conn_waiting(const struct conn *conn) {
    return conn->out.bytes + (conn->layer ? conn_layer_waiting(conn->layer) : 0);
}
// The peer's end was delivered: nothing more will come.
bool conn_ended(const struct conn *conn);
// Bytes that the peer has acknowledged (for unix sockets: read, more or less). Only differences mean
// something.
uint64_t conn_taken(const struct conn *conn);
// False when a byte or the end waits to be read in the kernel: asked of a connection that ought to be idle,
// before something that cannot be taken back is sent.
bool conn_quiet(const struct conn *conn);
// Puts bytes before all that waits to be sent, also before what a layer has put on the wire. Only while nothing
// was ever sent. -ENOMEM.
int conn_put_first(struct conn *conn, struct slice bytes) __attribute__((warn_unused_result));
// Half-close after the output.
void conn_shutdown(struct conn *conn);
// Ends the conn at once; queued output is dropped. NULL is allowed. conn->reset makes the peer see a reset,
// so that a message that only the connection's end delimits cannot be taken for whole.
void conn_close(struct conn *conn, enum close_reason reason);
// Sends what is queued, shuts down, reads on for linger_ms and linger_left bytes so that the peer gets it
// (RFC 9112, 9.6), closes.
void conn_finish(struct conn *conn, enum close_reason reason, uint64_t linger_ms);

// The peer's and our own address; asked from the kernel once. A zero family when unknown.
const struct addr *conn_remote(struct conn *conn);
const struct addr *conn_local(struct conn *conn);

// What the proxy in front has said of the connection (net/proxy_header.h), which the conn owns from now on: from here
// on it is the client that is remote, not the proxy. -ENOMEM.
struct proxied;
int conn_set_proxied(struct conn *conn, struct proxied *proxied) __attribute__((warn_unused_result));
const struct proxied *conn_proxied(const struct conn *conn);  // NULL: none

// A place for the script layer: its record of this conn, released with it. gone() is called when the conn is
// freed.
struct conn_script {
    void (*gone)(struct conn_script *script);
};
// NULL clears it.
int conn_set_script(struct conn *conn, struct conn_script *script) __attribute__((warn_unused_result));
struct conn_script *conn_get_script(struct conn *conn);

// A connection to nobody, for tests of scripts (script/test_traffic.c): it has addresses, an id and a place for
// scripts, and carries nothing. NULL when memory is out. Only conn_unmake() ends it.
struct conn *conn_made_up(const struct addr *remote, const struct addr *local)
    __attribute__((warn_unused_result));
void conn_unmake(struct conn *conn);

unsigned conn_count(void);         // of this process, with those that drain
unsigned conn_client_count(void);  // those of them that were accepted

// No descriptor, or no memory of the kernel's, was left for a connection that should be accepted or made: a
// positive errno. Filled in by the worker; does nothing else.
extern void (*conn_exhausted)(int error);
bool conn_means_exhausted(int error);

#endif
