// SPDX-License-Identifier: BSD-2-Clause
// Datagram sockets of scripts (gate.udp). Lua calls the functions at the end through api.h
// (lua/moongate/sockets.lua); what was not received waits in the kernel (net/datagram.h).
#include "script/udp.h"

#include "base/counters.h"
#include "base/slab.h"
#include "net/datagram.h"
#include "script/api_impl.h"

#include <errno.h>

enum { SHARE = 64 };  // else a peer that floods could hold the worker in a loop of the script

static struct slab udp_slab = SLAB_INIT(sizeof(struct udp), 64);

void udp_end(struct socket *socket) {
    struct udp *udp = container_of(socket, struct udp, base);
    socket_leave(socket);
    socket_wake(&udp->reader);
    socket_wake(&udp->writer);
    socket_target_release(&udp->target);
    socket_wire->udp_close(udp);
    slab_put(&udp_slab, udp);
}

void udp_ready(struct udp *udp, bool output) {
    if (!output)
        udp->share = SHARE;
    socket_wake(output ? &udp->writer : &udp->reader);
}

static struct udp *udp_of(double id) {
    return handle_get(HANDLE_UDP, mg_handle(id));
}

// With the first address that the system has a way to: whether anybody is there, nobody can tell.
static void open_next(struct udp *udp) {
    const struct addr *addr;
    while (!udp->open && (addr = socket_target_next(&udp->target))) {
        udp->addr = *addr;
        udp->failure = socket_wire->udp_open(udp);
        udp->open = udp->failure == 0;
    }
}

static void resolved(void *owner) {
    struct udp *udp = owner;
    open_next(udp);
    socket_wake(&udp->reader);
}

int mg_udp_connect(const char *address, size_t len, double *ret_socket) {
    struct udp *udp = slab_get(&udp_slab);
    if (!udp)
        return socket_failure(-ENOMEM);
    *udp = (struct udp){ .share = SHARE };
    int rc = socket_target_set(&udp->target, address, len);
    if (rc == MG_OK)
        rc = socket_take(&udp->base, HANDLE_UDP, udp, true);
    if (rc != MG_OK) {
        slab_put(&udp_slab, udp);
        return rc;
    }
    counters->script_sockets++;
    if (socket_target_find(&udp->target, udp->base.host->resolver, resolved, udp))
        open_next(udp);
    *ret_socket = (double)udp->base.id;
    return MG_OK;
}

int mg_udp_connected(double id) {
    struct udp *udp = udp_of(id);
    if (!udp)
        return MG_STALE;
    if (udp->open)
        return MG_OK;
    if (udp->failure < 0)
        return socket_failure(udp->failure);
    if (!udp->target.why)
        return socket_await(&udp->reader);
    mg_error("%s", udp->target.why);
    return MG_NONE;
}

int mg_udp_send(double id, const char *at, size_t len) {
    struct udp *udp = udp_of(id);
    if (!udp)
        return MG_STALE;
    int rc = socket_wire->udp_send(udp, at, len);
    if (rc == -EAGAIN) {
        rc = socket_await(&udp->writer);
        if (rc == MG_WAIT)
            socket_wire->udp_await(udp, true);
        return rc;
    }
    return rc < 0 ? socket_failure(rc) : MG_OK;
}

int mg_udp_receive(double id, double most, struct mg_text *ret_text) {
    static char buffer[DATAGRAM_MAX];  // Lua copies it before the next call
    struct udp *udp = udp_of(id);
    size_t len;
    if (!udp)
        return MG_STALE;
    size_t room = most < DATAGRAM_MAX ? (size_t)most : DATAGRAM_MAX;
    int rc = udp->share > 0 ? socket_wire->udp_receive(udp, buffer, room, &len) : -EAGAIN;
    if (rc == -EAGAIN) {
        rc = socket_await(&udp->reader);
        if (rc == MG_WAIT)
            socket_wire->udp_await(udp, false);
        return rc;
    }
    udp->share--;
    if (rc < 0)
        return socket_failure(rc);
    mg_text_set(ret_text, slice_make(buffer, len));
    return MG_OK;
}

int mg_udp_rest(double id) {
    struct udp *udp = udp_of(id);
    if (!udp)
        return MG_STALE;
    socket_rest(&udp->reader);
    socket_rest(&udp->writer);
    return MG_OK;
}

int mg_udp_close(double id) {
    struct udp *udp = udp_of(id);
    if (!udp)
        return MG_NONE;
    udp_end(&udp->base);
    return MG_OK;
}
