// SPDX-License-Identifier: BSD-2-Clause
// Hosts and their chains for script.h: made with a generation, freed with it.
#include "script/script.h"

#include "script/host.h"
#include "tls/client.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdatomic.h>
#include <stdlib.h>

static int chain_load(struct script_host *host, const struct conf_frontend *frontend, uint32_t *ordinal,
                      struct error *error) {
    unsigned count = 0;
    for (const struct conf_script *script = frontend->scripts; script; script = script->next)
        count++;
    if (count == 0)
        return 0;
    struct script_chain *chain = calloc(1, sizeof *chain + count * sizeof *chain->scripts);
    if (!chain)
        return error_set(error, -ENOMEM, "no memory for the scripts of frontend \"%s\"", frontend->name);
    chain->host = host;
    chain->frontend = frontend;
    list_push_back(&host->chains, &chain->link);
    for (const struct conf_script *conf = frontend->scripts; conf; conf = conf->next) {
        struct script *script = &chain->scripts[chain->count++];
        script->conf = conf;
        script->ordinal = ++*ordinal;
        atomic_store_explicit(&host->probe->hook, HOOK_load, memory_order_relaxed);
        atomic_store_explicit(&host->probe->script, script->ordinal, memory_order_release);
        host->loading = chain;
        host->loading_at = chain->count - 1;
        int rc = state_load(host, script, error);
        host->loading = NULL;
        atomic_store_explicit(&host->probe->script, 0, memory_order_relaxed);
        if (rc < 0)
            return rc;
    }
    chain_bind(chain);
    return 0;
}

int script_host_new(const struct script_options *options, struct script_host **ret_host,
                    struct error *error) {
    struct script_host *host = calloc(1, sizeof *host);
    if (!host)
        return error_set(error, -ENOMEM, "no memory for scripts");
    list_init(&host->chains);
    list_init(&host->conns);
    list_init(&host->jobs);
    list_init(&host->health_functions);
    host->conf = options->conf;
    host->source = options->source;
    host->generation = options->generation;
    host->worker = options->worker;
    host->observer = options->observer;
    host->probe = options->probe ? options->probe : &host->own_probe;
    host->upstreams = options->upstreams;
    host->resolver = options->resolver;
    host->metrics = options->metrics ? options->metrics : &host->own_metrics;
    int rc = 0;
    if (!options->metrics) {
        host->own_region = calloc(1, METRICS_SIZE);
        if (!host->own_region ||
            metrics_attach(&host->own_metrics, host->own_region, METRICS_SIZE, METRIC_SERIES_MAX) < 0)
            rc = error_set(error, -ENOMEM, "no memory for scripts");
    }
    if (rc == 0 && options->dict_count > 0) {
        host->dicts = calloc(options->dict_count, sizeof *host->dicts);
        if (!host->dicts) {
            rc = error_set(error, -ENOMEM, "no memory for scripts");
        } else {
            memcpy(host->dicts, options->dicts, options->dict_count * sizeof *host->dicts);
            host->dict_count = options->dict_count;
        }
    }
    if (rc == 0)
        rc = state_open(host, error);
    uint32_t ordinal = 0;
    for (const struct conf_frontend *frontend = host->conf->frontends; frontend && rc == 0;
         frontend = frontend->next)
        rc = chain_load(host, frontend, &ordinal, error);
    guide_bind(host);
    if (rc == 0)
        rc = health_check(host, error);
    if (rc < 0) {
        script_host_free(host);
        return rc;
    }
    *ret_host = host;
    return 0;
}

void script_host_free(struct script_host *host) {
    if (!host)
        return;
    conn_records_detach(host);
    jobs_release_all(host);
    health_forget(host);
    sockets_forget(host);
    coroutine_release_all(host);
    state_close(host);
    tls_client_unref(host->tls[0]);
    tls_client_unref(host->tls[1]);
    list_each(link, &host->chains)
        free(container_of(link, struct script_chain, link));
    free(host->free_slots);
    free(host->dicts);
    metrics_detach(&host->own_metrics);
    free(host->own_region);
    free(host);
}

struct script_chain *script_chain_of(struct script_host *host, const struct conf_frontend *frontend) {
    list_each(link, &host->chains) {
        struct script_chain *chain = container_of(link, struct script_chain, link);
        if (chain->frontend == frontend)
            return chain;
    }
    return NULL;
}

const struct exchange_hooks *script_chain_hooks(struct script_chain *chain) {
    return &chain->hooks;
}

void script_chain_set_inner(struct script_chain *chain, struct exchange_site *inner) {
    chain->inner = inner;
}

bool script_chain_has_connect(const struct script_chain *chain) {
    return chain->has_connect;
}

bool script_chain_has_tls_hello(const struct script_chain *chain) {
    return chain->has_tls_hello;
}

bool script_chain_has_tls_done(const struct script_chain *chain) {
    return chain->has_tls_done;
}

void script_host_stats(const struct script_host *host, struct script_stats *ret_stats) {
    *ret_stats = host->stats;
    ret_stats->lua_bytes =
        (size_t)lua_gc(host->lua, LUA_GCCOUNT, 0) * 1024u + (size_t)lua_gc(host->lua, LUA_GCCOUNTB, 0);
}
