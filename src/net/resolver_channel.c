// SPDX-License-Identifier: BSD-2-Clause
// c-ares as the resolver uses it: whom it asks and for how long, its sockets, which the ring polls, and its
// time-outs. What it answers is resolver_lookup.c's.
#include "net/resolver_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define RESOLV_CONF "/etc/resolv.conf"

struct watched {
    struct op op;
    struct list link;
    struct resolver *resolver;  // NULL: c-ares has closed it
    int fd;
    unsigned wanted, armed;  // events
    bool in_use;             // c-ares is at work on it
};

// Closed while the kernel polled them: here they can be found until it lets go.
static struct list closing = { &closing, &closing };

// ---- sockets ----------------------------------------------------------------------------------------------

static void watch(struct watched *watched) {
    if (watched->op.pending) {
        ring_cancel(&watched->op);  // polled() goes on with what is wanted now
        return;
    }
    watched->armed = watched->wanted;
    ring_poll_once(&watched->op, watched->fd, watched->armed);
}

static void watched_free(struct watched *watched) {
    list_remove(&watched->link);
    free(watched);
}

static void polled(struct op *op, const struct completion *c) {
    struct watched *watched = container_of(op, struct watched, op);
    struct resolver *resolver = watched->resolver;
    if (resolver && c->res != -ECANCELED) {
        // An error is found by reading or writing.
        unsigned events = c->res < 0 ? POLLERR : (unsigned)c->res;
        bool bad = events & (POLLERR | POLLHUP | POLLNVAL);
        bool in = (watched->armed & POLLIN) && (bad || (events & POLLIN));
        bool out = (watched->armed & POLLOUT) && (bad || (events & POLLOUT));
        watched->in_use = true;
        ares_process_fd(resolver->channel, in ? watched->fd : ARES_SOCKET_BAD,
                        out ? watched->fd : ARES_SOCKET_BAD);
        watched->in_use = false;
        resolver_work_later(resolver);
    }
    if (!watched->resolver)
        watched_free(watched);
    else if (!watched->op.pending)
        watch(watched);
}

static struct watched *find_watched(const struct resolver *resolver, int fd) {
    list_each(link, &resolver->watched) {
        struct watched *watched = container_of(link, struct watched, link);
        if (watched->fd == fd)
            return watched;
    }
    return NULL;
}

// c-ares says what it waits for on a socket of its; for nothing when it is about to close it. The number may
// be used for another socket at once.
static void socket_changed(void *owner, ares_socket_t fd, int readable, int writable) {
    struct resolver *resolver = owner;
    struct watched *watched = find_watched(resolver, fd);
    unsigned wanted = (readable ? POLLIN : 0) | (writable ? POLLOUT : 0);
    if (!wanted) {
        if (!watched)
            return;
        watched->resolver = NULL;
        list_remove(&watched->link);
        list_push_back(&closing, &watched->link);
        if (watched->op.pending)
            ring_cancel(&watched->op);
        else if (!watched->in_use)
            watched_free(watched);
        return;
    }
    if (!watched) {
        watched = calloc(1, sizeof *watched);
        if (!watched)
            return;  // nothing will be heard there: it is a time-out
        watched->resolver = resolver;
        watched->fd = fd;
        op_init(&watched->op, polled);
        list_push_back(&resolver->watched, &watched->link);
    }
    bool changed = watched->wanted != wanted;
    watched->wanted = wanted;
    if (changed && !watched->in_use)
        watch(watched);
}

// ---- time-outs --------------------------------------------------------------------------------------------

static void process_timeouts(struct timer *timer) {
    struct resolver *resolver = container_of(timer, struct resolver, timer);
    ares_process_fd(resolver->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    resolver_work_later(resolver);
}

void channel_set_timer(struct resolver *resolver) {
    struct timeval left;
    if (ares_timeout(resolver->channel, NULL, &left))
        timer_start(&resolver->timer, (uint64_t)left.tv_sec * 1000 + (uint64_t)left.tv_usec / 1000 + 1);
    else
        timer_stop(&resolver->timer);
}

// ---- whom it asks -----------------------------------------------------------------------------------------

// How long the first try waits: c-ares doubles it with each round through the servers, and all rounds
// together are to take a little less than resolver_timeout: where the addresses of one family never come,
// those of the other are told in time.
static int first_try_ms(const struct conf_resolver *conf, unsigned servers) {
    uint64_t parts = servers * ((1ull << conf->tries) - 1);
    uint64_t ms = (conf->timeout - conf->timeout / 10) / (parts ? parts : 1);
    return ms < 20 ? 20 : (int)ms;
}

static int use_servers(struct resolver *resolver) {
    struct ares_addr_port_node *nodes = calloc(resolver->conf.server_count, sizeof *nodes);
    if (!nodes)
        return ARES_ENOMEM;
    for (unsigned i = 0; i < resolver->conf.server_count; i++) {
        const struct addr *addr = &resolver->conf.servers[i];
        nodes[i].family = addr_family(addr);
        nodes[i].udp_port = nodes[i].tcp_port = addr_port(addr);
        if (nodes[i].family == AF_INET)
            nodes[i].addr.addr4 = addr->in4.sin_addr;
        else
            memcpy(&nodes[i].addr.addr6, &addr->in6.sin6_addr, sizeof nodes[i].addr.addr6);
        nodes[i].next = i + 1 < resolver->conf.server_count ? &nodes[i + 1] : NULL;
    }
    int status = ares_set_servers_ports(resolver->channel, nodes);
    free(nodes);
    return status;
}

static unsigned system_servers(ares_channel channel) {
    struct ares_addr_port_node *nodes = NULL;
    unsigned count = 0;
    if (ares_get_servers_ports(channel, &nodes) == ARES_SUCCESS)
        for (const struct ares_addr_port_node *node = nodes; node; node = node->next)
            count++;
    ares_free_data(nodes);
    return count ? count : 1;
}

// Servers of the configuration are asked alone, for names as they are; else it is as on this system.
int channel_open(struct resolver *resolver, struct error *error) {
    const struct conf_resolver *conf = &resolver->conf;
    bool own = conf->server_count > 0;
    unsigned servers = conf->server_count;
    timer_init(&resolver->timer, process_timeouts);
    int status = ares_library_init(ARES_LIB_INIT_ALL);
    // Twice where the system says how many servers there are, as a time-out is set only with a channel's
    // making.
    for (int n = 0; n < 2 && status == ARES_SUCCESS; n++) {
        struct ares_options options = {
            .flags = own ? ARES_FLAG_NOSEARCH : 0,
            .timeout = first_try_ms(conf, servers ? servers : 1),
            .tries = (int)conf->tries,
            .lookups = own ? (char[]){ "b" } : (char[]){ "fb" },
            .sock_state_cb = socket_changed,
            .sock_state_cb_data = resolver,
        };
        int mask =
            ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
        if (own)
            mask |= ARES_OPT_DOMAINS;
        status = ares_init_options(&resolver->channel, &options, mask);
        if (status != ARES_SUCCESS || own || servers)
            break;
        servers = system_servers(resolver->channel);
        if (servers == 1)
            break;
        ares_destroy(resolver->channel);
        resolver->channel = NULL;
    }
    if (status == ARES_SUCCESS && own)
        status = use_servers(resolver);
    if (status == ARES_SUCCESS)
        return 0;
    return error_set(error, status == ARES_ENOMEM ? -ENOMEM : -EINVAL, "the resolver cannot be set up: %s",
                     ares_strerror(status));
}

void channel_close(struct resolver *resolver) {
    timer_stop(&resolver->timer);
    ares_destroy(resolver->channel);  // socket_changed() lets go of the sockets
    resolver->channel = NULL;
}

// ---- the system's file ------------------------------------------------------------------------------------

struct file_mark channel_system_mark(void) {
    struct stat found;
    if (stat(RESOLV_CONF, &found) < 0)
        return (struct file_mark){ 0 };
    return (struct file_mark){ found.st_mtim, found.st_ino, found.st_size };
}

bool file_mark_same(const struct file_mark *a, const struct file_mark *b) {
    return a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec &&
        a->inode == b->inode && a->size == b->size;
}
