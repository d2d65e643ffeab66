// SPDX-License-Identifier: BSD-2-Clause
// The C API of scripts for the servers of upstreams: what all workers know of them, and what scripts want of
// them (proxy/standing.h). lua/moongate/servers.lua makes tables of it.
#include "base/clock.h"
#include "proxy/upstream.h"
#include "script/api_impl.h"
#include "script/host.h"

static struct upstream *find(const char *name, size_t len) {
    if (host_running && host_running->upstreams)
        list_each(link, host_running->upstreams) {
            struct upstream *upstream = container_of(link, struct upstream, link);
            if (slice_eq(slice_of(upstream->conf->name), slice_make(name, len)))
                return upstream;
        }
    return NULL;
}

static int no_upstream(const char *name, size_t len) {
    return mg_error("there is no upstream \"%.*s\" here", (int)(len < 100 ? len : 100), name);
}

int mg_server_at(const char *upstream_name, size_t len, uint32_t index, struct mg_server *ret_server) {
    static char address[ADDR_TEXT_MAX];
    struct upstream *upstream = find(upstream_name, len);
    if (!upstream)
        return no_upstream(upstream_name, len);
    if (index >= upstream->server_count)
        return MG_NONE;
    const struct server *server = upstream->servers[index];
    struct standing_counts sum = { .active = server->active, .requests = server->counts->requests };
    if (upstream->standings && standing_is_shared(server->standing))
        standing_sum(upstream->standings, server->standing, &sum);
    mg_text_set(&ret_server->address, slice_make(address, addr_print(&server->addr, address)));
    mg_text_set(&ret_server->name, slice_of(server->name));
    mg_text_set(&ret_server->state, slice_of(standing_state(server->standing, clock_ms())));
    mg_text_set(&ret_server->admin, slice_of(standing_admin_name(server_admin(server))));
    ret_server->weight = (double)server_weight(server);
    ret_server->active = (double)sum.active;
    ret_server->requests = (double)sum.requests;
    return MG_OK;
}

int mg_server_set(const char *upstream_name, size_t len, const char *address, size_t address_len, int admin,
                  int weight) {
    char text[ADDR_TEXT_MAX];
    struct upstream *upstream = find(upstream_name, len);
    if (!upstream)
        return no_upstream(upstream_name, len);
    for (unsigned i = 0; i < upstream->server_count; i++) {
        struct server *server = upstream->servers[i];
        if (!slice_eq(slice_make(text, addr_print(&server->addr, text)), slice_make(address, address_len)))
            continue;
        if (admin >= 0)
            atomic_store(&server->standing->admin, (uint32_t)admin);
        if (weight >= 0)
            atomic_store(&server->standing->weight, (uint32_t)weight);
        return MG_OK;
    }
    return MG_NONE;
}
