// SPDX-License-Identifier: BSD-2-Clause
// The resolve hook: a name is put to scripts before DNS is asked for it (struct resolver_guide of net/resolver.h).
// One script after the other is asked, each by a job (job.c), until one answers or refuses; then DNS. Those who ask
// never learn who has answered.
//
// Nothing of it happens while Lua code runs: an ask begins, and ends, in the ring's next flush.
#include "script/host.h"

#include "base/counters.h"
#include "base/host_name.h"
#include "script/api_impl.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

enum { REASON_MAX = 200, SECONDS_MAX = 604800 };

// What somebody wants to know, until he is told or cancels. When the scripts go first he is not told: then only
// servers of an upstream that is about to go wait, and they cancel.
struct asked {
    struct resolver_ask ask;  // what he holds
    struct script_host *host;
    const struct script_chain *chain;  // whose scripts are asked; NULL: those of all
    unsigned next;                     // of all scripts of the host, in order: those before it were asked
    struct resolver *resolver;
    struct job *job;           // whose hook is called; NULL: none is
    struct resolver_ask *dns;  // no script has an answer; NULL: not asked yet
    int family;
    uint8_t len;
    char name[DNS_NAME_MAX + 1];
};

// What a hook has returned.
struct given {
    enum { GIVEN_NOTHING, GIVEN_ANSWER, GIVEN_REFUSAL, GIVEN_BAD } kind;
    struct resolver_answer answer;  // points at these
    struct addr addrs[DNS_ADDRESSES_MAX];
    struct dns_service services[DNS_SERVICES_MAX];
    char reason[REASON_MAX];
};

// ---- what a hook returned ---------------------------------------------------------------------------------
// Read from the coroutine's stack without calling anything of the script's: nothing here may raise an error.

static bool is_string(lua_State *co, int index, struct slice *ret_text) {
    if (lua_type(co, index) != LUA_TSTRING)
        return false;
    ret_text->at = lua_tolstring(co, index, &ret_text->len);
    return true;
}

static bool take_address(const struct asked *asked, lua_State *co, int index, struct given *given) {
    struct slice text;
    struct addr addr;
    if (!is_string(co, index, &text) || addr_parse_ip(text, 0, &addr) < 0)
        return false;
    if (asked->family == AF_UNSPEC || asked->family == addr_family(&addr))
        given->addrs[given->answer.count++] = addr;
    return true;
}

// A whole number of a field.
static bool take_number(lua_State *co, int index, const char *field, uint16_t *ret_number) {
    lua_pushstring(co, field);
    lua_rawget(co, index);
    double number = lua_type(co, -1) == LUA_TNUMBER ? lua_tonumber(co, -1) : -1;
    lua_pop(co, 1);
    *ret_number = number >= 0 && number <= UINT16_MAX ? (uint16_t)number : 0;
    return number >= 0 && number <= UINT16_MAX && number == *ret_number;
}

static bool take_service(lua_State *co, struct given *given) {
    struct dns_service *service = &given->services[given->answer.count];
    int index = lua_gettop(co);
    struct slice target;
    *service = (struct dns_service){ 0 };
    if (lua_type(co, index) != LUA_TTABLE || !take_number(co, index, "priority", &service->priority) ||
        !take_number(co, index, "weight", &service->weight) ||
        !take_number(co, index, "port", &service->port) || service->port == 0)
        return false;
    lua_pushliteral(co, "target");
    lua_rawget(co, index);
    bool good = is_string(co, -1, &target) && host_name_valid(target) && target.len <= DNS_NAME_MAX;
    for (size_t i = 0; good && i < target.len; i++)
        service->target[i] = (char)(target.at[i] >= 'A' && target.at[i] <= 'Z' ? target.at[i] | 0x20 : target.at[i]);
    service->len = good ? (uint8_t)target.len : 0;
    lua_pop(co, 1);
    given->answer.count += good;
    return good;
}

static bool take_list(const struct asked *asked, lua_State *co, struct given *given) {
    bool services = asked->family == DNS_SERVICES;
    size_t count = lua_objlen(co, 2);
    bool good = count <= (services ? DNS_SERVICES_MAX : DNS_ADDRESSES_MAX);
    for (size_t i = 1; i <= count && good; i++) {
        lua_rawgeti(co, 2, (int)i);
        good = services ? take_service(co, given) : take_address(asked, co, -1, given);
        lua_pop(co, 1);
    }
    lua_pushliteral(co, "ttl");
    lua_rawget(co, 2);
    if (lua_type(co, -1) == LUA_TNUMBER) {
        double seconds = lua_tonumber(co, -1);
        good = good && seconds >= 0;
        given->answer.left_ms = (uint64_t)((good && seconds < SECONDS_MAX ? seconds : SECONDS_MAX) * 1000);
    } else {
        good = good && lua_isnil(co, -1);
    }
    lua_pop(co, 1);
    return good;
}

// Resolvers' bounds hold for scripts, too.
static void finish(const struct asked *asked, struct given *given) {
    const struct conf_resolver *conf = resolver_conf(asked->resolver);
    struct resolver_answer *answer = &given->answer;
    bool services = asked->family == DNS_SERVICES;
    answer->failure = answer->count > 0 ? DNS_none : services ? DNS_no_service : DNS_no_address;
    answer->text = dns_failure_text(answer->failure);
    if (services)
        answer->services = given->services;
    else
        answer->addrs = given->addrs;
    if (answer->left_ms < conf->min_ttl)
        answer->left_ms = conf->min_ttl;
    if (answer->left_ms > conf->max_ttl)
        answer->left_ms = conf->max_ttl;
}

static void read_given(const struct asked *asked, lua_State *co, struct given *given) {
    struct slice reason = { 0 };
    int type = lua_type(co, 2);
    given->kind = GIVEN_BAD;
    given->answer = (struct resolver_answer){ 0 };
    if (type == LUA_TNIL || type == LUA_TNONE) {
        given->kind = GIVEN_NOTHING;
    } else if (type == LUA_TBOOLEAN && !lua_toboolean(co, 2)) {
        is_string(co, 3, &reason);
        reason.len = reason.len < REASON_MAX ? reason.len : REASON_MAX - 1;
        if (reason.len > 0)
            memcpy(given->reason, reason.at, reason.len);
        given->reason[reason.len] = 0;
        given->kind = GIVEN_REFUSAL;
    } else if (type == LUA_TTABLE ? take_list(asked, co, given)
                                  : asked->family != DNS_SERVICES && take_address(asked, co, 2, given)) {
        finish(asked, given);
        given->kind = GIVEN_ANSWER;
    }
}

// ---- telling ----------------------------------------------------------------------------------------------

static void tell(struct asked *asked, const struct resolver_answer *answer) {
    void (*done)(void *, const struct resolver_answer *) = asked->ask.done;
    void *owner = asked->ask.owner;
    free(asked);
    done(owner, answer);
}

static void tell_failure(struct asked *asked, enum dns_failure failure) {
    const struct resolver_answer answer = { .left_ms = resolver_conf(asked->resolver)->negative_ttl,
                                            .failure = failure,
                                            .text = dns_failure_text(failure) };
    tell(asked, &answer);
}

static void dns_told(void *owner, const struct resolver_answer *answer) {
    tell(owner, answer);
}

// ---- asking -----------------------------------------------------------------------------------------------

// The same script with the same settings was asked already, for another frontend.
static bool same_script(const struct conf_script *a, const struct conf_script *b) {
    const struct conf_script_setting *one = a->settings, *other = b->settings;
    if (strcmp(a->path ? a->path : a->name, b->path ? b->path : b->name) != 0)
        return false;
    for (; one && other; one = one->next, other = other->next)
        if (strcmp(one->key, other->key) != 0 || strcmp(one->value ? one->value : "", other->value ? other->value : "") != 0)
            return false;
    return !one && !other;
}

static bool asked_before(const struct script_host *host, const struct script *script) {
    list_each(link, &host->chains) {
        const struct script_chain *chain = container_of(link, struct script_chain, link);
        for (unsigned at = 0; at < chain->count; at++) {
            if (&chain->scripts[at] == script)
                return false;
            if (chain->scripts[at].hooks[HOOK_resolve] != LUA_NOREF && same_script(chain->scripts[at].conf, script->conf))
                return true;
        }
    }
    return false;
}

static struct script_chain *next_script(struct asked *asked, unsigned *ret_at) {
    unsigned number = 0;
    list_each(link, &asked->host->chains) {
        struct script_chain *chain = container_of(link, struct script_chain, link);
        for (unsigned at = 0; at < chain->count; at++) {
            const struct script *script = &chain->scripts[at];
            if (number++ < asked->next || script->hooks[HOOK_resolve] == LUA_NOREF ||
                (asked->chain ? chain != asked->chain : asked_before(asked->host, script)))
                continue;
            asked->next = number;
            *ret_at = at;
            return chain;
        }
    }
    return NULL;
}

// False: it cannot be, *ret_failure says why.
static bool ask_next(struct asked *asked, enum dns_failure *ret_failure) {
    unsigned at;
    struct script_chain *chain = next_script(asked, &at);
    if (chain) {
        asked->job = job_ask(chain, at, asked, ret_failure);
        return asked->job;
    }
    struct resolver_ask *pending = resolver_ask(asked->resolver, NULL, slice_make(asked->name, asked->len),
                                                asked->family, dns_told, asked);
    if (pending)  // else he was told already
        asked->dns = pending;
    return true;
}

static void cancelled(struct resolver_ask *ask) {
    struct asked *asked = container_of(ask, struct asked, ask);
    resolver_cancel(asked->dns);
    if (asked->job)
        job_unask(asked->job);
    free(asked);
}

static struct resolver_ask *ask(struct script_host *host, const struct script_chain *chain, struct resolver *resolver,
                                struct slice name, int family,
                                void (*done)(void *owner, const struct resolver_answer *answer), void *owner) {
    struct asked *asked = malloc(sizeof *asked);
    enum dns_failure failure = DNS_memory;
    if (asked) {
        *asked = (struct asked){ .ask = { .done = done, .owner = owner, .cancelled = cancelled },
                                 .host = host,
                                 .chain = chain,
                                 .resolver = resolver,
                                 .family = family,
                                 .len = (uint8_t)name.len };
        memcpy(asked->name, name.at, name.len);
        list_init(&asked->ask.link);
        if (ask_next(asked, &failure))
            return &asked->ask;
        tell_failure(asked, failure);
        return NULL;
    }
    const struct resolver_answer answer = { .failure = failure, .text = dns_failure_text(failure) };
    done(owner, &answer);
    return NULL;
}

static struct resolver_ask *ask_chain(struct resolver_guide *guide, struct resolver *resolver, struct slice name,
                                      int family, void (*done)(void *owner, const struct resolver_answer *answer),
                                      void *owner) {
    struct script_chain *chain = container_of(guide, struct script_chain, guide);
    return ask(chain->host, chain, resolver, name, family, done, owner);
}

static struct resolver_ask *ask_all(struct resolver_guide *guide, struct resolver *resolver, struct slice name,
                                    int family, void (*done)(void *owner, const struct resolver_answer *answer),
                                    void *owner) {
    return ask(container_of(guide, struct script_host, guide), NULL, resolver, name, family, done, owner);
}

// ---- the job's side ---------------------------------------------------------------------------------------

void asked_push(const struct asked *asked, lua_State *co) {
    int family = asked->family == AF_INET    ? 4
        : asked->family == AF_INET6          ? 6
        : asked->family == DNS_SERVICES      ? MG_SERVICES
                                             : 0;
    lua_pushlstring(co, asked->name, asked->len);
    lua_pushinteger(co, family);
}

static void say_refused(const struct asked *asked, const struct task *task, const char *reason) {
    static struct log_limit limit;
    uint32_t suppressed;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("script \"%s\", resolve hook: \"%s\" is refused%s%s", task->chain->scripts[task->at].conf->name,
                 asked->name, *reason ? ": " : "", reason);
}

void asked_took_turn(struct job *job, enum outcome outcome, const char *text) {
    struct task *task = &job->task;
    struct asked *asked = job->asked;
    bool passes = task_passes_errors(task);
    struct given given = { .kind = GIVEN_NOTHING };
    if (outcome == OUTCOME_ENDED) {
        if (asked)
            read_given(asked, task->co.lua, &given);
        if (given.kind == GIVEN_BAD)
            text = task_bad_value(task, asked->family == DNS_SERVICES
                                      ? "nothing, a list of at most 32 services, or false and a reason"
                                      : "nothing, an address, a list of at most 64 of them, or false and a reason");
        coroutine_done(task);
    }
    bool failed = outcome == OUTCOME_FAILED || given.kind == GIVEN_BAD;
    if (failed)
        task_report(task, text);
    if (asked && given.kind == GIVEN_REFUSAL)
        say_refused(asked, task, given.reason);
    job_over(job);
    if (!asked)
        return;
    enum dns_failure failure = DNS_script;
    asked->job = NULL;
    counters->dns_scripted += !failed && given.kind != GIVEN_NOTHING;
    if (given.kind == GIVEN_ANSWER)
        tell(asked, &given.answer);
    else if (given.kind == GIVEN_REFUSAL)
        tell_failure(asked, DNS_refused);
    else if ((failed && !passes) || !ask_next(asked, &failure))
        tell_failure(asked, failure);
}

void asked_lost(struct asked *asked) {
    asked->job = NULL;
}

// ---- whom to ask ------------------------------------------------------------------------------------------

void guide_bind(struct script_host *host) {
    host->guide.ask = ask_all;
    list_each(link, &host->chains) {
        struct script_chain *chain = container_of(link, struct script_chain, link);
        chain->guide.ask = ask_chain;
        for (unsigned at = 0; at < chain->count; at++)
            chain->has_resolve |= chain->scripts[at].hooks[HOOK_resolve] != LUA_NOREF;
        host->has_resolve |= chain->has_resolve;
    }
}

struct resolver_guide *script_chain_guide(struct script_chain *chain) {
    return chain->has_resolve ? &chain->guide : NULL;
}

struct resolver_guide *script_host_guide(struct script_host *host) {
    return host->has_resolve ? &host->guide : NULL;
}

bool task_is_resolving(const struct task *task) {
    for (; task; task = task->job ? task->job->parent : NULL)
        if (task->hook == HOOK_resolve)
            return true;
    return false;
}

struct resolver_guide *task_guide(const struct task *task) {
    return task_is_resolving(task) ? NULL : script_chain_guide(task->chain);
}
