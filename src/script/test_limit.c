// SPDX-License-Identifier: BSD-2-Clause
// The time limit of scripts that run without a server (test.h): a hook that Lua calls every some thousand
// instructions looks at the clock. Compiled code calls no hooks, so nothing is compiled in such a state.
#include "script/test.h"

#include <lua.h>
#include <luajit.h>
#include <time.h>

enum { INSTRUCTIONS = 10000 };

static uint64_t deadline_ms;
static void (*on_end)(lua_State *lua);

// The real time: that of clock.h may stand still.
static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void look(lua_State *lua, lua_Debug *at) {
    (void)at;
    if (now_ms() >= deadline_ms)
        on_end(lua);
}

void test_time_limit(unsigned seconds, void (*ended)(lua_State *lua)) {
    deadline_ms = now_ms() + seconds * 1000ull;
    on_end = ended;
}

void test_time_limit_watch(lua_State *lua) {
    luaJIT_setmode(lua, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
    lua_sethook(lua, look, LUA_MASKCOUNT, INSTRUCTIONS);
}
