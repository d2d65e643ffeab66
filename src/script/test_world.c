// SPDX-License-Identifier: BSD-2-Clause
// What a test of scripts has loaded: configurations with their frontends, upstreams and script hosts, shared
// dictionaries as scripts ask for them, the clock and the log. See test_world.h.
#include "script/test_world.h"

#include "base/check.h"
#include "base/clock.h"
#include "conf/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    DICT_BYTES = 1 << 20,
    END_MS = 3600000,  // of the test's time: how long hooks may take to end behind a test
};

// 2026-01-01 00:00:00 UTC: what a test sees does not depend on the day.
static const uint64_t first_day_us = 1767225600ull * 1000000;

struct world world;

// That what a test says of a name holds for as long as it says.
static const struct conf_resolver names = { .timeout = 5000,
                                            .tries = 1,
                                            .max_ttl = UINT32_MAX,
                                            .negative_ttl = 10000,
                                            .stale = 3600000,
                                            .cache = 10000,
                                            .queries = 10000 };

// What belongs to one configuration that was loaded.
struct loaded {
    struct loaded *next;
    struct conf *conf;
    struct source *source;
    struct script_host *host;
    struct address_book addresses;
    bool ready, refused;  // what came of the init hooks
    struct error why;
};
static struct loaded *loads;

// A dictionary of the test, seen by all of its scripts.
struct made_dict {
    struct made_dict *next;
    char *name;
    void *memory;
    struct dict dict;
};
static struct made_dict *dicts;

static void *metrics_region;

// ---- memory -----------------------------------------------------------------------------------------------

void *world_grow(void *array, unsigned count, size_t size) {
    if (count & (count - 1))
        return array;
    void *grown = realloc(array, (count ? count * 2 : 1) * size);
    check_fatal(grown);
    return grown;
}

void text_add(struct text *text, const char *at, size_t len) {
    if (text->len + len + 1 > text->room) {
        text->room = (text->len + len + 1) * 2;
        text->at = realloc(text->at, text->room);
        check_fatal(text->at);
    }
    if (len > 0)
        memcpy(text->at + text->len, at, len);
    text->len += len;
    text->at[text->len] = 0;
}

void text_take(struct text *text, struct queue *queue) {
    struct span span;
    while (queue_take(queue, &span)) {
        text_add(text, span.at, span.len);
        block_unref(span.block);
    }
}

void text_release(struct text *text) {
    free(text->at);
    *text = (struct text){ 0 };
}

// ---- dictionaries, log, clock -----------------------------------------------------------------------------

static struct dict *dict_of(void *owner, const char *name) {
    (void)owner;
    struct error error;
    for (struct made_dict *made = dicts; made; made = made->next)
        if (strcmp(made->name, name) == 0)
            return &made->dict;
    struct made_dict *made = calloc(1, sizeof *made);
    if (!made || !(made->name = strdup(name)) || !(made->memory = aligned_alloc(64, DICT_BYTES)) ||
        dict_format(memset(made->memory, 0, DICT_BYTES), DICT_BYTES, &error) < 0 ||
        dict_attach(&made->dict, made->memory, DICT_BYTES, &error) < 0)
        check_fatal(!"a dictionary can be made");
    made->next = dicts;
    dicts = made;
    return &made->dict;
}

static void keep_line(enum log_level level, const char *message) {
    world.log = world_grow(world.log, world.log_count, sizeof *world.log);
    world.log[world.log_count++] = (struct logged){ level, strdup(message) };
}

bool world_turn(void) {
    return ring_flush_now();
}

uint64_t world_advance(uint64_t ms) {
    uint64_t next = timer_next_ms();
    if (next == 0)
        next = 1;
    uint64_t step = next < ms ? next : ms;
    clock_advance(step * 1000);
    timer_run();
    return step;
}

// ---- configurations ---------------------------------------------------------------------------------------

static void opened(void *owner, struct lua_State *lua) {
    (void)owner;
    world.opened(lua);
}

static const struct script_observer observer = { .opened = opened, .dict = dict_of };
// With -c only the dictionaries of the configuration are there, as in the server.
static const struct script_observer strict_observer = { .opened = opened };

static enum step_result run_connect(void *scripts, struct conn *conn, bool *ret_reject,
                                    void (*decided)(struct conn *conn, void *owner, bool reject),
                                    void *owner) {
    return script_connect(scripts, conn, ret_reject, decided, owner);
}

static void cancel_connect(void *scripts, struct conn *conn) {
    script_connect_cancel(scripts, conn);
}

static const struct connect_hook connect_hook = { run_connect, cancel_connect };

static void hold(void *generation) {
    (void)generation;
    world.held++;
}

static void drop(void *generation) {
    (void)generation;
    world.held--;
}

static int open_door(struct loaded *loaded, struct conf_frontend *conf, struct error *error) {
    struct door *door = calloc(1, sizeof *door);
    if (!door)
        return error_set(error, -ENOMEM, "memory is out");
    door->next = world.doors;
    world.doors = door;
    door->conf = conf;
    door->chain = script_chain_of(loaded->host, conf);
    // Tests look at what passes, not at its log.
    conf->settings.access_log = NULL;
    for (struct conf_route *route = conf->routes; route; route = route->next)
        route->settings.access_log = NULL;
    const struct frontend_options options = {
        .conf = loaded->conf,
        .frontend = conf,
        .upstreams = &world.upstreams,
        .hooks = door->chain ? script_chain_hooks(door->chain) : NULL,
        .connect = door->chain && script_chain_has_connect(door->chain) ? &connect_hook : NULL,
        .scripts = door->chain,
        .addresses = &loaded->addresses,
        .hold = hold,
        .drop = drop,
    };
    int rc = frontend_new(&options, &door->frontend, error);
    if (rc < 0)
        return rc;
    traffic_serve(frontend_site(door->frontend));
    traffic_serve(frontend_inner_site(door->frontend));
    if (door->chain)
        script_chain_set_inner(door->chain, frontend_inner_site(door->frontend));
    return 0;
}

static struct upstream *find_upstream(const char *name) {
    list_each(link, &world.upstreams) {
        struct upstream *upstream = container_of(link, struct upstream, link);
        if (strcmp(upstream->conf->name, name) == 0)
            return upstream;
    }
    return NULL;
}

static void init_ended(void *owner, const struct error *error) {
    struct loaded *loaded = owner;
    loaded->ready = true;
    loaded->refused = error != NULL;
    if (error)
        loaded->why = *error;
}

// As a worker does; time passes for hooks that wait.
static int start_scripts(struct loaded *loaded, struct error *error) {
    uint64_t left = loaded->conf->reload_timeout;
    script_host_init(loaded->host, init_ended, loaded);
    while (!loaded->ready && left > 0)
        if (!world_turn())
            left -= world_advance(left);
    if (!loaded->ready)
        return error_set(error, -ETIMEDOUT, "the init hooks did not end within reload_timeout");
    if (loaded->refused)
        return error_set(error, -EINVAL, "%s", loaded->why.text);
    script_host_go(loaded->host);
    return 0;
}

static int load(struct loaded *loaded, const char *text, size_t len, struct error *error) {
    char path[sizeof world.folder + 16];
    const char *file = world.file;
    if (text) {
        snprintf(path, sizeof path, "%s/test.conf", world.folder);
        file = path;
        if (source_put(loaded->source, path, slice_make(text, len)) < 0)
            return error_set(error, -ENOMEM, "memory is out");
    }
    int rc = conf_load(file, loaded->source, &loaded->conf, error);
    // The first definition of a name stands: what a test says of an upstream holds for all its scripts.
    for (const struct conf_upstream *conf = rc == 0 ? loaded->conf->upstreams : NULL; conf;
         conf = conf->next) {
        struct upstream *upstream = find_upstream(conf->name) ? NULL : upstream_new(conf, &(struct upstream_options){ 0 });
        if (upstream)
            list_push_back(&world.upstreams, &upstream->link);
    }
    if (rc < 0)
        return rc;
    loaded->addresses.defaults = &loaded->conf->of_address;
    struct script_dict named[64];
    unsigned count = 0;
    for (const struct conf_shared *shared = loaded->conf->shared; shared && count < 64; shared = shared->next)
        named[count++] = (struct script_dict){ shared->name, dict_of(NULL, shared->name) };
    const struct script_options options = {
        .conf = loaded->conf,
        .source = loaded->source,
        .dicts = named,
        .dict_count = count,
        .generation = 1,
        .metrics = &world.metrics,
        .upstreams = &world.upstreams,
        .resolver = world.resolver,
        .observer = text ? &observer : &strict_observer,
    };
    rc = script_host_new(&options, &loaded->host, error);
    for (struct conf_frontend *conf = rc == 0 ? loaded->conf->frontends : NULL; conf && rc == 0;
         conf = conf->next)
        rc = open_door(loaded, conf, error);
    return rc < 0 ? rc : start_scripts(loaded, error);
}

int world_load(const char *text, size_t len, struct error *error) {
    struct loaded *loaded = calloc(1, sizeof *loaded);
    if (!loaded || !(loaded->source = source_new_disk())) {
        free(loaded);
        return error_set(error, -ENOMEM, "memory is out");
    }
    address_book_init(&loaded->addresses, NULL);
    loaded->next = loads;
    loads = loaded;
    return load(loaded, text, len, error);
}

struct upstream *world_upstream(const char *name) {
    return find_upstream(name);
}

// ---- life -------------------------------------------------------------------------------------------------

void world_begin(const char *file, const char *folder, void (*on_opened)(struct lua_State *lua)) {
    world = (struct world){ .file = file, .opened = on_opened };
    snprintf(world.folder, sizeof world.folder, "%s", folder);
    list_init(&world.upstreams);
    metrics_region = calloc(1, METRICS_SIZE);
    if (!metrics_region ||
        metrics_attach(&world.metrics, metrics_region, METRICS_SIZE, METRIC_SERIES_MAX) < 0)
        check_fatal(!"metrics can be kept");
    world.resolver = resolver_pretended(&names);
    check_fatal(world.resolver);
    clock_stand(first_day_us);
    timer_forget();
    ring_do_without();
    made_begin();
    log_open(STDERR_FILENO, LOG_LEVEL_debug);
    log_threshold = LOG_LEVEL_info;
    log_divert(keep_line);
}

// Exit hooks, log hooks and what else still runs come to their ends, in the test's time.
static bool end_scripts(void) {
    uint64_t left = END_MS;
    bool ended;
    do {
        ended = world.held == 0;
        for (struct loaded *loaded = loads; loaded; loaded = loaded->next)
            if (loaded->host && !script_host_end(loaded->host))
                ended = false;
        if (!ended && !world_turn())
            left -= world_advance(left);
    } while (!ended && left > 0);
    return ended;
}

void world_end(void) {
    traffic_close_all();
    if (!end_scripts())
        _exit(0);  // something waits for ever: nothing can be freed
    traffic_end();
    for (struct door *door = world.doors, *next; door; door = next) {
        next = door->next;
        frontend_free(door->frontend);
        free(door);
    }
    for (struct loaded *loaded = loads; loaded; loaded = loaded->next)
        script_host_free(loaded->host);
    made_release();
    for (struct loaded *loaded = loads; loaded; loaded = loaded->next)
        address_book_release(&loaded->addresses);
    list_each(link, &world.upstreams) upstream_free(container_of(link, struct upstream, link));
    for (struct loaded *loaded = loads, *next; loaded; loaded = next) {
        next = loaded->next;
        if (loaded->conf)
            conf_free(loaded->conf);
        source_free(loaded->source);
        free(loaded);
    }
    for (struct made_dict *made = dicts, *next; made; made = next) {
        next = made->next;
        free(made->memory);
        free(made->name);
        free(made);
    }
    resolver_unref(world.resolver);
    metrics_detach(&world.metrics);
    free(metrics_region);
    log_divert(NULL);
    for (unsigned i = 0; i < world.log_count; i++)
        free(world.log[i].text);
    free(world.log);
    loads = NULL;
    dicts = NULL;
    world = (struct world){ 0 };
}
