// SPDX-License-Identifier: BSD-2-Clause
// Runs one hook in a pooled coroutine and says how it ended: came to its end, waits, failed. What follows
// from that (the next script, the answer) is hook.c's affair.
//
// A pooled coroutine runs the loop "runner" of lua/moongate.lua: it is resumed with (function, slot, handle,
// response?) and yields (token_done, value) when the function has returned. A function that waits yields
// (token_wait). So a call costs one resume and creates nothing but the request's object.
#include "script/host.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/handle.h"

#include <lauxlib.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { IDLE_MAX = 256 };

struct task *task_running;
struct script_host *host_running;
char token_done, token_wait, token_verdict;

static struct coroutine coroutine_take(struct script_host *host) {
    counters->scripts_active++;
    if (host->idle_count > 0)
        return host->idle[--host->idle_count];
    struct coroutine co = { .lua = lua_newthread(host->lua) };
    co.ref = luaL_ref(host->lua, LUA_REGISTRYINDEX);
    lua_rawgeti(co.lua, LUA_REGISTRYINDEX, host->runner);
    return co;
}

static void coroutine_forget(struct script_host *host, struct coroutine *co) {
    counters->scripts_active--;
    luaL_unref(host->lua, LUA_REGISTRYINDEX, co->ref);
    *co = (struct coroutine){ 0 };
}

static void coroutine_give(struct script_host *host, struct coroutine *co) {
    if (host->idle_count == host->idle_room) {
        unsigned room = host->idle_room ? host->idle_room * 2 : 16;
        struct coroutine *idle = room > IDLE_MAX ? NULL : realloc(host->idle, room * sizeof *idle);
        if (!idle) {
            coroutine_forget(host, co);
            return;
        }
        host->idle = idle;
        host->idle_room = room;
    }
    counters->scripts_active--;
    host->idle[host->idle_count++] = *co;
    co->lua = NULL;
}

// ---- tasks ------------------------------------------------------------------------------------------------

static void woken(struct ring_flush *flush) {
    struct task *task = container_of(flush, struct task, wake);
    task->timer.fired(&task->timer);
}

void task_init(struct task *task, struct script_chain *chain, void (*fired)(struct timer *timer)) {
    task->chain = chain;
    timer_init(&task->timer, fired);
    list_init(&task->wake.link);
    task->wake.flush = woken;
    list_init(&task->sockets);
    list_init(&task->children);
}

void task_wake(struct task *task) {
    timer_stop(&task->timer);
    task->parked = task->overdue = false;
    ring_flush_later(&task->wake);
}

bool task_unpark(uint64_t ticket) {
    struct task *task = handle_get(HANDLE_TASK, ticket);
    if (!task || !task->parked)
        return false;
    task_wake(task);
    return true;
}

// The hook is over: what it holds is given back (lua/moongate/tasks.lua), its ticket is worth nothing any
// more.
static void give_back(struct task *task) {
    sockets_end(&task->sockets);
    timer_stop(&task->timer);
    list_remove(&task->wake.link);
    task->parked = false;
    if (!task->ticket)
        return;
    lua_State *lua = task->chain->host->lua;
    double ticket = (double)task->ticket;
    handle_drop(task->ticket);
    task->ticket = 0;
    lua_rawgeti(lua, LUA_REGISTRYINDEX, task->chain->host->task_over);
    lua_pushnumber(lua, ticket);
    if (lua_pcall(lua, 1, 0, 0) != 0) {
        log_error("a task's end failed: %s", lua_tostring(lua, -1));
        lua_pop(lua, 1);
    }
}

void task_end(struct task *task) {
    coroutine_drop(task);
    jobs_cancel(&task->children);
}

// ---- running ----------------------------------------------------------------------------------------------

// The error object on top of co's stack (NULL text) or a text of ours, with the traceback. Built on the main
// state: a coroutine that failed may have no stack left.
static const char *failure_text(struct script_host *host, lua_State *co, const char *text) {
    lua_State *lua = host->lua;
    lua_settop(lua, 0);
    if (!text && lua_gettop(co) > 0) {
        lua_xmove(co, lua, 1);
        text = lua_tostring(lua, 1);
        if (!text && luaL_getmetafield(lua, 1, "__tostring")) {
            lua_pushvalue(lua, 1);
            text = lua_pcall(lua, 1, 1, 0) == 0 ? lua_tostring(lua, -1) : NULL;
        }
        if (!text)
            text = lua_pushfstring(lua, "the error is a %s", luaL_typename(lua, 1));
    }
    luaL_traceback(lua, co, text, 0);
    // Without the frames of moongate's own Lua: the script's lines are what its author can read.
    luaL_Buffer kept;
    const char *line = lua_tostring(lua, -1);
    luaL_buffinit(lua, &kept);
    while (*line) {
        const char *end = strchr(line, '\n');
        size_t len = end ? (size_t)(end - line) + 1 : strlen(line);
        struct slice whole = slice_make(line, len);
        if (!slice_starts(whole, SLICE_LIT("\tmoongate:")) &&
            !slice_starts(whole, SLICE_LIT("\tmoongate.")) && !slice_starts(whole, SLICE_LIT("\tsandbox:")) &&
            !slice_starts(whole, SLICE_LIT("\t[C]: in function 'error'")))
            luaL_addlstring(&kept, line, len);
        line += len;
    }
    luaL_pushresult(&kept);
    size_t len;
    const char *shown = lua_tolstring(lua, -1, &len);
    if (len > 0 && shown[len - 1] == '\n')
        lua_pushlstring(lua, shown, len - 1);
    return lua_tostring(lua, -1);
}

// Lua's error of memory, perhaps raised again by who has caught it.
static bool of_memory(const struct script_host *host, lua_State *co, int status) {
    if (status == LUA_ERRMEM || !host->bounds.failed)
        return status == LUA_ERRMEM;
    const char *text = lua_gettop(co) > 0 && lua_type(co, -1) == LUA_TSTRING ? lua_tostring(co, -1) : "";
    return strcmp(text, "not enough memory") == 0;
}

// What is left of script_time_limit; UINT64_MAX without one.
static uint64_t time_left(const struct task *task) {
    uint64_t limit = task_settings(task)->script_time_limit, passed = clock_ms() - task->since_ms;
    return limit == 0 ? UINT64_MAX : passed < limit ? limit - passed : 0;
}

static enum outcome run(struct task *task, int arguments, const char **ret_text) {
    struct script_host *host = task->chain->host;
    lua_State *co = task->co.lua;
    const struct script *script = &task->chain->scripts[task->at];
    task->wait = WAIT_NONE;
    task->parked = false;
    task_running = task;
    host_running = host;
    atomic_store_explicit(&host->probe->hook, task->hook, memory_order_relaxed);
    atomic_store_explicit(&host->probe->script, script->ordinal, memory_order_release);
    bounds_begin(host);
    int status = lua_resume(co, arguments);
    atomic_store_explicit(&host->probe->script, 0, memory_order_relaxed);
    task_running = NULL;
    host_running = NULL;
    bounds_end(host);
    if (status == LUA_YIELD) {
        const void *token = lua_touserdata(co, 1);
        if (token == &token_done)
            return OUTCOME_ENDED;
        if (token == &token_wait && task->wait != WAIT_NONE) {
            lua_settop(co, 0);
            host->stats.yields++;
            counters->script_yields++;
            if (task->wait == WAIT_TIME) {
                uint64_t left = time_left(task);
                task->overdue = task->sleep_ms > left;
                timer_start(&task->timer, task->overdue ? left : task->sleep_ms);
            }
            return OUTCOME_WAITS;
        }
        *ret_text = failure_text(host, co, "coroutine.yield outside of a coroutine that the script made");
    } else {
        *ret_text = failure_text(host, co, of_memory(host, co, status) ? bounds_memory_text(host) : NULL);
    }
    coroutine_forget(host, &task->co);
    give_back(task);
    bounds_failed(host);
    return OUTCOME_FAILED;
}

static void push_function(const struct task *task, lua_State *co) {
    const struct script_host *host = task->chain->host;
    if (!task->job || !task->job->id) {
        lua_rawgeti(co, LUA_REGISTRYINDEX, task->chain->scripts[task->at].hooks[task->hook]);
        return;
    }
    lua_rawgeti(co, LUA_REGISTRYINDEX, host->job_table);
    lua_pushnumber(co, (lua_Number)task->job->id);
    lua_rawget(co, -2);
    lua_remove(co, -2);
}

enum outcome coroutine_start(struct task *task, int slot, double handle, bool known, bool with_response,
                             const char **ret_text) {
    struct script_host *host = task->chain->host;
    host->stats.calls++;
    counters->script_calls++;
    task->co = coroutine_take(host);
    task->since_ms = clock_ms();
    task->overdue = false;
    lua_State *co = task->co.lua;
    push_function(task, co);
    lua_pushinteger(co, (lua_Integer)slot);
    if (task->hook == HOOK_resolve) {
        asked_push(task->job->asked, co);
        return run(task, 4, ret_text);
    }
    if (known)
        lua_pushboolean(co, 0);
    else
        lua_pushnumber(co, handle);
    lua_pushboolean(co, with_response);
    return run(task, 4, ret_text);
}

enum outcome coroutine_resume(struct task *task, const char **ret_text) {
    if (task->overdue) {
        *ret_text =
            failure_text(task->chain->host, task->co.lua, "the hook took longer than script_time_limit");
        coroutine_forget(task->chain->host, &task->co);
        give_back(task);
        return OUTCOME_FAILED;
    }
    // Waits for a peer have the limits of its own side.
    if (task->hook == HOOK_request_body || task->hook == HOOK_response_body || task->wait == WAIT_INPUT)
        task->since_ms = clock_ms();
    return run(task, 0, ret_text);
}

void coroutine_done(struct task *task) {
    give_back(task);
    lua_settop(task->co.lua, 0);
    coroutine_give(task->chain->host, &task->co);
}

void coroutine_drop(struct task *task) {
    give_back(task);
    if (task->co.lua)
        coroutine_forget(task->chain->host, &task->co);
}

void coroutine_release_all(struct script_host *host) {
    free(host->idle);
    host->idle = NULL;
    host->idle_count = host->idle_room = 0;
}
