// SPDX-License-Identifier: BSD-2-Clause
// What a Lua state may use up: memory (script_memory_limit) and, with script_safe, time without a wait
// (script_run_limit). Both fail the script that runs when the bound is passed; moongate's own Lua code between
// hooks is never failed. Called by state.c and coroutine.c.
//
// Memory: an allocation that is refused raises an error where it was asked for, which interpreted code takes
// well and compiled code does not (LuaJIT's unwinding from a trace crashes). So nothing is compiled while more
// than half of the limit is used. Code that was compiled before and passes the limit in one run is let go on
// until it comes to the interpreter, where it fails: that is so once in every cycle of the collector, which
// makes haste from a quarter of the limit on. Should it come to twice the limit first, the worker is given up.
#include "script/host.h"

#include "base/clock.h"

#include <lauxlib.h>
#include <luajit.h>
#include <stdio.h>
#include <unistd.h>

enum {
    INSTRUCTIONS = 10000,  // between two looks at the clock
    COLLECT_KIB = 256,     // of the collector's work after a hook, when memory becomes scarce
    // Lua's collector starts a cycle when the heap has grown to this much of what was alive after the last one,
    // and works this much faster than memory is taken, in per cent. States here are small (a megabyte or two)
    // and make little garbage that lives: rare cycles cost least, measured by t/unit/test_script_cost.c.
    PAUSE = 300,
    STEP_MULTIPLIER = 300,
    HASTY_PAUSE = 110,
    HASTY_STEP_MULTIPLIER = 1000,
};

static uint64_t run_until_us;  // of the code that runs now
static bool impatient;         // it did not stop by then

// "file:line: " of the script's innermost line when it was found to pass a bound, or empty: after an error
// of memory there is none to be found, and an error that the script catches is raised again elsewhere.
static char passed_where[LUA_IDSIZE + 16];

// Also from within an allocation: allocates nothing.
static void note_where(lua_State *lua) {
    lua_Debug at;
    passed_where[0] = 0;
    for (int level = 0; lua && lua_getstack(lua, level, &at); level++)
        if (lua_getinfo(lua, "Sl", &at) && at.currentline > 0 && strncmp(at.source, "=moongate", 9) != 0) {
            snprintf(passed_where, sizeof passed_where, "%s:%d: ", at.short_src, at.currentline);
            return;
        }
}

static int fail_here(lua_State *lua, const char *text) {
    lua_pushfstring(lua, "%s%s", passed_where, text);
    return lua_error(lua);
}

static void fail_for_memory(lua_State *lua, lua_Debug *at) {
    (void)at;
    lua_sethook(lua, NULL, 0, 0);
    note_where(lua);
    fail_here(lua, "the scripts of this worker hold script_memory_limit already");
}

// Also from within an allocation: it sets two numbers.
static void set_hasty(struct script_host *host, bool hasty) {
    host->bounds.hasty = hasty;
    lua_gc(host->lua, LUA_GCSETPAUSE, hasty ? HASTY_PAUSE : PAUSE);
    lua_gc(host->lua, LUA_GCSETSTEPMUL, hasty ? HASTY_STEP_MULTIPLIER : STEP_MULTIPLIER);
}

// Lua's own allocator with a count. Outside of scripts nothing is refused: there may be no protected call.
static void *counted(void *owner, void *at, size_t old_size, size_t size) {
    struct script_host *host = owner;
    struct script_bounds *bounds = &host->bounds;
    if (size > old_size && host_running == host && bounds->used + (size - old_size) > bounds->most) {
        bounds->reached = true;
        if (!bounds->compiles) {
            note_where(task_running ? task_running->co.lua : NULL);
            return NULL;
        }
        if (bounds->used + (size - old_size) > 2 * bounds->most) {
            const struct task *task = task_running;
            log_crit(
                "script \"%s\", %s: asked for %zu bytes, far beyond script_memory_limit: this worker ends",
                task ? task->chain->scripts[task->at].conf->name : "?", task ? hook_name(task->hook) : "load",
                size - old_size);
            _exit(1);
        }
        lua_sethook(host->lua, fail_for_memory, LUA_MASKCOUNT, 1);
    }
    void *to = bounds->allocate(bounds->allocator, at, old_size, size);
    if (to || size == 0)
        bounds->used += size - old_size;
    if (bounds->used > bounds->most / 4 && !bounds->hasty)
        set_hasty(host, true);
    return to;
}

static void look_at_clock(lua_State *lua, lua_Debug *at) {
    (void)at;
    if (!run_until_us || clock_us_now() < run_until_us)
        return;
    // From now on at every instruction: a script that catches the error comes no further.
    lua_sethook(lua, look_at_clock, LUA_MASKCOUNT, 1);
    if (!impatient)
        note_where(lua);
    impatient = true;
    fail_here(lua, "this ran for longer than script_run_limit without waiting");
}

static void set_compiles(struct script_host *host, bool compiles) {
    host->bounds.compiles = compiles;
    luaJIT_setmode(host->lua, 0, LUAJIT_MODE_ENGINE | (compiles ? LUAJIT_MODE_ON : LUAJIT_MODE_OFF));
    if (!compiles)
        luaJIT_setmode(host->lua, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_FLUSH);
}

void bounds_open(struct script_host *host) {
    struct script_bounds *bounds = &host->bounds;
    // Who observes has a hook of his own for code that does not end, which is not called from compiled code.
    set_compiles(host, !host->conf->script_safe && !host->observer);
    set_hasty(host, false);
    if (host->conf->script_memory_limit) {
        bounds->most = host->conf->script_memory_limit;
        bounds->used = (size_t)lua_gc(host->lua, LUA_GCCOUNT, 0) * 1024u;
        bounds->allocate = lua_getallocf(host->lua, &bounds->allocator);
        lua_setallocf(host->lua, counted, host);
    }
    if (host->conf->script_safe)
        lua_sethook(host->lua, look_at_clock, LUA_MASKCOUNT, INSTRUCTIONS);
}

// Lua frees its allocator's arena only when it finds the allocator that it came with.
void bounds_close(struct script_host *host) {
    if (host->bounds.allocate)
        lua_setallocf(host->lua, host->bounds.allocate, host->bounds.allocator);
}

void bounds_begin(struct script_host *host) {
    struct script_bounds *bounds = &host->bounds;
    if (host->conf->script_safe)
        run_until_us = clock_us_now() + host->conf->script_run_limit * 1000;
    else if (!host->observer && bounds->most &&
             bounds->compiles != (bounds->used < bounds->most / (bounds->compiles ? 2 : 4)))
        set_compiles(host, !bounds->compiles);
}

void bounds_end(struct script_host *host) {
    struct script_bounds *bounds = &host->bounds;
    run_until_us = 0;
    if (bounds->reached && !host->conf->script_safe && !host->observer)
        lua_sethook(host->lua, NULL, 0, 0);
    if (impatient)
        lua_sethook(host->lua, look_at_clock, LUA_MASKCOUNT, INSTRUCTIONS);
    impatient = false;
    if (bounds->most && bounds->used > bounds->most / 4)
        lua_gc(host->lua, LUA_GCSTEP, COLLECT_KIB);
    else if (bounds->hasty && bounds->used < bounds->most / 8)
        set_hasty(host, false);
    bounds->failed = bounds->reached;
    bounds->reached = false;
}

// After the coroutine that failed was let go: what it held is free.
void bounds_failed(struct script_host *host) {
    if (host->bounds.failed)
        lua_gc(host->lua, LUA_GCCOLLECT, 0);
    host->bounds.failed = false;
}

const char *bounds_memory_text(const struct script_host *host) {
    static char text[sizeof passed_where + 64];
    if (!host->bounds.failed)
        return "memory is out";
    snprintf(text, sizeof text, "%sthe scripts of this worker hold script_memory_limit already",
             passed_where);
    return text;
}
