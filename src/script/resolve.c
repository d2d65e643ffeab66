// SPDX-License-Identifier: BSD-2-Clause
// Names that scripts ask for (gate.resolve), for addresses or for services: one ask at the generation's resolver (net/resolver.h) for each,
// with its answer until the script has read it. Lua calls the functions at the end through api.h
// (lua/moongate/resolve.lua).
#include "script/host.h"

#include "base/handle.h"
#include "base/slab.h"
#include "net/resolver.h"
#include "proxy/allow.h"
#include "script/api_impl.h"

#include <stdlib.h>
#include <string.h>

enum { RESOLUTIONS_MAX = 10000 };  // of a worker: a client may be what makes a script begin them

struct resolved_service {
    uint16_t priority, weight, port;
    unsigned first, count;  // of the addresses
    uint8_t len;
    char target[DNS_NAME_MAX + 1];
};

struct resolution {
    struct resolver_ask *ask;        // NULL: it is over, or for services
    struct resolver_services_ask *services_ask;
    uint64_t id;                     // its handle
    uint64_t ticket;                 // of the task that waits, 0: none does
    const struct conf_allow *allow;  // NULL: any
    struct addr *addrs;
    unsigned count;
    struct resolved_service *services;  // what is told, instead of addresses, where these were asked for
    unsigned service_count;
    uint32_t ttl;
    bool over, stale;
    const char *text;  // with `over` and no addresses: why
};

static struct slab resolution_slab = SLAB_INIT(sizeof(struct resolution), 64);
static unsigned count;

// Takes what of the answer is wanted; *ret_text says why it is nothing.
static unsigned take(struct resolution *resolution, const struct resolver_answer *answer,
                     const char **ret_text) {
    unsigned taken = 0;
    *ret_text = answer->text;
    if (answer->count == 0)
        return 0;
    resolution->addrs = malloc(answer->count * sizeof *answer->addrs);
    *ret_text =
        resolution->addrs ? "route_allow lets none of its addresses in" : dns_failure_text(DNS_memory);
    for (unsigned i = 0; i < answer->count && resolution->addrs; i++)
        if (!resolution->allow || allow_addr(resolution->allow, &answer->addrs[i]))
            resolution->addrs[taken++] = answer->addrs[i];
    return taken;
}

// Scripts count in seconds, of which the last one may have begun.
static void over(struct resolution *resolution, uint64_t left_ms, bool stale) {
    resolution->over = true;
    resolution->ttl = (uint32_t)((left_ms + 999) / 1000);
    resolution->stale = stale;
    if (resolution->ticket)
        task_unpark(resolution->ticket);
    resolution->ticket = 0;
}

static void answered(void *owner, const struct resolver_answer *answer) {
    struct resolution *resolution = owner;
    resolution->ask = NULL;
    resolution->count = take(resolution, answer, &resolution->text);
    over(resolution, answer->left_ms, answer->stale);
}

// A service none of whose addresses are let in is told without any.
static void take_services(struct resolution *resolution, const struct resolver_services *answer) {
    unsigned addrs = 0;
    resolution->text = answer->text;
    for (unsigned i = 0; i < answer->count; i++)
        addrs += answer->places[i].count;
    if (answer->count == 0)
        return;
    resolution->text = dns_failure_text(DNS_memory);
    resolution->addrs = malloc((addrs ? addrs : 1) * sizeof *resolution->addrs);
    resolution->services = calloc(answer->count, sizeof *resolution->services);
    if (!resolution->addrs || !resolution->services)
        return;
    for (unsigned i = 0; i < answer->count; i++) {
        const struct resolver_place *place = &answer->places[i];
        struct resolved_service *service = &resolution->services[i];
        *service = (struct resolved_service){ .priority = place->priority,
                                              .weight = place->weight,
                                              .port = place->port,
                                              .first = resolution->count,
                                              .len = (uint8_t)place->target.len };
        memcpy(service->target, place->target.at, place->target.len);
        for (unsigned n = 0; n < place->count; n++)
            if (!resolution->allow || allow_addr(resolution->allow, &place->addrs[n]))
                resolution->addrs[resolution->count++] = place->addrs[n];
        service->count = resolution->count - service->first;
    }
    resolution->service_count = answer->count;
}

static void answered_services(void *owner, const struct resolver_services *answer) {
    struct resolution *resolution = owner;
    resolution->services_ask = NULL;
    take_services(resolution, answer);
    over(resolution, answer->left_ms, answer->stale);
}

static struct resolution *resolution_of(double id) {
    return handle_get(HANDLE_RESOLUTION, mg_handle(id));
}

int mg_resolve_new(const char *name, size_t len, int family, int allowed, double *ret_resolution) {
    struct script_host *host = task_running ? task_running->chain->host : NULL;
    if (!host)
        return mg_error("gate.resolve is for hooks, timers and tasks: a script must not wait while it loads");
    if (!host->resolver)
        return mg_error("there is no resolver here");
    if (count >= RESOLUTIONS_MAX)
        return mg_error("%u names are being resolved already", count);
    struct resolution *resolution = slab_get(&resolution_slab);
    if (!resolution)
        return mg_error("memory is out");
    *resolution = (struct resolution){ .allow = allowed ? task_settings(task_running)->route_allow : NULL };
    resolution->id = handle_new(HANDLE_RESOLUTION, resolution);
    if (!resolution->id) {
        slab_put(&resolution_slab, resolution);
        return mg_error("memory is out");
    }
    count++;
    struct resolver_guide *guide = task_guide(task_running);
    if (family == MG_SERVICES) {
        resolution->services_ask =
            resolver_ask_services(host->resolver, guide, slice_make(name, len), answered_services, resolution);
        *ret_resolution = (double)resolution->id;
        return MG_OK;
    }
    int af = family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC;
    resolution->ask = resolver_ask(host->resolver, guide, slice_make(name, len), af, answered, resolution);
    *ret_resolution = (double)resolution->id;
    return MG_OK;
}

int mg_resolve_result(double id, struct mg_resolved *ret_resolved) {
    struct resolution *resolution = resolution_of(id);
    if (!resolution)
        return MG_STALE;
    if (!resolution->over) {
        resolution->ticket = task_running ? task_running->ticket : 0;
        return resolution->ticket ? MG_WAIT : mg_error("nothing could wake it");
    }
    unsigned found = resolution->services ? resolution->service_count : resolution->count;
    if (found == 0)
        return mg_error("%s", resolution->text);
    *ret_resolved = (struct mg_resolved){ resolution->ttl, (int32_t)found, resolution->stale };
    return MG_OK;
}

int mg_resolve_service(double id, uint32_t at, struct mg_service *ret_service) {
    struct resolution *resolution = resolution_of(id);
    if (!resolution)
        return MG_STALE;
    if (at >= resolution->service_count)
        return MG_NONE;
    const struct resolved_service *service = &resolution->services[at];
    *ret_service = (struct mg_service){
        .priority = service->priority,
        .weight = service->weight,
        .port = service->port,
        .first = service->first,
        .count = service->count,
    };
    mg_text_set(&ret_service->target, slice_make(service->target, service->len));
    return MG_OK;
}

int mg_resolve_address(double id, uint32_t at, struct mg_text *ret_ip) {
    static char text[ADDR_IP_MAX];
    struct resolution *resolution = resolution_of(id);
    if (!resolution)
        return MG_STALE;
    if (at >= resolution->count)
        return MG_NONE;
    size_t len = addr_print_ip(&resolution->addrs[at], text);
    mg_text_set(ret_ip, slice_make(text, len));
    return MG_OK;
}

int mg_resolve_close(double id) {
    struct resolution *resolution = resolution_of(id);
    if (!resolution)
        return MG_NONE;
    resolver_cancel(resolution->ask);
    resolver_cancel_services(resolution->services_ask);
    handle_drop(resolution->id);
    free(resolution->addrs);
    free(resolution->services);
    slab_put(&resolution_slab, resolution);
    count--;
    return MG_OK;
}
