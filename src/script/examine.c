// SPDX-License-Identifier: BSD-2-Clause
// Looks at one script for examine.h: a host without frontends, in whose Lua state examine.lua loads it.
#include "script/examine.h"

#include "base/check.h"
#include "conf/source.h"
#include "script/host.h"
#include "script/test.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DICT_BYTES = 1 << 20, DICTS_MAX = 64 };

// Embedded by build-aux/embed.sh from examine.lua.
extern const char moongate_examine[];
extern const size_t moongate_examine_len;

static const char *script_name;
static unsigned seconds;

static struct {
    char *name;
    void *memory;
    struct dict dict;
} dicts[DICTS_MAX];
static unsigned dict_count;

// Every dictionary is there: the configuration is not at hand.
static struct dict *dict_of(void *owner, const char *name) {
    (void)owner;
    struct error error;
    for (unsigned i = 0; i < dict_count; i++)
        if (strcmp(dicts[i].name, name) == 0)
            return &dicts[i].dict;
    if (dict_count == DICTS_MAX)
        return NULL;
    void *memory = aligned_alloc(64, DICT_BYTES);
    char *copy = strdup(name);
    check_fatal(memory && copy);
    dicts[dict_count].name = copy;
    dicts[dict_count].memory = memory;
    if (dict_format(memset(memory, 0, DICT_BYTES), DICT_BYTES, &error) < 0 ||
        dict_attach(&dicts[dict_count].dict, memory, DICT_BYTES, &error) < 0)
        check_fatal(!"a dictionary can be made");
    return &dicts[dict_count++].dict;
}

static void out_of_time(lua_State *lua) {
    lua_Debug at;
    int line = 0;
    char where[sizeof at.short_src + 1] = "";
    for (int level = 0; lua_getstack(lua, level, &at); level++)
        if (lua_getinfo(lua, "Sl", &at) && at.currentline > 0 && at.source[0] == '@') {
            line = at.currentline;
            strcpy(where, at.short_src);
            break;
        }
    fprintf(stderr, "%s:%d: the script did not load within %u s: it does not end\n",
            *where ? where : script_name, line, seconds);
    exit(1);
}

static void opened(void *owner, lua_State *lua) {
    (void)owner;
    test_time_limit_watch(lua);
}

static const struct script_observer observer = { .opened = opened, .dict = dict_of };

static int examine(struct script_host *host, const struct examine_options *options, const char *path,
                   struct slice text) {
    lua_State *lua = host->lua;
    lua_settop(lua, 0);
    if (luaL_loadbuffer(lua, moongate_examine, moongate_examine_len, "=sandbox") != 0) {
        fprintf(stderr, "moongate --check-script: %s\n", lua_tostring(lua, -1));
        return 1;
    }
    lua_getfield(lua, LUA_REGISTRYINDEX, "moongate.core");
    host_running = host;
    int status = lua_pcall(lua, 1, 1, 0);
    if (status == 0) {
        lua_pushlstring(lua, text.at, text.len);
        lua_pushstring(lua, options->script);
        lua_pushstring(lua, path);
        lua_newtable(lua);
        for (unsigned i = 0; i < options->setting_count; i++) {
            const char *setting = options->settings[i], *equals = strchr(setting, '=');
            lua_pushlstring(lua, setting, (size_t)(equals - setting));
            lua_pushstring(lua, equals + 1);
            lua_rawset(lua, -3);
        }
        lua_pushboolean(lua, options->json);
        status = lua_pcall(lua, 5, 2, 0);
    }
    host_running = NULL;
    if (status != 0) {
        fprintf(stderr, "moongate --check-script: %s\n", lua_tostring(lua, -1));
        return 1;
    }
    fputs(lua_tostring(lua, -2), stdout);
    return !lua_toboolean(lua, -1);
}

int examine_run(const struct examine_options *options) {
    char folder[4096], path[4096], main_file[4200], *slash;
    struct error error;
    for (unsigned i = 0; i < options->setting_count; i++) {
        const char *equals = strchr(options->settings[i], '=');
        if (!equals || equals == options->settings[i]) {
            fprintf(stderr, "moongate --check-script: bad setting \"%s\", expected KEY=VALUE\n",
                    options->settings[i]);
            return 1;
        }
    }
    // Modules are looked for beside the script and among the ready-made ones.
    char *whole = realpath(options->script, NULL);
    snprintf(path, sizeof path, "%s", whole ? whole : options->script);
    free(whole);
    snprintf(folder, sizeof folder, "%s", path);
    if ((slash = strrchr(folder, '/')))
        *slash = 0;
    struct conf_path ours = { .path = MOONGATE_DATADIR "/lua" }, beside = { &ours, folder };
    snprintf(main_file, sizeof main_file, "%s/moongate.conf", folder);  // what relative settings start from
    const struct conf conf = { .file = main_file, .scripts = &beside };
    struct source *source = source_new_disk();
    struct slice text;
    check_fatal(source);
    if (source_read(source, path, &text, &error) < 0) {
        fprintf(stderr, "moongate --check-script: %s\n", error.text);
        source_free(source);
        return 1;
    }
    const struct script_options with = {
        .conf = &conf, .source = source, .generation = 1, .observer = &observer
    };
    struct script_host *host;
    script_name = options->script;
    log_threshold = LOG_LEVEL_warn;  // what a script has to say when a server starts is no part of this
    seconds = options->time_limit;
    test_time_limit(options->time_limit, out_of_time);
    int status = 1;
    if (script_host_new(&with, &host, &error) < 0) {
        fprintf(stderr, "moongate --check-script: %s\n", error.text);
    } else {
        status = examine(host, options, path, text);
        script_host_free(host);
    }
    for (unsigned i = 0; i < dict_count; i++) {
        free(dicts[i].memory);
        free(dicts[i].name);
    }
    dict_count = 0;
    source_free(source);
    return status;
}
