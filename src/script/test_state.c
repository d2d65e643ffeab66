// SPDX-License-Identifier: BSD-2-Clause
// One test in one process: the Lua state in which the test file runs, the functions through which
// lua/test.lua reaches the made-up world (test_world.h), and how the result goes to the parent (test.h). The
// scripts under test have states of their own, which are the real ones.
#include "script/test.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/host_name.h"
#include "script/test_world.h"
#include "tls/pretended.h"

#include <errno.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Embedded by build-aux/embed.sh from lua/test.lua and the files of lua/test/.
extern const char moongate_test[];
extern const size_t moongate_test_len;

//  X(name): the files of lua/test/, in the order in which they run
#define TEST_FILES(X) \
    X(values) X(assert) X(time) X(heads) X(servers) X(names) X(peers) X(clients) X(scripts)
#define X(name)                               \
    extern const char moongate_test_##name[]; \
    extern const size_t moongate_test_##name##_len;
TEST_FILES(X)
#undef X

static lua_State *state;
static int result_fd;

// ---- the result -------------------------------------------------------------------------------------------

static void write_result(const char *at, size_t len) {
    static bool written;
    if (written)
        _exit(2);  // the time is over behind the test, in what ends it
    written = true;
    while (len > 0) {
        ssize_t n = write(result_fd, at, len);
        if (n < 0 && errno != EINTR)
            _exit(2);
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
}

static int rig_result(lua_State *lua) {
    size_t len;
    const char *text = luaL_checklstring(lua, 1, &len);
    write_result(text, len);
    return 0;
}

// Called from a hook of the test's state or of a script's, whose stack still shows where it was.
static void out_of_time(lua_State *lua) {
    luaL_traceback(lua, lua, NULL, 0);
    const char *trace = lua_tostring(lua, -1);
    // A coroutine of the test's is the one that may go on; else the test waits in a call of ours.
    lua_getfield(lua, LUA_REGISTRYINDEX, "moongate.test");
    lua_State *to = lua_isnil(lua, -1) ? state : lua;
    lua_sethook(to, NULL, 0, 0);
    if (lua_checkstack(to, 4)) {
        lua_getfield(to, LUA_REGISTRYINDEX, "moongate.test");
        lua_getfield(to, -1, "out_of_time");
        lua_pushstring(to, trace);
        if (lua_pcall(to, 1, 0, 0) == 0)
            _exit(0);
    }
    _exit(2);
}

static void watch(lua_State *lua) {
    test_time_limit_watch(lua);
}

// ---- arguments --------------------------------------------------------------------------------------------

static struct slice slice_arg(lua_State *lua, int index) {
    struct slice text;
    text.at = luaL_checklstring(lua, index, &text.len);
    return text;
}

static struct door *door_arg(lua_State *lua, int index) {
    luaL_checktype(lua, index, LUA_TLIGHTUSERDATA);
    return lua_touserdata(lua, index);
}

static unsigned number_arg(lua_State *lua, int index, unsigned count, const char *what) {
    lua_Integer n = luaL_checkinteger(lua, index);
    if (n < 1 || (unsigned)n > count)
        luaL_error(lua, "no %s of that number", what);
    return (unsigned)n - 1;
}
#define CLIENT_ARG(lua) world.clients[number_arg(lua, 1, world.client_count, "connection")]
#define VISIT_ARG(lua)  world.visits[number_arg(lua, 1, world.visit_count, "request")]
#define STREAM_ARG(lua) world.streams[number_arg(lua, 1, world.stream_count, "stream")]

static void set_text(lua_State *lua, const char *name, const struct text *text) {
    lua_pushlstring(lua, text->at ? text->at : "", text->len);
    lua_setfield(lua, -2, name);
}

static void set_string(lua_State *lua, const char *name, const char *text) {
    lua_pushstring(lua, text);
    lua_setfield(lua, -2, name);
}

static void set_number(lua_State *lua, const char *name, double number) {
    lua_pushnumber(lua, number);
    lua_setfield(lua, -2, name);
}

static void set_boolean(lua_State *lua, const char *name, bool value) {
    lua_pushboolean(lua, value);
    lua_setfield(lua, -2, name);
}

// ---- what is loaded ---------------------------------------------------------------------------------------

// load(text or nil): { name = door, ... }; or nil, why
static int rig_load(lua_State *lua) {
    static struct error error;
    const struct door *before = world.doors;
    size_t len = 0;
    const char *text = luaL_optlstring(lua, 1, NULL, &len);
    if (!text && !world.file) {
        lua_pushnil(lua);
        lua_pushstring(lua, "no configuration was given: moongate --test -c FILE ...");
        return 2;
    }
    if (world_load(text, len, &error) < 0) {
        lua_pushnil(lua);
        lua_pushstring(lua, error.text);
        return 2;
    }
    lua_newtable(lua);
    for (struct door *door = world.doors; door != before; door = door->next) {
        lua_pushlightuserdata(lua, door);
        lua_setfield(lua, -2, door->conf->name);
    }
    return 1;
}

static int rig_has_upstream(lua_State *lua) {
    lua_pushboolean(lua, world_upstream(luaL_checkstring(lua, 1)) != NULL);
    return 1;
}

// pretend(name, addresses, ttl, delay, why there is none or nil): true; or nil, why
static int rig_pretend(lua_State *lua) {
    struct slice name = slice_arg(lua, 1), list = slice_arg(lua, 2);
    struct addr addrs[DNS_ADDRESSES_MAX];
    unsigned count = 0;
    const char *text = luaL_optstring(lua, 5, NULL);
    enum dns_failure failure = DNS_none;
    for (int n = DNS_none + 1; text && n <= DNS_memory; n++)
        if (strcmp(dns_failure_text((enum dns_failure)n), text) == 0)
            failure = (enum dns_failure)n;
    while (list.len > 0) {
        const char *end = memchr(list.at, ' ', list.len);
        struct slice one = slice_make(list.at, end ? (size_t)(end - list.at) : list.len);
        if (count == DNS_ADDRESSES_MAX || addr_parse_ip(one, 0, &addrs[count++]) < 0) {
            lua_pushnil(lua);
            lua_pushfstring(lua, "expected at most %d IP addresses", DNS_ADDRESSES_MAX);
            return 2;
        }
        list = slice_make(list.at + one.len + (end != NULL), list.len - one.len - (end != NULL));
    }
    double ttl = luaL_checknumber(lua, 3), delay = luaL_checknumber(lua, 4);
    if (!host_name_valid(name) || !(ttl >= 0 && ttl <= 604800) || !(delay >= 0 && delay <= 86400)) {
        lua_pushnil(lua);
        lua_pushliteral(lua, "expected a host name, a ttl of at most a week, a delay of at most a day");
        return 2;
    }
    if (resolver_pretend(world.resolver, name, addrs, count, (uint32_t)ttl, failure,
                         (uint64_t)(delay * 1000)) < 0)
        return luaL_error(lua, "memory is out");
    lua_pushboolean(lua, true);
    return 1;
}

// A name that a test wants as its scripts do (frontend:resolve). They live as long as the test's process.
struct wish {
    struct wish *next;
    struct resolver_ask *ask;
    bool told;
    unsigned count;
    double ttl;
    const char *why;
    struct addr addrs[DNS_ADDRESSES_MAX];
};
static struct wish *wishes;

static void wish_told(void *owner, const struct resolver_answer *answer) {
    struct wish *wish = owner;
    wish->told = true;
    wish->count = answer->count;
    wish->ttl = (double)((answer->left_ms + 999) / 1000);
    wish->why = answer->text;
    if (answer->count > 0)
        memcpy(wish->addrs, answer->addrs, answer->count * sizeof *answer->addrs);
}

// resolve(door, name, family): what resolved() takes
static int rig_resolve(lua_State *lua) {
    struct door *door = door_arg(lua, 1);
    int family = (int)luaL_checknumber(lua, 3);
    struct wish *wish = calloc(1, sizeof *wish);
    check_fatal(wish);
    wish->next = wishes;
    wishes = wish;
    wish->ask = resolver_ask(world.resolver, door->chain ? script_chain_guide(door->chain) : NULL, slice_arg(lua, 2),
                       family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC, wish_told, wish);
    lua_pushlightuserdata(lua, wish);
    return 1;
}

// resolved(wish): nothing as long as it is not over; addresses, ttl; or nil, why
static int rig_resolved(lua_State *lua) {
    const struct wish *wish = lua_touserdata(lua, 1);
    if (!wish->told)
        return 0;
    if (wish->count == 0) {
        lua_pushnil(lua);
        lua_pushstring(lua, wish->why);
        return 2;
    }
    lua_newtable(lua);
    for (unsigned i = 0; i < wish->count; i++) {
        char text[ADDR_IP_MAX];
        addr_print_ip(&wish->addrs[i], text);
        lua_pushstring(lua, text);
        lua_rawseti(lua, -2, (int)i + 1);
    }
    lua_pushnumber(lua, wish->ttl);
    return 2;
}

// file(name, text): its path; or nil, why
static int rig_file(lua_State *lua) {
    struct slice name = slice_arg(lua, 1), text = slice_arg(lua, 2);
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s", world.folder, name.at);
    bool ok = n > 0 && (size_t)n < sizeof path;
    for (char *c = path + strlen(world.folder) + 1; ok && *c; c++)
        if (*c == '/') {
            *c = 0;
            ok = mkdir(path, 0700) == 0 || errno == EEXIST;
            *c = '/';
        }
    FILE *file = ok ? fopen(path, "w") : NULL;
    if (file) {
        ok = fwrite(text.at, 1, text.len, file) == text.len;
        ok = fclose(file) == 0 && ok;
    }
    if (!file || !ok) {
        lua_pushnil(lua);
        lua_pushfstring(lua, "cannot write \"%s\": %s", path, strerror(errno));
        return 2;
    }
    lua_pushstring(lua, path);
    return 1;
}

static int rig_log(lua_State *lua) {
    lua_newtable(lua);
    for (unsigned i = 0; i < world.log_count; i++) {
        lua_createtable(lua, 0, 2);
        set_string(lua, "level", log_level_name(world.log[i].level));
        set_string(lua, "text", world.log[i].text);
        lua_rawseti(lua, -2, (int)i + 1);
    }
    return 1;
}

static int rig_log_level(lua_State *lua) {
    enum log_level level;
    if (log_level_parse(luaL_checkstring(lua, 1), &level) < 0)
        return luaL_error(lua, "no log level \"%s\"", lua_tostring(lua, 1));
    log_threshold = level;
    return 0;
}

// metrics(): { { name, kind, labels = { NAME = VALUE }, value (of a histogram: count, sum) }, ... }
static int rig_metrics(lua_State *lua) {
    static const char *const kinds[METRIC_KINDS] = { "counter", "gauge", "histogram" };
    uint32_t position = 0, id;
    struct metric_family family;
    lua_newtable(lua);
    for (int n = 0; metrics_next_family(&world.metrics, &position, &id, &family);) {
        uint32_t at = 0;
        struct slice values[METRIC_LABELS_MAX];
        const double *words;
        while (metrics_next_series(&world.metrics, id, &at, values, &words)) {
            lua_createtable(lua, 0, 5);
            lua_pushlstring(lua, family.name.at, family.name.len);
            lua_setfield(lua, -2, "name");
            set_string(lua, "kind", kinds[family.kind]);
            lua_newtable(lua);
            for (unsigned i = 0; i < family.label_count; i++) {
                lua_pushlstring(lua, family.labels[i].at, family.labels[i].len);
                lua_pushlstring(lua, values[i].at, values[i].len);
                lua_rawset(lua, -3);
            }
            lua_setfield(lua, -2, "labels");
            bool histogram = family.kind == METRIC_HISTOGRAM;
            set_number(lua, histogram ? "count" : "value", words[METRIC_COUNT]);
            if (histogram)
                set_number(lua, "sum", words[METRIC_SUM]);
            lua_rawseti(lua, -2, ++n);
        }
    }
    return 1;
}

// ---- time -------------------------------------------------------------------------------------------------

// advance(ms): how far it got
static int rig_advance(lua_State *lua) {
    lua_pushnumber(lua, (double)world_advance((uint64_t)luaL_checknumber(lua, 1)));
    return 1;
}

static int rig_turn(lua_State *lua) {
    lua_pushboolean(lua, world_turn());
    return 1;
}

static int rig_now(lua_State *lua) {
    lua_pushnumber(lua, (double)clock_cached.wall_us / 1e6);
    lua_pushnumber(lua, (double)clock_ms());
    return 2;
}

static int rig_set_now(lua_State *lua) {
    clock_stand((uint64_t)(luaL_checknumber(lua, 1) * 1e6));
    return 0;
}

// ---- clients ----------------------------------------------------------------------------------------------

static void address_arg(lua_State *lua, int index, uint16_t port, struct addr *ret_addr) {
    struct error error;
    struct slice text = slice_arg(lua, index);
    if (addr_parse_ip(text, port, ret_addr) < 0 && addr_parse(text, ret_addr, &error) < 0)
        luaL_error(lua, "bad address \"%s\": %s", text.at, error.text);
}

// connect(door, from, to, table of TLS's facts as texts, or nil)
static int rig_connect(lua_State *lua) {
    struct addr from, to;
    struct tls_pretended *tls = NULL;
    struct door *door = door_arg(lua, 1);
    address_arg(lua, 2, 40000, &from);
    address_arg(lua, 3, 80, &to);
    if (lua_istable(lua, 4)) {
        tls = tls_pretended_new();
        check_fatal(tls);
        for (lua_pushnil(lua); lua_next(lua, 4); lua_pop(lua, 1))
            check_fatal(tls_pretended_tell(tls, slice_arg(lua, -2), slice_arg(lua, -1)) == 0);
    }
    traffic_connect(door, &from, &to, tls);
    lua_pushinteger(lua, world.client_count);
    return 1;
}

// Its state; the name that a tls_hello hook chose, and the address that it tunnels to, each nil without.
static int rig_client(lua_State *lua) {
    static const char *const names[] = { "waits", "admitted", "tunnelled", "rejected", "closed" };
    const struct client *client = CLIENT_ARG(lua);
    lua_pushstring(lua, names[client->state]);
    struct slice choice = client->tls ? tls_pretended_choice(client->tls) : slice_make(NULL, 0);
    const char *to = client->tls ? tls_pretended_diversion(client->tls) : NULL;
    if (choice.len > 0)
        lua_pushlstring(lua, choice.at, choice.len);
    else
        lua_pushnil(lua);
    lua_pushstring(lua, to);  // nil of NULL
    return 3;
}

static int rig_close(lua_State *lua) {
    traffic_close(CLIENT_ARG(lua));
    return 0;
}

static int rig_request(lua_State *lua) {
    struct client *client = CLIENT_ARG(lua);
    if (client->state != CLIENT_ADMITTED)
        return luaL_error(lua, "the connection is not open");
    traffic_request(client, slice_arg(lua, 2));
    lua_pushinteger(lua, world.visit_count);
    return 1;
}

static int rig_send(lua_State *lua) {
    lua_pushboolean(lua, traffic_send(VISIT_ARG(lua), slice_arg(lua, 2), lua_toboolean(lua, 3)));
    return 1;
}

static int rig_leave(lua_State *lua) {
    traffic_leave(VISIT_ARG(lua));
    return 0;
}

static int rig_visit(lua_State *lua) {
    static const char *const states[] = { "runs", "answered", "aborted", "left", "tunnel" };
    const struct visit *visit = VISIT_ARG(lua);
    lua_createtable(lua, 0, 12);
    set_string(lua, "state", states[visit->state]);
    set_text(lua, "head", &visit->head);
    set_text(lua, "body", &visit->body);
    set_text(lua, "interim", &visit->interim);
    set_string(lua, "reason", close_reason_name(visit->x ? visit->x->reason : visit->reason));
    set_number(lua, "attempts", visit->x ? visit->x->attempt : visit->attempts);
    if (visit->upstream[0])
        set_string(lua, "upstream", visit->upstream);
    if (visit->x) {
        set_boolean(lua, "waits", visit->x->hook_waits);
        set_boolean(lua, "paused", visit->paused);
        set_string(lua, "step", exchange_step_name(visit->x->step));
        set_string(lua, "id", exchange_id(visit->x));
    }
    return 1;
}

// ---- servers ----------------------------------------------------------------------------------------------

// event(): kind, stream, visit, upstream, server; or nil
static int rig_event(lua_State *lua) {
    static const char *const kinds[EVENT_KINDS] = { "dial", "head", "received", "resume" };
    if (world.event_first == world.event_count) {
        world.event_first = world.event_count = 0;
        return 0;
    }
    const struct event event = world.events[world.event_first++];
    const struct stream *stream = world.streams[event.stream - 1];
    lua_pushstring(lua, kinds[event.kind]);
    lua_pushinteger(lua, (lua_Integer)event.stream);
    unsigned visit = 0;
    for (unsigned i = 0; i < world.visit_count && stream->visit; i++)
        if (world.visits[i] == stream->visit)
            visit = i + 1;
    lua_pushinteger(lua, visit);  // 0: a script asks by itself
    lua_pushstring(lua, stream->server->upstream->conf->name);
    lua_pushstring(lua, stream->server->name);
    return 5;
}

static int rig_stream(lua_State *lua) {
    static const char *const states[] = { "dials", "waits", "body", "done", "gone" };
    const struct stream *stream = STREAM_ARG(lua);
    lua_createtable(lua, 0, 4);
    set_string(lua, "state", states[stream->state]);
    set_text(lua, "head", &stream->head);
    set_text(lua, "body", &stream->body);
    set_boolean(lua, "received", stream->received);
    return 1;
}

static int rig_accept(lua_State *lua) {
    traffic_accept(STREAM_ARG(lua));
    return 0;
}

static int rig_refuse(lua_State *lua) {
    traffic_refuse(STREAM_ARG(lua), ECONNREFUSED);
    return 0;
}

static int rig_answer(lua_State *lua) {
    lua_pushboolean(lua, traffic_answer(STREAM_ARG(lua), slice_arg(lua, 2)));
    return 1;
}

static int rig_push(lua_State *lua) {
    lua_pushboolean(lua, traffic_push(STREAM_ARG(lua), slice_arg(lua, 2)));
    return 1;
}

static int rig_complete(lua_State *lua) {
    traffic_complete(STREAM_ARG(lua));
    return 0;
}

static int rig_break(lua_State *lua) {
    traffic_break(STREAM_ARG(lua), lua_toboolean(lua, 2) ? CLOSE_upstream_reset : CLOSE_upstream_closed);
    return 0;
}

// ---- peers of sockets -------------------------------------------------------------------------------------

// peer_event(): kind, peer, text; or nil
static int rig_peer_event(lua_State *lua) {
    static const char *const kinds[PEER_EVENT_KINDS] = { "connects", "opened", "sent", "shut", "closed" };
    struct peer_event event;
    if (!made_event(&event))
        return 0;
    lua_pushstring(lua, kinds[event.kind]);
    lua_pushinteger(lua, (lua_Integer)event.peer);
    lua_pushlstring(lua, event.text.at, event.text.len);
    text_release(&event.text);
    return 3;
}

// peer_answer(peer, word or nil): whether there is such a word
static int rig_peer_answer(lua_State *lua) {
    unsigned number = number_arg(lua, 1, made_count(), "peer") + 1;
    lua_pushboolean(lua, made_answer(number, luaL_optstring(lua, 2, NULL)));
    return 1;
}

static int rig_peer_push(lua_State *lua) {
    made_push(number_arg(lua, 1, made_count(), "peer") + 1, slice_arg(lua, 2));
    return 0;
}

static int rig_peer_end(lua_State *lua) {
    made_end(number_arg(lua, 1, made_count(), "peer") + 1, lua_toboolean(lua, 2));
    return 0;
}

static const luaL_Reg rig[] = {
    { "accept", rig_accept },
    { "advance", rig_advance },
    { "answer", rig_answer },
    { "broken", rig_break },
    { "client", rig_client },
    { "close", rig_close },
    { "complete", rig_complete },
    { "connect", rig_connect },
    { "event", rig_event },
    { "file", rig_file },
    { "has_upstream", rig_has_upstream },
    { "leave", rig_leave },
    { "load", rig_load },
    { "log", rig_log },
    { "log_level", rig_log_level },
    { "metrics", rig_metrics },
    { "now", rig_now },
    { "peer_answer", rig_peer_answer },
    { "peer_end", rig_peer_end },
    { "peer_event", rig_peer_event },
    { "peer_push", rig_peer_push },
    { "pretend", rig_pretend },
    { "resolve", rig_resolve },
    { "resolved", rig_resolved },
    { "push", rig_push },
    { "refuse", rig_refuse },
    { "request", rig_request },
    { "result", rig_result },
    { "send", rig_send },
    { "set_now", rig_set_now },
    { "stream", rig_stream },
    { "turn", rig_turn },
    { "visit", rig_visit },
    { NULL, NULL },
};

// ---- the process ------------------------------------------------------------------------------------------

// The table of the functions below is on top of the stack, and is handed to the code.
static int run_embedded(lua_State *lua, const char *name, const char *text, size_t len) {
    if (luaL_loadbuffer(lua, text, len, name) != 0)
        return -EINVAL;
    lua_pushvalue(lua, -2);
    return lua_pcall(lua, 1, 0, 0) == 0 ? 0 : -EINVAL;
}

static int run(lua_State *lua, const struct test_options *options, const char *file, unsigned index) {
    char cwd[4096];
    lua_newtable(lua);
    luaL_register(lua, NULL, rig);
    set_string(lua, "folder", world.folder);
    set_string(lua, "path", file);
    set_number(lua, "index", index);
    set_number(lua, "time_limit", options->time_limit);
    set_boolean(lua, "verbose", options->verbose);
    set_boolean(lua, "conf", options->conf != NULL);
    set_string(lua, "cwd", getcwd(cwd, sizeof cwd) ? cwd : "/");
    lua_newtable(lua);
    lua_pushvalue(lua, -1);
    lua_setfield(lua, LUA_REGISTRYINDEX, "moongate.test");
    lua_setfield(lua, -2, "test");
    int rc = 0;
#define X(name)  \
    if (rc == 0) \
        rc = run_embedded(lua, "=moongate.test." #name, moongate_test_##name, moongate_test_##name##_len);
    TEST_FILES(X)
#undef X
    if (rc == 0)
        rc = run_embedded(lua, "=moongate.test", moongate_test, moongate_test_len);
    if (rc < 0)
        return rc;
    lua_getfield(lua, -1, "test");
    lua_getfield(lua, -1, "main");
    return lua_pcall(lua, 0, 0, 0) == 0 ? 0 : -EINVAL;
}

void test_process(const struct test_options *options, const char *file, unsigned index, const char *folder,
                  int fd) {
    result_fd = fd;
    test_time_limit(options->time_limit, out_of_time);
    world_begin(options->conf, folder, watch);
    state = luaL_newstate();
    if (!state)
        _exit(2);
    luaL_openlibs(state);
    test_time_limit_watch(state);
    int status = run(state, options, file, index) < 0 ? 2 : 0;
    if (status != 0)
        fprintf(stderr, "moongate --test: %s: %s\n", file, lua_tostring(state, -1));
    world_end();
    lua_close(state);
    fflush(NULL);
    exit(status);  // with the handlers: a sanitizer reports what is left
}
