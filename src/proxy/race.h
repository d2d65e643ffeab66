// SPDX-License-Identifier: BSD-2-Clause
// A race for one connection (Happy Eyeballs, RFC 8305): an attempt at one server, and where that takes longer than
// connect_stagger, or fails, attempts at others beside it. The first connection that is made wins, the others are
// let go. Which servers take part is the owner's affair (dial.c).
#ifndef MOONGATE_PROXY_RACE_H
#define MOONGATE_PROXY_RACE_H

#include "base/timer.h"
#include "proxy/attempt.h"

enum { RACE_LEGS = 4 };  // begun in one race at most

struct race;

// One server's part, with a place of it (server_take_place()) while it is live.
struct race_leg {
    struct waiter waiter;
    struct race *race;
    struct server *server;  // NULL: not begun, or over
    uint64_t began_us;
};

// Never called from within race_begin(). But for late() and a failed() that is not the last, the race is over by
// then, and may be freed at once.
struct race_ops {
    // With the server's place, which is the owner's from now on.
    void (*made)(struct race *race, struct server *server, struct client_codec *client, uint64_t began_us);
    // why: of a TLS handshake; NULL: of the connection itself. last: no other is live.
    void (*failed)(struct race *race, struct server *server, int error, const char *why, bool last);
    // The server has a connection, which has no room for this one: to be asked for anew. The place is given back.
    void (*again)(struct race *race, struct server *server);
    // One more server would be welcome: race_begin(), or race_end() when it has a connection that is idle, or
    // nothing at all.
    void (*late)(struct race *race);
};

struct race {
    const struct race_ops *ops;
    const struct conf_upstream *conf;  // of the first server
    struct timer timer;  // until the next one may begin, and at the latest until the end
    uint64_t ends_ms;    // connect_timeout after the first one began
    unsigned begun, live;
    struct race_leg legs[RACE_LEGS];
};

void race_init(struct race *race, const struct race_ops *ops);
// A place is taken and a connection to the server waited for. Negative errno when none could be begun. announced:
// of the client (announce.h), good for as long as the race goes on.
int race_begin(struct race *race, struct server *server, struct slice announced)
    __attribute__((warn_unused_result));
// The one of those that are live that began last; one is.
struct server *race_server(const struct race *race);
// Nobody waits any more. lost: because another server was faster, which is held against those that should have been
// connected to by now.
void race_end(struct race *race, bool lost);

#endif
