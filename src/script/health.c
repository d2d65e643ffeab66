// SPDX-License-Identifier: BSD-2-Clause
// Functions of scripts that check servers (gate.health, `health script NAME`): each check is a job (job.c) that
// proxy/check.c begins and ends, by the callbacks that script_health() gives to proc/generation.c.
#include "script/host.h"

#include "base/handle.h"
#include "proxy/check.h"
#include "proxy/upstream.h"
#include "script/api_impl.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct health_function {
    struct list link;  // the host's
    struct script_chain *chain;
    unsigned at;       // which script of the chain
    size_t len;
    char name[];
};

// From begin() until it has told what came of it, or end().
struct check_run {
    struct job *job;   // NULL: it is over
    void (*done)(void *owner, bool good, const char *why);
    void *owner;
    bool answered, good;
    char why[STANDING_WHY_MAX];
};

static struct health_function *find(const struct script_host *host, struct slice name) {
    list_each(link, &host->health_functions) {
        struct health_function *function = container_of(link, struct health_function, link);
        if (slice_eq(slice_make(function->name, function->len), name))
            return function;
    }
    return NULL;
}

void health_forget(struct script_host *host) {
    list_each(link, &host->health_functions) free(container_of(link, struct health_function, link));
}

int health_check(const struct script_host *host, struct error *error) {
    for (const struct conf_upstream *upstream = host->conf->upstreams; upstream; upstream = upstream->next) {
        const struct conf_health *health = upstream->health;
        if (health && health->function && !find(host, slice_of(health->function)))
            return conf_error(host->conf, health->function_place, error,
                              "no script has a function to check servers \"%.64s\" (gate.health)",
                              health->function);
    }
    return 0;
}

// ---- for scripts ------------------------------------------------------------------------------------------

int mg_health_declare(const char *name, size_t len) {
    struct script_host *host = host_running;
    if (!host || !host->loading)
        return mg_error("there is no script that it could belong to");
    if (find(host, slice_make(name, len)))
        return MG_NONE;
    struct health_function *function = malloc(sizeof *function + len);
    if (!function)
        return mg_error("memory is out");
    *function = (struct health_function){ .chain = host->loading, .at = host->loading_at, .len = len };
    memcpy(function->name, name, len);
    list_push_back(&host->health_functions, &function->link);
    return MG_OK;
}

// One line, whatever it was.
static void note(struct check_run *run, struct slice why) {
    size_t len = why.len < sizeof run->why ? why.len : sizeof run->why - 1;
    for (size_t i = 0; i < len; i++) {
        if (why.at[i] == '\n') {
            len = i;
            break;
        }
        run->why[i] = (unsigned char)why.at[i] < ' ' || why.at[i] == 0x7f ? '?' : why.at[i];
    }
    run->why[len] = 0;
}

int mg_health_result(int good, const char *why, size_t len) {
    struct check_run *run = task_running && task_running->job ? task_running->job->check : NULL;
    if (!run)
        return mg_error("no server is being checked");
    run->answered = true;
    run->good = good;
    note(run, slice_make(why, len));
    return MG_OK;
}

// ---- for job.c --------------------------------------------------------------------------------------------

void health_ended(struct job *job, const char *failure) {
    struct check_run *run = job->check;
    if (failure) {
        run->good = false;
        note(run, slice_of(failure));
    } else if (!run->answered) {
        note(run, SLICE_LIT("its health function was ended"));
    }
    job_end(job);
    run->done(run->owner, run->good, run->why);
    free(run);
}

void health_lost(struct job *job) {
    job->check->job = NULL;
    job->check = NULL;
}

// ---- for proxy/check.c ------------------------------------------------------------------------------------

// lua/moongate/health.lua makes the function of the job.
static int name_function(struct job *job, const struct health_function *function, const struct server *server) {
    lua_State *lua = job->task.chain->host->lua;
    const struct conf_upstream *conf = server->upstream->conf;
    char address[ADDR_TEXT_MAX];
    lua_settop(lua, 0);
    lua_rawgeti(lua, LUA_REGISTRYINDEX, job->task.chain->host->health_begin);
    lua_pushnumber(lua, (lua_Number)job->id);
    lua_pushlstring(lua, function->name, function->len);
    lua_pushlstring(lua, address, addr_print(&server->addr, address));
    lua_pushstring(lua, server->name);
    lua_pushstring(lua, conf->name);
    lua_pushnumber(lua, (lua_Number)conf->health->timeout / 1000);
    int failed = lua_pcall(lua, 6, 0, 0);
    if (failed)
        log_error("a check could not begin: %s", lua_tostring(lua, -1));
    lua_settop(lua, 0);
    return failed ? -ENOMEM : 0;
}

static struct check_run *begin(void *scripts, const struct server *server,
                               void (*done)(void *owner, bool good, const char *why), void *owner) {
    struct script_host *host = scripts;
    const struct health_function *function = find(host, slice_of(server->upstream->conf->health->function));
    struct check_run *run = function ? calloc(1, sizeof *run) : NULL;
    if (!run)
        return NULL;
    run->done = done;
    run->owner = owner;
    run->job = job_begin(function->chain, function->at, HOOK_health);
    if (!run->job) {
        free(run);
        return NULL;
    }
    if (name_function(run->job, function, server) < 0) {
        job_end(run->job);
        free(run);
        return NULL;
    }
    run->job->check = run;
    return run;
}

static void end(struct check_run *run) {
    if (run->job)
        job_end(run->job);
    free(run);
}

const struct check_script *script_health(void) {
    static const struct check_script calls = { .begin = begin, .end = end };
    return &calls;
}
