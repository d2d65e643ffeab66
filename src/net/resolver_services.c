// SPDX-License-Identifier: BSD-2-Clause
// Services (RFC 2782): asks for a name's SRV records, then for the addresses of each target, and tells all of
// it at once. Everything goes by way of resolver_ask(), so that the cache, its times and its bounds are the
// same as for addresses; this file remembers nothing.
#include "net/resolver.h"

#include "base/counters.h"

#include <stdlib.h>

struct target_ask {
    struct resolver_services_ask *whole;
    struct resolver_ask *ask;  // NULL: told
    struct dns_service service;
    struct addr *addrs;  // own
    unsigned count;
    enum dns_failure failure;
};

struct resolver_services_ask {
    struct resolver *resolver;
    struct resolver_guide *guide;
    void (*done)(void *owner, const struct resolver_services *services);
    void *owner;
    struct resolver_ask *ask;  // for the records; NULL: told
    struct target_ask *targets;
    unsigned count;
    unsigned waiting;  // for that many targets; one more while they are being asked for
    uint64_t left_ms;  // the shortest
    bool stale;
    bool beginning;  // in resolver_ask_services(), which frees it when it is over by then
    bool over;       // told
};

static void ask_free(struct resolver_services_ask *whole) {
    resolver_cancel(whole->ask);
    for (unsigned i = 0; i < whole->count; i++) {
        resolver_cancel(whole->targets[i].ask);
        free(whole->targets[i].addrs);
    }
    free(whole->targets);
    free(whole);
}

// It was told: it goes, unless resolver_ask_services() still looks at it.
static void end(struct resolver_services_ask *whole) {
    whole->over = true;
    if (!whole->beginning)
        ask_free(whole);
}

static void tell_failure(enum dns_failure failure, uint64_t left_ms,
                         void (*done)(void *owner, const struct resolver_services *services), void *owner) {
    const struct resolver_services services = {
        .left_ms = left_ms, .failure = failure, .text = dns_failure_text(failure)
    };
    done(owner, &services);
}

// All targets are told. What is told must stay while it is told; the ask need not.
static void tell(struct resolver_services_ask *whole) {
    struct resolver_place places[DNS_SERVICES_MAX];
    for (unsigned i = 0; i < whole->count; i++) {
        const struct target_ask *target = &whole->targets[i];
        places[i] = (struct resolver_place){ .priority = target->service.priority,
                                             .weight = target->service.weight,
                                             .port = target->service.port,
                                             .target = slice_make(target->service.target, target->service.len),
                                             .addrs = target->addrs,
                                             .count = target->count,
                                             .failure = target->failure };
    }
    const struct resolver_services services = {
        .places = places, .count = whole->count, .left_ms = whole->left_ms, .stale = whole->stale, .text = ""
    };
    whole->done(whole->owner, &services);
    end(whole);
}

static void target_told(void *owner, const struct resolver_answer *answer) {
    struct target_ask *target = owner;
    struct resolver_services_ask *whole = target->whole;
    target->ask = NULL;
    target->failure = answer->failure;
    if (answer->count > 0)
        target->addrs = malloc(answer->count * sizeof *answer->addrs);
    if (target->addrs) {
        target->count = answer->count;
        for (unsigned i = 0; i < answer->count; i++) {
            target->addrs[i] = answer->addrs[i];
            addr_set_port(&target->addrs[i], target->service.port);
        }
        whole->stale = whole->stale || answer->stale;
    } else if (answer->count > 0) {
        target->failure = DNS_memory;
    }
    if (answer->left_ms < whole->left_ms)
        whole->left_ms = answer->left_ms;
    if (--whole->waiting == 0)
        tell(whole);
}

static void records_told(void *owner, const struct resolver_answer *answer) {
    struct resolver_services_ask *whole = owner;
    whole->ask = NULL;
    whole->targets = answer->count > 0 ? calloc(answer->count, sizeof *whole->targets) : NULL;
    if (!whole->targets) {
        enum dns_failure failure = answer->count > 0 ? DNS_memory : answer->failure;
        tell_failure(failure, answer->left_ms, whole->done, whole->owner);
        end(whole);
        return;
    }
    whole->count = answer->count;
    whole->left_ms = answer->left_ms;
    whole->stale = answer->stale;
    whole->waiting = answer->count + 1;
    for (unsigned i = 0; i < whole->count; i++)
        whole->targets[i] = (struct target_ask){ .whole = whole, .service = answer->services[i] };
    for (unsigned i = 0; i < whole->count; i++) {
        struct target_ask *target = &whole->targets[i];
        target->ask =
            resolver_ask(whole->resolver, whole->guide, slice_make(target->service.target, target->service.len), AF_UNSPEC,
                         target_told, target);
    }
    if (--whole->waiting == 0)
        tell(whole);
}

struct resolver_services_ask *resolver_ask_services(
    struct resolver *resolver, struct resolver_guide *guide, struct slice name,
    void (*done)(void *owner, const struct resolver_services *services), void *owner) {
    struct resolver_services_ask *whole = calloc(1, sizeof *whole);
    if (!whole) {
        tell_failure(DNS_memory, 0, done, owner);
        return NULL;
    }
    *whole = (struct resolver_services_ask){
        .resolver = resolver, .guide = guide, .done = done, .owner = owner, .beginning = true
    };
    whole->ask = resolver_ask(resolver, guide, name, DNS_SERVICES, records_told, whole);
    whole->beginning = false;
    if (!whole->over)
        return whole;
    ask_free(whole);
    return NULL;
}

void resolver_cancel_services(struct resolver_services_ask *ask) {
    if (ask)
        ask_free(ask);
}
