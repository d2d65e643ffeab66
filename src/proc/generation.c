// SPDX-License-Identifier: BSD-2-Clause
// Builds a generation from the master's source, and counts who holds it (generation.h). This is where scripts
// meet frontends: proxy/ knows only callbacks. worker.c decides which generation is in use.
#include "proc/generation.h"

#include "base/log.h"
#include "conf/source.h"
#include "net/resolver.h"
#include "tls/client.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

static struct list generations = { &generations, &generations };

static enum step_result run_connect(void *scripts, struct conn *conn, bool *ret_reject,
                                    void (*decided)(struct conn *conn, void *owner, bool reject),
                                    void *owner) {
    return script_connect(scripts, conn, ret_reject, decided, owner);
}

static void cancel_connect(void *scripts, struct conn *conn) {
    script_connect_cancel(scripts, conn);
}

static enum step_result run_tls_hello(void *scripts, struct conn *conn, bool *ret_reject,
                                      void (*decided)(struct conn *conn, void *owner, bool reject),
                                      void *owner) {
    return script_tls_hello(scripts, conn, ret_reject, decided, owner);
}

static enum step_result run_tls_done(void *scripts, struct conn *conn, bool *ret_reject,
                                     void (*decided)(struct conn *conn, void *owner, bool reject), void *owner) {
    return script_tls_done(scripts, conn, ret_reject, decided, owner);
}

static const struct connect_hook connect_hook = { run_connect, cancel_connect };
static const struct connect_hook tls_hello_hook = { run_tls_hello, cancel_connect };
static const struct connect_hook tls_done_hook = { run_tls_done, cancel_connect };

// Frontends go first: they name scripts and upstreams.
static void generation_free(struct generation *generation) {
    log_debug("generation %llu is freed", (unsigned long long)generation->id);
    stapler_free(generation->stapler);
    for (unsigned i = 0; i < generation->site_count; i++)
        frontend_free(generation->sites[i].frontend);
    free(generation->sites);
    if (generation->scripts)
        script_host_free(generation->scripts);
    address_book_release(&generation->addresses);
    list_each(link, &generation->upstreams) upstream_free(container_of(link, struct upstream, link));
    resolver_unref(generation->resolver);
    if (generation->conf)
        conf_free(generation->conf);
    if (generation->source)
        source_free(generation->source);
    list_remove(&generation->link);
    free(generation);
    // A generation is many small pieces among longer-lived ones: what they leave behind would stay resident.
    malloc_trim(0);
}

// What is known of names stays known when only other things change.
static int load_resolver(struct generation *generation, struct error *error) {
    list_each(link, &generations) {
        const struct generation *other = container_of(link, struct generation, link);
        if (other->resolver && resolver_fits(other->resolver, &generation->conf->resolver)) {
            generation->resolver = resolver_ref(other->resolver);
            return 0;
        }
    }
    return resolver_new(&generation->conf->resolver, &generation->resolver, error);
}

// The upstream of that name in the generation that is in use.
static const struct upstream *upstream_before(const struct generation *generation, const char *name) {
    list_each(link, &generations) {
        const struct generation *other = container_of(link, struct generation, link);
        if (other == generation || !other->wanted)
            continue;
        list_each(of, &other->upstreams) {
            const struct upstream *upstream = container_of(of, struct upstream, link);
            if (strcmp(upstream->conf->name, name) == 0)
                return upstream;
        }
    }
    return NULL;
}

static int load_upstreams(struct generation *generation, struct upstream_options options,
                          struct error *error) {
    for (const struct conf_upstream *conf = generation->conf->upstreams; conf; conf = conf->next) {
        options.before = upstream_before(generation, conf->name);
        struct upstream *upstream = upstream_new(conf, &options);
        if (!upstream)
            return error_set(error, -ENOMEM, "memory is out");
        list_push_back(&generation->upstreams, &upstream->link);
        int rc = conf->tls
            ? tls_client_new(generation->conf, conf->tls, conf->protocol, &upstream->tls, error)
            : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int load_frontends(struct generation *generation, struct error *error) {
    unsigned count = 0;
    for (const struct conf_frontend *conf = generation->conf->frontends; conf; conf = conf->next)
        count++;
    generation->sites = calloc(count ? count : 1, sizeof *generation->sites);
    if (!generation->sites)
        return error_set(error, -ENOMEM, "memory is out");
    for (const struct conf_frontend *conf = generation->conf->frontends; conf; conf = conf->next) {
        struct script_chain *chain = script_chain_of(generation->scripts, conf);
        const struct frontend_options options = {
            .conf = generation->conf,
            .frontend = conf,
            .upstreams = &generation->upstreams,
            .addresses = &generation->addresses,
            .hooks = chain ? script_chain_hooks(chain) : NULL,
            .connect = chain && script_chain_has_connect(chain) ? &connect_hook : NULL,
            .tls_hello = chain && script_chain_has_tls_hello(chain) ? &tls_hello_hook : NULL,
            .tls_done = chain && script_chain_has_tls_done(chain) ? &tls_done_hook : NULL,
            .scripts = chain,
            .guide = chain ? script_chain_guide(chain) : NULL,
            .hold = generation_hold,
            .drop = generation_drop,
            .generation = generation,
        };
        struct generation_site *site = &generation->sites[generation->site_count];
        int code = frontend_new(&options, &site->frontend, error);
        if (code < 0)
            return code;
        if (chain)
            script_chain_set_inner(chain, frontend_inner_site(site->frontend));
        site->conf = conf;
        generation->site_count++;
    }
    return 0;
}

static int load(struct generation *generation, const struct generation_options *options,
                struct error *error) {
    int code = source_new_memory(options->source_fd, &generation->source, error);
    if (code == 0)
        code = conf_load(options->file, generation->source, &generation->conf, error);
    if (code == 0)
        code = load_resolver(generation, error);
    if (code == 0) {
        generation->addresses.defaults = &generation->conf->of_address;
        generation->addresses.conf = generation->conf;
        generation->addresses.resolver = generation->resolver;
        code = load_upstreams(
            generation,
            (struct upstream_options){ .standings = options->standings, .worker = options->worker,
                                       .resolver = generation->resolver },
            error);
    }
    if (code == 0) {
        const struct script_options scripts = {
            .conf = generation->conf,
            .source = generation->source,
            .dicts = options->dicts,
            .dict_count = options->dict_count,
            .probe = options->probe,
            .metrics = options->metrics,
            .upstreams = &generation->upstreams,
            .resolver = generation->resolver,
            .generation = options->id,
            .worker = options->worker,
        };
        code = script_host_new(&scripts, &generation->scripts, error);
    }
    list_each(link, &generation->upstreams) {
        struct upstream *upstream = container_of(link, struct upstream, link);
        upstream->check_script = generation->scripts ? script_health() : NULL;
        upstream->scripts = generation->scripts;
    }
    if (code == 0)
        code = load_frontends(generation, error);
    // With scripts that are asked first it is for when they are in use.
    if (code == 0 && !script_host_guide(generation->scripts))
        list_each(link, &generation->upstreams) upstream_resolve(container_of(link, struct upstream, link), NULL);
    for (unsigned i = 0; code == 0 && i < generation->site_count; i++)
        code = stapler_add(&generation->stapler, generation->sites[i].frontend, error);
    return code;
}

int generation_load(const struct generation_options *options, struct generation **ret_generation,
                    struct error *error) {
    struct generation *generation = calloc(1, sizeof *generation);
    if (!generation)
        return error_set(error, -ENOMEM, "memory is out");
    generation->id = options->id;
    generation->wanted = true;
    list_init(&generation->upstreams);
    address_book_init(&generation->addresses, NULL);
    list_push_front(&generations, &generation->link);
    int code = load(generation, options, error);
    if (code < 0) {
        generation_free(generation);
        return code;
    }
    *ret_generation = generation;
    return 0;
}

void generation_go(struct generation *generation) {
    list_each(link, &generation->upstreams)
        upstream_go(container_of(link, struct upstream, link), &generation->conf->settings);
    script_host_go(generation->scripts);
    struct resolver_guide *guide = script_host_guide(generation->scripts);
    if (guide)
        list_each(link, &generation->upstreams) upstream_resolve(container_of(link, struct upstream, link), guide);
    if (generation->stapler)
        stapler_go(generation->stapler);
}

void generation_unwant(struct generation *generation) {
    if (!generation)
        return;
    generation->wanted = false;
    list_each(link, &generation->upstreams) upstream_stop(container_of(link, struct upstream, link));
    if (generation->stapler)
        stapler_stop(generation->stapler);
    script_host_retire(generation->scripts);
}

void generation_hold(void *generation) {
    ((struct generation *)generation)->exchanges++;
}

void generation_drop(void *generation) {
    ((struct generation *)generation)->exchanges--;
}

void generation_reap(void) {
    list_each(link, &generations) {
        struct generation *generation = container_of(link, struct generation, link);
        if (!generation->wanted && generation->exchanges == 0 && script_host_end(generation->scripts))
            generation_free(generation);
    }
}

struct frontend *generation_frontend(const struct generation *generation, const char *listener_name) {
    for (unsigned i = 0; i < generation->site_count; i++)
        for (const struct conf_listen *listen = generation->sites[i].conf->listens; listen;
             listen = listen->next)
            if (strcmp(listen->name, listener_name) == 0)
                return generation->sites[i].frontend;
    return NULL;
}

bool generation_none(void) {
    return list_empty(&generations);
}

void generation_publish(struct heritage_worker *shared) {
    int at = 0;
    list_each(link, &generations) {
        const struct generation *generation = container_of(link, struct generation, link);
        if (at == HERITAGE_GENERATIONS)
            return;
        atomic_store_explicit(&shared->generations[at].exchanges, generation->exchanges,
                              memory_order_relaxed);
        atomic_store_explicit(&shared->generations[at++].id, generation->id, memory_order_relaxed);
    }
    // The first that is unused ends the list.
    if (at < HERITAGE_GENERATIONS)
        atomic_store_explicit(&shared->generations[at].id, 0, memory_order_relaxed);
}

uint64_t generation_lua_bytes(void) {
    uint64_t bytes = 0;
    list_each(link, &generations) {
        struct script_stats stats;
        script_host_stats(container_of(link, struct generation, link)->scripts, &stats);
        bytes += stats.lua_bytes;
    }
    return bytes;
}
