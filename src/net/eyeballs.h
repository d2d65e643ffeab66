// SPDX-License-Identifier: BSD-2-Clause
// One connection to one of several addresses of the same peer (Happy Eyeballs, RFC 8305): where an address is not
// reached in the stagger another is connected to beside it, where one fails the next begins at once, and the first
// connection wins. The families take turns. For what is no server of an upstream (those race in proxy/race.h): tunnels
// and sockets of scripts.
#ifndef MOONGATE_NET_EYEBALLS_H
#define MOONGATE_NET_EYEBALLS_H

#include "base/timer.h"
#include "net/conn.h"

enum {
    EYEBALLS_ADDRS = 32,  // the others are not tried
    EYEBALLS_BESIDE = 4,  // connections that are being made at the same time
};

// Embedded in its owner, who stops it before it goes.
struct eyeballs {
    // One is there, its owner is still this: it is adopted, or closed. NULL: there is none, `error` of the last one.
    // Never called from within eyeballs_start(). This may be started again or freed.
    void (*done)(struct eyeballs *eyeballs, struct conn *conn, const struct addr *addr, int error);
    // For each conn when it begins: 0, or a negative errno and it is closed. May be NULL.
    int (*began)(struct conn *conn);
    const struct addr *addrs;  // the owner's
    unsigned count;
    uint32_t tried;            // bit n: addrs[n] was begun
    uint64_t stagger;          // milliseconds, 0: one at a time
    struct timer timer;
    unsigned live;
    struct conn *conns[EYEBALLS_BESIDE];
};

void eyeballs_init(struct eyeballs *eyeballs,
                   void (*done)(struct eyeballs *eyeballs, struct conn *conn, const struct addr *addr, int error));
// addrs: good until it is done or stopped. 0, or the negative errno of the last one when none could be begun.
int eyeballs_start(struct eyeballs *eyeballs, const struct addr *addrs, unsigned count, uint64_t stagger)
    __attribute__((warn_unused_result));
// Nothing is called any more. Also where nothing is under way, or all of it is zero.
void eyeballs_stop(struct eyeballs *eyeballs);

#endif
