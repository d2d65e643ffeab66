// SPDX-License-Identifier: BSD-2-Clause
// The Lua state of a host: libraries, the Lua files that are compiled into the program (lua/moongate.lua,
// lua/moongate/*.lua, sandbox.lua), loading of scripts and of what they require. Hooks are run by
// coroutine.c.
#include "config.h"

#include "script/host.h"

#include "conf/source.h"
#include "script/api.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

// Embedded by build-aux/embed.sh.
extern const char moongate_cdef[], moongate_lua[], moongate_sandbox[];
extern const size_t moongate_lua_len, moongate_sandbox_len;

//  X(name): the files of lua/moongate/, in the order in which they run
#define LUA_FILES(X) \
    X(body) X(modules) X(shared) X(metrics) X(encoding) X(crypto) X(time) X(http) X(tasks) X(fetch) X(resolve) \
    X(sockets) X(form) X(servers) X(health)
#define X(name) extern const char moongate_lua_##name[]; extern const size_t moongate_lua_##name##_len;
LUA_FILES(X)
#undef X

static int panic(lua_State *lua) {
    log_crit("Lua failed outside of a script: %s", lua_tostring(lua, -1));
    return 0;  // Lua aborts
}

// ---- require ----------------------------------------------------------------------------------------------

// Names with dots are folders; nothing leads out of the folders of scripts.
static bool module_name_ok(struct slice name) {
    for (size_t i = 0; i < name.len; i++) {
        char c = name.at[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
            c == '-';
        if (!plain && !(c == '.' && i > 0 && i + 1 < name.len && name.at[i - 1] != '.'))
            return false;
    }
    return name.len > 0 && name.len < 200;
}

// read_module(name): text, path; or nil, why.
static int read_module(lua_State *lua) {
    const struct script_host *host = lua_touserdata(lua, lua_upvalueindex(1));
    struct slice name;
    name.at = luaL_checklstring(lua, 1, &name.len);
    lua_pushnil(lua);
    if (!module_name_ok(name)) {
        lua_pushfstring(lua, "no module \"%s\": a name has letters, digits, - and _, with dots between",
                        name.at);
        return 2;
    }
    luaL_Buffer looked;
    char path[4096];
    for (const struct conf_path *folder = host->conf->scripts; folder && host->source;
         folder = folder->next) {
        int n = snprintf(path, sizeof path, "%s/%.*s.lua", folder->path, SLICE_ARG(name));
        if (n < 0 || (size_t)n >= sizeof path)
            continue;
        for (char *c = path + n - 4 - name.len; c < path + n - 4; c++)
            if (*c == '.')
                *c = '/';
        struct slice text;
        struct error error;
        if (source_has(host->source, path) && source_read(host->source, path, &text, &error) == 0) {
            lua_pushlstring(lua, text.at, text.len);
            lua_pushstring(lua, path);
            return 2;
        }
    }
    luaL_buffinit(lua, &looked);
    luaL_addstring(&looked, "no module \"");
    luaL_addstring(&looked, name.at);
    luaL_addstring(&looked, "\" in the folders of scripts:");
    for (const struct conf_path *folder = host->conf->scripts; folder; folder = folder->next) {
        luaL_addstring(&looked, " ");
        luaL_addstring(&looked, folder->path);
    }
    luaL_pushresult(&looked);
    return 2;
}

// ---- the state --------------------------------------------------------------------------------------------

static void push_core(struct script_host *host) {
    lua_State *lua = host->lua;
    lua_newtable(lua);
    lua_pushlightuserdata(lua, (void *)(uintptr_t)&mg_api);
    lua_setfield(lua, -2, "api");
    lua_pushstring(lua, moongate_cdef);
    lua_setfield(lua, -2, "cdef");
    lua_pushlightuserdata(lua, &token_done);
    lua_setfield(lua, -2, "done");
    lua_pushlightuserdata(lua, &token_wait);
    lua_setfield(lua, -2, "wait");
    lua_pushlightuserdata(lua, &token_verdict);
    lua_setfield(lua, -2, "verdict");
    lua_pushnumber(lua, (lua_Number)host->generation);
    lua_setfield(lua, -2, "generation");
    lua_pushnumber(lua, host->worker);
    lua_setfield(lua, -2, "worker");
    lua_pushstring(lua, PACKAGE_VERSION);
    lua_setfield(lua, -2, "version");
    lua_pushboolean(lua, host->conf->script_unsafe);
    lua_setfield(lua, -2, "unsafe");
    lua_pushlightuserdata(lua, host);
    lua_pushcclosure(lua, read_module, 1);
    lua_setfield(lua, -2, "read_module");
    lua_newtable(lua);
    for (int i = 0; i < HOOK_COUNT; i++) {
        lua_pushstring(lua, hook_name((unsigned)i));
        lua_rawseti(lua, -2, i + 1);
    }
    lua_setfield(lua, -2, "hooks");
}

static int run_embedded(lua_State *lua, const char *name, const char *text, size_t len, struct error *error) {
    if (luaL_loadbuffer(lua, text, len, name) == 0) {
        lua_pushvalue(lua, 1);  // core
        if (lua_pcall(lua, 1, 0, 0) == 0)
            return 0;
    }
    return error_set(error, -EINVAL, "%s", lua_tostring(lua, -1));
}

static int take_reference(lua_State *lua, const char *field) {
    lua_getfield(lua, 1, field);
    return luaL_ref(lua, LUA_REGISTRYINDEX);
}

// MOONGATE_SCRIPT_TRACE: what LuaJIT compiles, and what it gives up, told on the standard output by its own
// module.
static void trace_compiler(lua_State *lua) {
    if (getenv("MOONGATE_SCRIPT_TRACE") && luaL_dostring(lua, "require('jit.v').on('-')"))
        log_warn("MOONGATE_SCRIPT_TRACE: %s", lua_tostring(lua, -1));
    lua_settop(lua, 0);
}

int state_open(struct script_host *host, struct error *error) {
    lua_State *lua = host->lua = luaL_newstate();
    if (!lua)
        return error_set(error, -ENOMEM, "no memory for a Lua state");
    lua_atpanic(lua, panic);
    lua_gc(lua, LUA_GCSTOP, 0);
    luaL_openlibs(lua);
    bounds_open(host);  // behind the libraries: the one for the compiler turns it on
    push_core(host);
    int rc = run_embedded(lua, "=moongate", moongate_lua, moongate_lua_len, error);
#define X(name)   \
    if (rc == 0) \
        rc = run_embedded(lua, "=moongate." #name, moongate_lua_##name, moongate_lua_##name##_len, error);
    LUA_FILES(X)
#undef X
    if (rc == 0)
        rc = run_embedded(lua, "=sandbox", moongate_sandbox, moongate_sandbox_len, error);
    if (rc < 0)
        return rc;
    host->runner = take_reference(lua, "runner");
    host->live = take_reference(lua, "live");
    host->conn_table = take_reference(lua, "conns");
    host->job_table = take_reference(lua, "jobs");
    host->job_over = take_reference(lua, "job_over");
    host->health_begin = take_reference(lua, "health_begin");
    host->task_over = take_reference(lua, "task_over");
    lua_pushvalue(lua, 1);
    lua_setfield(lua, LUA_REGISTRYINDEX, "moongate.core");
    lua_settop(lua, 0);
    trace_compiler(lua);
    lua_gc(lua, LUA_GCRESTART, 0);
    if (host->observer && host->observer->opened)
        host->observer->opened(host->observer->owner, lua);
    return 0;
}

void state_close(struct script_host *host) {
    if (!host->lua)
        return;
    bounds_close(host);
    lua_close(host->lua);
    host->lua = NULL;
}

// Calls core.check or core.load with the script; one result is left on the stack, or the error.
static int call_core(struct script_host *host, const char *function, const struct conf_script *script,
                     struct error *error) {
    lua_State *lua = host->lua;
    lua_settop(lua, 0);
    lua_getfield(lua, LUA_REGISTRYINDEX, "moongate.core");
    lua_getfield(lua, -1, function);
    lua_pushlstring(lua, script->text.at, script->text.len);
    lua_pushstring(lua, script->name);
    lua_pushstring(lua, script->path ? script->path : script->name);
    lua_newtable(lua);
    for (const struct conf_script_setting *setting = script->settings; setting; setting = setting->next) {
        lua_pushstring(lua, setting->key);
        if (setting->value)
            lua_pushstring(lua, setting->value);
        else
            lua_pushboolean(lua, 1);
        lua_rawset(lua, -3);
    }
    host_running = host;
    bounds_begin(host);
    int status = lua_pcall(lua, 4, 2, 0);
    host_running = NULL;
    bounds_end(host);
    if (status != 0)
        return error_set(error, -EINVAL, "%s: %s", script->path, lua_tostring(lua, -1));
    if (!lua_isnil(lua, -2))
        return 0;
    error_set(error, -EINVAL, "%s", lua_tostring(lua, -1));
    if (script->place.file)
        return error_set(error, -EINVAL, "%s (the script of %s:%d:%d)", lua_tostring(lua, -1),
                         script->place.file, script->place.line, script->place.column);
    return -EINVAL;
}

static int check_only(struct script_host *host, const struct conf_script *script, struct error *error) {
    int rc = call_core(host, "check", script, error);
    lua_settop(host->lua, 0);
    return rc;
}

int state_load(struct script_host *host, struct script *script, struct error *error) {
    lua_State *lua = host->lua;
    for (int i = 0; i < HOOK_COUNT; i++)
        script->hooks[i] = LUA_NOREF;
    int rc = call_core(host, "load", script->conf, error);
    if (rc == 0) {
        for (int i = 0; i < HOOK_COUNT; i++) {
            lua_pushstring(lua, hook_name((unsigned)i));
            lua_rawget(lua, -3);
            if (lua_isfunction(lua, -1))
                script->hooks[i] = luaL_ref(lua, LUA_REGISTRYINDEX);
            else
                lua_pop(lua, 1);
        }
    }
    lua_settop(lua, 0);
    return rc;
}

int script_check(const struct conf *conf, struct error *error) {
    struct script_host host = { .conf = conf };
    int rc = state_open(&host, error);
    for (const struct conf_frontend *frontend = conf->frontends; frontend && rc == 0;
         frontend = frontend->next)
        for (const struct conf_script *script = frontend->scripts; script && rc == 0; script = script->next)
            rc = check_only(&host, script, error);
    state_close(&host);
    return rc;
}
