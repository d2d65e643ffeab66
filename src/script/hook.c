// SPDX-License-Identifier: BSD-2-Clause
// Takes exchanges and conns through the hooks of a chain: one script after the other until one gives a
// verdict, with waits in between, and what happens when a script fails. The steps of exchange.c call the
// first half (struct exchange_hooks), the frontend the second (script_connect).
#include "script/host.h"

#include "base/check.h"
#include "base/counters.h"
#include "base/handle.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>

enum { SCRIPT_ERRORS_LOGGED = 10 };  // a second and host: a client can cause them at will

const char *hook_name(unsigned hook) {
    static const char *const names[] = {
#define X(name, status, doc) #name,
        SCRIPT_HOOKS(X)
#undef X
    };
    static const char *const others[] = { "load", "timer", "task", "health" };
    return hook < HOOK_COUNT ? names[hook] : others[hook > HOOK_health ? 0 : hook - HOOK_COUNT];
}

unsigned hook_failure_status(enum hook_id hook) {
    static const unsigned statuses[] = {
#define X(name, status, doc) status,
        SCRIPT_HOOKS(X)
#undef X
    };
    return statuses[hook];
}

// ---- what both have in common -----------------------------------------------------------------------------

const struct conf_settings *task_settings(const struct task *task) {
    return task->x && task->x->settings ? task->x->settings : &task->chain->frontend->settings;
}

bool task_passes_errors(const struct task *task) {
    return task_settings(task)->on_script_error == SCRIPT_ERROR_PASS;
}

void task_report(struct task *task, const char *text) {
    struct script_host *host = task->chain->host;
    host->stats.errors++;
    counters->script_errors++;
    uint32_t suppressed;
    if (!log_limit_pass(&host->limit, SCRIPT_ERRORS_LOGGED, &suppressed))
        return;
    if (suppressed > 0)
        log_error("%u more script errors in the second before were not logged", suppressed);
    const char *script = task->chain->scripts[task->at].conf->name;
    if (task->job) {
        log_error("script \"%s\", %s%s: %s", script, hook_name(task->hook),
                  task->hook < HOOK_COUNT ? " hook" : "", text);
    } else if (task->x) {
        log_error("script \"%s\", %s hook, request %s: %s", script, hook_name(task->hook),
                  exchange_id(task->x), text);
    } else {
        char ip[ADDR_IP_MAX];
        addr_print_ip(conn_remote(task->conn->conn), ip);
        log_error("script \"%s\", %s hook, connection %llu from %s: %s", script, hook_name(task->hook),
                  (unsigned long long)task->conn->conn->id, ip, text);
    }
}

// "firewall.lua:12: the request hook returned ...": a text on the main state's stack.
const char *task_bad_value(struct task *task, const char *expected) {
    struct script_host *host = task->chain->host;
    lua_State *co = task->co.lua, *lua = host->lua;
    const char *kind = lua_typename(co, lua_type(co, 2));
    lua_Debug at;
    lua_settop(lua, 0);
    lua_rawgeti(lua, LUA_REGISTRYINDEX, task->chain->scripts[task->at].hooks[task->hook]);
    lua_getinfo(lua, ">S", &at);
    return lua_pushfstring(lua, "%s:%d: the %s hook returned a %s: expected %s", at.short_src, at.linedefined,
                           hook_name(task->hook), kind, expected);
}

// Whether the running hook has decided; what went before it does not count.
static bool task_decided(const struct task *task) {
    if (!task->x)
        return task->conn->rejected || task->conn->answered;
    return task->hook != HOOK_log && (task->hook == HOOK_error ? !task->x->failed : task->x->responded);
}

enum { CHOICES_MAX = 64 };

static bool has_failed(const struct exchange *x, struct slice choice) {
    for (const struct exchange_failure *failure = x->failures; failure; failure = failure->before)
        if (!failure->stale && slice_eq(failure->choice, choice))
            return true;
    return false;
}

// Of a name or an address, or a list of them in order: the first that has not failed this request, else the
// last one. Empty when the value at index 2 is nothing of the kind.
static struct slice route_choice(struct exchange *x, lua_State *co) {
    struct slice choice = { NULL, 0 };
    size_t count = lua_type(co, 2) == LUA_TTABLE ? lua_objlen(co, 2) : 1;
    bool chosen = false;
    if (count > CHOICES_MAX)
        return choice;
    for (size_t i = 1; i <= count; i++) {
        if (lua_type(co, 2) == LUA_TTABLE)
            lua_rawgeti(co, 2, (int)i);
        else
            lua_pushvalue(co, 2);
        size_t len = 0;
        const char *at = lua_type(co, -1) == LUA_TSTRING ? lua_tolstring(co, -1, &len) : NULL;
        struct slice one = slice_make(at, len);
        if (len > 0 && !chosen) {
            chosen = i == count || !has_failed(x, one);
            choice = chosen ? arena_copy(&x->arena, one) : choice;
        }
        lua_pop(co, 1);
        if (len == 0)
            return slice_make(NULL, 0);
    }
    return choice;
}

enum verdict { VERDICT_NONE, VERDICT_GIVEN, VERDICT_BAD };

static enum verdict verdict_of(struct task *task, const char **ret_text) {
    static const char *const expected[HOOK_COUNT] = {
        [HOOK_connect] = "nothing or conn:reject()",
        [HOOK_tls_hello] = "nothing, conn:reject(), conn:certificate(...) or conn:tunnel(...)",
        [HOOK_tls_done] = "nothing or conn:reject()",
        [HOOK_request] = "nothing or req:respond(...)",
        [HOOK_route] =
            "nothing, an upstream's name, an address, a list of at most 64 of them, or req:respond(...)",
        [HOOK_response] = "nothing or req:respond(...)",
        [HOOK_error] = "nothing or req:respond(...)",
        [HOOK_log] = "nothing",
    };
    lua_State *co = task->co.lua;
    int type = lua_type(co, 2);
    struct exchange *x = task->x;
    if (task_decided(task))
        return VERDICT_GIVEN;  // also when the script forgot to return it
    if (type == LUA_TNIL)
        return VERDICT_NONE;
    if (task->hook == HOOK_route && (type == LUA_TSTRING || type == LUA_TTABLE)) {
        x->route_choice = route_choice(x, co);
        if (x->route_choice.at)
            return VERDICT_GIVEN;
    }
    *ret_text = task_bad_value(task, expected[task->hook]);
    return VERDICT_BAD;
}

enum outcome task_start(struct task *task, const char **ret_text) {
    if (task->job)
        return coroutine_start(task, task->hook == HOOK_resolve ? -2 : -1, 0, true, false, ret_text);
    if (!task->x)
        return coroutine_start(task, 0, (double)task->conn->conn->handle, false, false, ret_text);
    struct exchange_record *record = task->x->script;
    enum outcome outcome = coroutine_start(task, (int)record->slot, (double)task->x->handle, record->known,
                                           task->hook >= HOOK_response, ret_text);
    record->known = true;
    return outcome;
}

// Goes on after `outcome` of the script at task->at. STEP_WAIT, or STEP_MORE when the chain has come to its
// end.
// *ret_failed: a script failed and that counts.
static enum step_result advance(struct task *task, enum outcome outcome, const char *text, bool *ret_failed) {
    struct script_chain *chain = task->chain;
    *ret_failed = false;
    for (;;) {
        if (outcome == OUTCOME_WAITS)
            return STEP_WAIT;
        if (outcome == OUTCOME_ENDED) {
            enum verdict verdict = verdict_of(task, &text);
            coroutine_done(task);
            if (verdict == VERDICT_GIVEN)
                return STEP_MORE;
            if (verdict == VERDICT_BAD)
                outcome = OUTCOME_FAILED;
        }
        if (outcome == OUTCOME_FAILED) {
            task_report(task, text);
            if (!task_passes_errors(task)) {
                *ret_failed = true;
                return STEP_MORE;
            }
            if (task_decided(task))
                return STEP_MORE;
        }
        do {
            if (++task->at >= chain->count)
                return STEP_MORE;
        } while (chain->scripts[task->at].hooks[task->hook] == LUA_NOREF);
        outcome = task_start(task, &text);
    }
}

static enum step_result begin(struct task *task, enum hook_id hook, bool *ret_failed) {
    struct script_chain *chain = task->chain;
    *ret_failed = false;
    coroutine_drop(task);  // what waited at an earlier hook has been overtaken (an error of the client's)
    task->hook = hook;
    for (task->at = 0; task->at < chain->count; task->at++) {
        if (chain->scripts[task->at].hooks[hook] == LUA_NOREF)
            continue;
        const char *text = NULL;
        enum outcome outcome = task_start(task, &text);
        return advance(task, outcome, text, ret_failed);
    }
    return STEP_MORE;
}

// What the task waited for has come.
static enum step_result go_on(struct task *task, bool *ret_failed) {
    const char *text = NULL;
    enum outcome outcome = coroutine_resume(task, &text);
    return advance(task, outcome, text, ret_failed);
}

// ---- exchanges --------------------------------------------------------------------------------------------

static void exchange_wake(struct timer *timer) {
    struct task *task = container_of(timer, struct task, timer);
    struct exchange *x = task->x;
    bool failed;
    if (go_on(task, &failed) == STEP_WAIT) {
        if (x->wanted)
            exchange_run(x);
        return;
    }
    if (failed && task->hook != HOOK_log)
        exchange_fail(x, hook_failure_status(task->hook), CLOSE_script_error);
    exchange_hook_done(x);  // x may be gone now
}

struct exchange_record *exchange_record_of(struct exchange *x) {
    return x->script;
}

static uint32_t slot_take(struct script_host *host) {
    return host->free_count > 0 ? host->free_slots[--host->free_count] : ++host->slot_count;
}

static void slot_give(struct script_host *host, uint32_t slot) {
    if (host->free_count == host->free_room) {
        uint32_t room = host->free_room ? host->free_room * 2 : 64;
        uint32_t *slots = realloc(host->free_slots, room * sizeof *slots);
        if (!slots)
            return;  // the slot is lost, nothing else
        host->free_slots = slots;
        host->free_room = room;
    }
    host->free_slots[host->free_count++] = slot;
}

static struct exchange_record *exchange_record_make(struct script_chain *chain, struct exchange *x) {
    struct exchange_record *record = arena_zalloc(&x->arena, sizeof *record);
    if (!record)
        return NULL;
    if (!x->handle && !(x->handle = handle_new(HANDLE_EXCHANGE, x)))
        return NULL;
    task_init(&record->task, chain, exchange_wake);
    record->task.x = x;
    record->slot = slot_take(chain->host);
    x->script = record;
    return record;
}

struct exchange_record *exchange_record_need(struct script_chain *chain, struct exchange *x) {
    return x->script ? x->script : exchange_record_make(chain, x);
}

static enum step_result exchange_hook(void *scripts, struct exchange *x, enum hook_id hook) {
    struct exchange_record *record = exchange_record_need(scripts, x);
    if (!record) {
        exchange_fail(x, 503, CLOSE_memory);
        return STEP_MORE;
    }
    bool failed;
    enum step_result result = begin(&record->task, hook, &failed);
    if (failed)
        exchange_fail(x, hook_failure_status(hook), CLOSE_script_error);
    return result;
}

static enum step_result run_request(void *scripts, struct exchange *x) {
    return exchange_hook(scripts, x, HOOK_request);
}

static enum step_result run_route(void *scripts, struct exchange *x) {
    x->route_choice = slice_make(NULL, 0);  // asked again for each attempt
    return exchange_hook(scripts, x, HOOK_route);
}

static enum step_result run_response(void *scripts, struct exchange *x) {
    return exchange_hook(scripts, x, HOOK_response);
}

static enum step_result run_error(void *scripts, struct exchange *x) {
    return exchange_hook(scripts, x, HOOK_error);
}

// Nobody waits for what comes of it.
static enum step_result run_log(void *scripts, struct exchange *x) {
    struct exchange_record *record = exchange_record_need(scripts, x);
    if (!record)
        return STEP_MORE;
    body_drop(record);  // what has not come to its end never will
    bool failed;
    return begin(&record->task, HOOK_log, &failed);
}

static void wake(void *scripts, struct exchange *x) {
    (void)scripts;
    struct exchange_record *record = x->script;
    if (check_soft(record != NULL))
        task_wake(&record->task);
}

static void overtaken(void *scripts, struct exchange *x) {
    (void)scripts;
    struct exchange_record *record = x->script;
    if (record)
        coroutine_drop(&record->task);
}

static void ended(void *scripts, struct exchange *x) {
    (void)scripts;
    struct exchange_record *record = x->script;
    if (!record)
        return;
    struct script_host *host = record->task.chain->host;
    task_end(&record->task);
    body_drop(record);
    if (record->known) {
        lua_rawgeti(host->lua, LUA_REGISTRYINDEX, host->live);
        lua_pushnil(host->lua);
        lua_rawseti(host->lua, -2, (int)record->slot);
        lua_pop(host->lua, 1);
    }
    slot_give(host, record->slot);
    handle_drop(x->handle);
    x->handle = 0;
    x->script = NULL;
}

void chain_bind(struct script_chain *chain) {
    chain->hooks = (struct exchange_hooks){ .request = run_request,
                                            .route = run_route,
                                            .response = run_response,
                                            .request_body = body_request,
                                            .response_body = body_response,
                                            .error = run_error,
                                            .log = run_log,
                                            .wake = wake,
                                            .drop = overtaken,
                                            .ended = ended };
    for (unsigned i = 0; i < chain->count; i++) {
        const int *hooks = chain->scripts[i].hooks;
        chain->has_connect |= hooks[HOOK_connect] != LUA_NOREF;
        chain->has_tls_hello |= hooks[HOOK_tls_hello] != LUA_NOREF;
        chain->has_tls_done |= hooks[HOOK_tls_done] != LUA_NOREF;
        chain->hooks.has_request |= hooks[HOOK_request] != LUA_NOREF;
        chain->hooks.has_route |= hooks[HOOK_route] != LUA_NOREF;
        chain->hooks.has_response |= hooks[HOOK_response] != LUA_NOREF;
        chain->hooks.has_request_body |= hooks[HOOK_request_body] != LUA_NOREF;
        chain->hooks.has_response_body |= hooks[HOOK_response_body] != LUA_NOREF;
        chain->hooks.has_error |= hooks[HOOK_error] != LUA_NOREF;
        chain->hooks.has_log |= hooks[HOOK_log] != LUA_NOREF;
    }
}

// ---- conns ------------------------------------------------------------------------------------------------

// The record is left without a host.
static void conn_record_end(struct conn_record *record) {
    struct script_host *host = record->host;
    if (!host)
        return;
    if (record->task.chain)
        task_end(&record->task);
    lua_rawgeti(host->lua, LUA_REGISTRYINDEX, host->conn_table);
    lua_pushnumber(host->lua, (lua_Number)record->handle);
    lua_pushnil(host->lua);
    lua_rawset(host->lua, -3);
    lua_pop(host->lua, 1);
    list_remove(&record->link);
    record->host = NULL;
}

static void conn_gone(struct conn_script *script) {
    struct conn_record *record = (struct conn_record *)script;  // base stands first
    handle_drop(record->handle);
    while (record) {
        struct conn_record *next = record->next;
        conn_record_end(record);
        free(record);
        record = next;
    }
}

static void conn_wake(struct timer *timer) {
    struct task *task = container_of(timer, struct task, timer);
    struct conn_record *record = task->conn;
    bool failed;
    if (go_on(task, &failed) == STEP_WAIT)
        return;
    void (*decided)(struct conn *, void *, bool) = record->decided;
    record->decided = NULL;
    if (decided)
        decided(record->conn, record->owner, failed || record->rejected);  // the record may be gone now
}

struct conn_record *conn_record_of(struct script_host *host, struct conn *conn) {
    struct conn_record *first = (struct conn_record *)conn_get_script(conn), *unused = NULL;
    for (struct conn_record *record = first; record; record = record->next) {
        if (record->host == host)
            return record;
        if (!record->host)
            unused = record;  // of a host that is gone: served again
    }
    if (!conn->handle && !(conn->handle = handle_new(HANDLE_CONN, conn)))
        return NULL;
    struct conn_record *record = unused;
    if (!record) {
        record = calloc(1, sizeof *record);
        if (!record)
            return NULL;
        record->base.gone = conn_gone;
        record->conn = conn;
        if (first) {
            record->next = first->next;
            first->next = record;
        } else if (conn_set_script(conn, &record->base) < 0) {
            free(record);
            return NULL;
        }
    }
    record->host = host;
    record->handle = conn->handle;
    record->task = (struct task){ .conn = record };
    task_init(&record->task, NULL, conn_wake);
    record->rejected = false;
    list_init(&record->link);
    list_push_back(&host->conns, &record->link);
    return record;
}

void conn_records_detach(struct script_host *host) {
    list_each(link, &host->conns) conn_record_end(container_of(link, struct conn_record, link));
}

static enum step_result conn_hook(struct script_chain *chain, enum hook_id hook, struct conn *conn, bool *ret_reject,
                                  void (*decided)(struct conn *conn, void *owner, bool reject), void *owner) {
    struct conn_record *record = conn_record_of(chain->host, conn);
    if (!record) {
        *ret_reject = true;
        return STEP_MORE;
    }
    bool failed;
    record->task.chain = chain;
    record->answered = false;
    if (begin(&record->task, hook, &failed) == STEP_WAIT) {
        record->decided = decided;
        record->owner = owner;
        return STEP_WAIT;
    }
    *ret_reject = failed || record->rejected;
    return STEP_MORE;
}

enum step_result script_connect(struct script_chain *chain, struct conn *conn, bool *ret_reject,
                                void (*decided)(struct conn *conn, void *owner, bool reject), void *owner) {
    return conn_hook(chain, HOOK_connect, conn, ret_reject, decided, owner);
}

enum step_result script_tls_hello(struct script_chain *chain, struct conn *conn, bool *ret_reject,
                                  void (*decided)(struct conn *conn, void *owner, bool reject), void *owner) {
    return conn_hook(chain, HOOK_tls_hello, conn, ret_reject, decided, owner);
}

enum step_result script_tls_done(struct script_chain *chain, struct conn *conn, bool *ret_reject,
                                 void (*decided)(struct conn *conn, void *owner, bool reject), void *owner) {
    return conn_hook(chain, HOOK_tls_done, conn, ret_reject, decided, owner);
}

void script_connect_cancel(struct script_chain *chain, struct conn *conn) {
    for (struct conn_record *record = (struct conn_record *)conn_get_script(conn); record;
         record = record->next) {
        if (record->host == chain->host) {
            record->decided = NULL;
            coroutine_drop(&record->task);
        }
    }
}
