// SPDX-License-Identifier: BSD-2-Clause
// Where sockets of scripts are connected to: an address as it is, a name by way of the generation's resolver,
// of whose addresses route_allow of the frontend lets some in. Asked by tcp.c and udp.c.
#include "net/resolver.h"
#include "base/host_name.h"
#include "proxy/allow.h"
#include "script/api_impl.h"
#include "script/socket.h"

static void take(struct socket_target *target, const struct resolver_answer *answer) {
    for (unsigned i = 0; i < answer->count && target->count < SOCKET_ADDRS_MAX; i++)
        if (allow_addr(target->allow, &answer->addrs[i])) {
            struct addr *addr = &target->addrs[target->count++];
            *addr = answer->addrs[i];
            addr_set_port(addr, target->port);
        }
    if (target->count == 0)
        target->why = answer->count > 0 ? "denied" : answer->text;
}

// Called at once when the answer is known: then the asker sees, and is not told.
static void answered(void *owner, const struct resolver_answer *answer) {
    struct socket_target *target = owner;
    bool later = target->ask != NULL;
    target->ask = NULL;
    take(target, answer);
    if (later)
        target->resolved(target->owner);
}

int socket_target_set(struct socket_target *target, const char *at, size_t len) {
    struct slice name;
    struct error error;
    if (!task_running)
        return mg_error("sockets are for hooks, timers and tasks: a script must not wait while it loads");
    *target = (struct socket_target){ 0 };
    if (len > 0 && len <= SOCKET_TARGET_MAX && at[0] != '*') {
        memcpy(target->text, at, len);
        if (host_name_split(slice_make(at, len), &name, &target->port)) {
            if (!task_running->chain->host->resolver)
                return mg_error("there is no resolver here");
            target->allow = task_settings(task_running)->route_allow;
            target->guide = task_guide(task_running);
            return MG_OK;
        }
        if (addr_parse(slice_make(at, len), &target->addrs[0], &error) == 0 &&
            (addr_family(&target->addrs[0]) == AF_UNIX || addr_port(&target->addrs[0]) != 0)) {
            target->count = 1;
            return MG_OK;
        }
    }
    mg_error("this is no address: give one with a port, a name with a port, or unix:/path");
    return MG_NONE;
}

bool socket_target_find(struct socket_target *target, struct resolver *resolver,
                        void (*resolved)(void *owner), void *owner) {
    if (!target->allow)
        return true;
    target->resolved = resolved;
    target->owner = owner;
    struct slice name = slice_make(target->text, strcspn(target->text, ":"));
    target->ask = resolver_ask(resolver, target->guide, name, AF_UNSPEC, answered, target);
    return !target->ask;
}

const struct addr *socket_target_next(struct socket_target *target) {
    return target->at < target->count ? &target->addrs[target->at++] : NULL;
}

void socket_target_release(struct socket_target *target) {
    resolver_cancel(target->ask);
    target->ask = NULL;
}
