// SPDX-License-Identifier: BSD-2-Clause
// Idle connections of scripts (sock:keepalive()): found again by address and name, of the same host only, the
// last used first. Bounded by script_sockets_idle for the worker and by what keepalive() says for one address
// and name.
#include "script/tcp.h"

#include "base/counters.h"

#include <errno.h>

enum { BUCKETS = 256 };

static struct list buckets[BUCKETS];
static struct list recent = { &recent, &recent };
static unsigned count;

static struct list *bucket_of(const struct script_host *host, const char *target, const char *pool) {
    if (!buckets[0].next)
        for (unsigned i = 0; i < BUCKETS; i++)
            list_init(&buckets[i]);
    uint64_t hash = slice_hash(slice_of(target), host->generation);
    return &buckets[slice_hash(slice_of(pool), hash) % BUCKETS];
}

static bool same_tls(const struct tcp_tls *a, const struct tcp_tls *b) {
    return a->how == b->how && a->trust == b->trust && strcmp(a->name ? a->name : "", b->name ? b->name : "") == 0;
}

// What one route_allow let in another one may not; nor what one set of authorities vouched for.
static bool same(const struct tcp *tcp, const struct script_host *host, const struct socket_target *target,
                 const char *pool, const struct tcp_tls *tls) {
    return same_tls(&tcp->tls, tls) && tcp->base.host == host && strcmp(tcp->target.text, target->text) == 0 &&
        tcp->target.allow == target->allow && strcmp(tcp->pool, pool) == 0;
}

static void take_out(struct tcp *tcp) {
    list_remove(&tcp->base.link);
    list_remove(&tcp->recent);
    count--;
    counters->script_sockets_idle--;
    socket_wire->tcp_idle(tcp, 0);
}

void tcp_pool_lost(struct tcp *tcp) {
    take_out(tcp);
    socket_wire->tcp_close(tcp, false);
    tcp_free(tcp);
}

bool tcp_pool_shed(void) {
    if (count == 0)
        return false;
    tcp_pool_lost(container_of(recent.prev, struct tcp, recent));
    return true;
}

struct tcp *tcp_pool_take(struct script_host *host, const struct socket_target *target, const char *pool,
                          const struct tcp_tls *tls) {
    struct list *bucket = bucket_of(host, target->text, pool);
    list_each(link, bucket) {
        struct tcp *tcp = container_of(link, struct tcp, base.link);
        if (!same(tcp, host, target, pool, tls))
            continue;
        if (!socket_wire->tcp_quiet(tcp)) {
            tcp_pool_lost(tcp);
            continue;
        }
        take_out(tcp);
        tcp->state = TCP_OPEN;
        tcp->reused++;
        counters->script_sockets_reused++;
        return tcp;
    }
    return NULL;
}

// Makes room for one more of the pool: the one unused for longest goes.
static void make_room(struct list *bucket, const struct tcp *for_one, unsigned most) {
    unsigned others = 0;
    list_each(link, bucket) {
        struct tcp *tcp = container_of(link, struct tcp, base.link);
        if (same(tcp, for_one->base.host, &for_one->target, for_one->pool, &for_one->tls) && ++others >= most)
            tcp_pool_lost(tcp);
    }
}

int tcp_pool_put(struct tcp *tcp, uint64_t idle_ms, unsigned most) {
    struct script_host *host = tcp->base.host;
    if (host->conf->script_sockets_idle == 0) {
        socket_wire->tcp_close(tcp, false);
        tcp_free(tcp);
        return -ENOSPC;
    }
    struct list *bucket = bucket_of(host, tcp->target.text, tcp->pool);
    make_room(bucket, tcp, most);
    while (count >= host->conf->script_sockets_idle)
        tcp_pool_shed();
    tcp->state = TCP_IDLE;
    list_push_front(bucket, &tcp->base.link);
    list_push_front(&recent, &tcp->recent);
    count++;
    counters->script_sockets_idle++;
    socket_wire->tcp_read(tcp, true);  // so that its end is noticed
    socket_wire->tcp_idle(tcp, idle_ms);
    return 0;
}

void sockets_forget(const struct script_host *host) {
    list_each(link, &recent) {
        struct tcp *tcp = container_of(link, struct tcp, recent);
        if (tcp->base.host == host)
            tcp_pool_lost(tcp);
    }
}
