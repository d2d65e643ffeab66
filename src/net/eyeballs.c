// SPDX-License-Identifier: BSD-2-Clause
// Connecting to several addresses beside each other (eyeballs.h).
#include "net/eyeballs.h"

#include <errno.h>

static void connected(struct conn *conn, int error);

// Nobody is told of the time here: the owner's own limit ends it.
static const struct conn_handler handler = { 0 };

// Of the other family than the one that was begun last, if there is one.
static const struct addr *choose(struct eyeballs *eyeballs) {
    const struct addr *found = NULL, *last = NULL;
    uint64_t newest = 0;
    for (unsigned i = 0; i < EYEBALLS_BESIDE; i++)
        if (eyeballs->conns[i] && eyeballs->conns[i]->id >= newest) {
            newest = eyeballs->conns[i]->id;
            last = conn_remote(eyeballs->conns[i]);
        }
    for (unsigned i = 0; i < eyeballs->count; i++) {
        const struct addr *addr = &eyeballs->addrs[i];
        if (eyeballs->tried & 1u << i)
            continue;
        found = found ? found : addr;
        if (!last || addr_family(addr) != addr_family(last)) {
            found = addr;
            break;
        }
    }
    if (found)
        eyeballs->tried |= 1u << (found - eyeballs->addrs);
    return found;
}

static int begin(struct eyeballs *eyeballs, const struct addr *addr) {
    struct conn *conn = conn_connect(addr, NULL, connected, &handler, eyeballs);
    int rc = conn ? 0 : -errno;
    if (rc == 0 && eyeballs->began && (rc = eyeballs->began(conn)) < 0)
        conn_close(conn, CLOSE_memory);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < EYEBALLS_BESIDE; i++)
        if (!eyeballs->conns[i]) {
            eyeballs->conns[i] = conn;
            break;
        }
    eyeballs->live++;
    if (eyeballs->stagger > 0)
        timer_start(&eyeballs->timer, eyeballs->stagger);
    return 0;
}

// One more, if there is one and room for it; `error` when none could be begun.
static int next(struct eyeballs *eyeballs, int error) {
    const struct addr *addr;
    while (eyeballs->live < EYEBALLS_BESIDE && (addr = choose(eyeballs)) != NULL)
        if ((error = begin(eyeballs, addr)) == 0)
            return 0;
    return error;
}

static void fired(struct timer *timer) {
    (void)next(container_of(timer, struct eyeballs, timer), 0);
}

static void leave(struct eyeballs *eyeballs, const struct conn *conn) {
    for (unsigned i = 0; i < EYEBALLS_BESIDE; i++)
        if (eyeballs->conns[i] == conn)
            eyeballs->conns[i] = NULL;
    eyeballs->live--;
}

static void connected(struct conn *conn, int error) {
    struct eyeballs *eyeballs = conn->owner;
    leave(eyeballs, conn);
    if (eyeballs->live == 0)
        timer_stop(&eyeballs->timer);
    if (error == 0) {
        eyeballs_stop(eyeballs);
        eyeballs->done(eyeballs, conn, conn_remote(conn), 0);
        return;
    }
    conn_close(conn, CLOSE_upstream_connect);
    error = next(eyeballs, error);
    if (eyeballs->live == 0)
        eyeballs->done(eyeballs, NULL, NULL, error);
}

void eyeballs_init(struct eyeballs *eyeballs,
                   void (*done)(struct eyeballs *eyeballs, struct conn *conn, const struct addr *addr, int error)) {
    *eyeballs = (struct eyeballs){ .done = done };
    timer_init(&eyeballs->timer, fired);
}

int eyeballs_start(struct eyeballs *eyeballs, const struct addr *addrs, unsigned count, uint64_t stagger) {
    eyeballs->addrs = addrs;
    eyeballs->count = count < EYEBALLS_ADDRS ? count : EYEBALLS_ADDRS;
    eyeballs->tried = 0;
    eyeballs->stagger = stagger;
    return next(eyeballs, -EADDRNOTAVAIL);
}

void eyeballs_stop(struct eyeballs *eyeballs) {
    if (eyeballs->live == 0)
        return;
    timer_stop(&eyeballs->timer);
    for (unsigned i = 0; i < EYEBALLS_BESIDE; i++) {
        struct conn *conn = eyeballs->conns[i];
        eyeballs->conns[i] = NULL;
        conn_close(conn, CLOSE_none);
    }
    eyeballs->live = 0;
}
