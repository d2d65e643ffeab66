// SPDX-License-Identifier: BSD-2-Clause
// A TCP (or unix stream) socket of a script, for the files that know its inside: tcp.c, tcp_pool.c, wire.c
// and the made-up peers of tests.
#ifndef MOONGATE_SCRIPT_TCP_H
#define MOONGATE_SCRIPT_TCP_H

#include "net/eyeballs.h"
#include "script/api.h"
#include "script/socket.h"

enum {
    TCP_BUFFER = 65536,   // bytes that wait in each direction; more only while a call asks for more
    TCP_POOL_NAME = 64,
    TCP_TLS_NAME = 253,
    TCP_WHY = 160,
};

// What TLS a script wants.
struct tcp_tls {
    enum { TCP_PLAIN, TCP_TLS_VERIFIED, TCP_TLS_ANYBODY } how;  // as api.h has it
    struct tls_client *trust;  // NULL: fetch_ca's; a reference
    char *name;                // that the certificate must have; NULL: as the address says. Owned
};

enum tcp_state {
    TCP_RESOLVING,   // a script has it; target.ask is set, or target.why
    TCP_CONNECTING,  // a script has it; failure is set when it could not connect
    TCP_OPEN,        // a script has it
    TCP_IDLE,        // in the pool, nobody has it
};

// Where a search for a pattern stands: the first `at` bytes of what came were looked at, and end with
// `matched` bytes of the pattern.
struct tcp_search {
    size_t at;
    uint8_t len, matched;
    uint8_t fall[MG_PATTERN_MAX];  // how much still matches when the byte behind so many does not
    char pattern[MG_PATTERN_MAX];
};

struct tcp {
    struct socket base;
    enum tcp_state state;
    struct conn *conn;      // with a made-up peer NULL
    struct eyeballs eyeballs;  // the wire's: CONNECTING
    unsigned peer;          // its number
    struct socket_target target;
    struct addr addr;       // that it is connected to
    char pool[TCP_POOL_NAME + 1];
    struct tcp_tls tls;
    char why[TCP_WHY];      // CONNECTING: there is no TLS with it; empty: not known to be so
    struct list recent;     // IDLE: among the worker's, the last used first
    unsigned reused;        // how often it was taken from the pool
    struct queue in;        // what came and was not received
    size_t shown;           // bytes at its front that Lua has copied
    size_t wake_at;         // the reader goes on when so much is there
    uint64_t reader, writer;
    int failure;            // CONNECTING: negative errno
    int end_error, break_error;
    bool ended;             // nothing more will come: end_error says how it ended
    bool broken;            // nothing more will leave: break_error
    bool shut;              // the script has ended its side
    bool torn;              // of what it sends a part had no room yet: were it to end now, the peer should
                            // know
    struct tcp_search search;
};

extern const struct socket_wire wire_real;  // wire.c

// tcp_pool.c: an idle connection, NULL: there is none.
struct tcp *tcp_pool_take(struct script_host *host, const struct socket_target *target, const char *pool,
                          const struct tcp_tls *tls);
// Takes it; 0, or -ENOSPC: it was not wanted and is closed.
int tcp_pool_put(struct tcp *tcp, uint64_t idle_ms, unsigned most);
// An idle one has ended, in whatever way.
void tcp_pool_lost(struct tcp *tcp);
// Closes the one unused for longest; false: there is none.
bool tcp_pool_shed(void);

void tcp_free(struct tcp *tcp);  // the wire is closed, no script has it

#endif
