// SPDX-License-Identifier: BSD-2-Clause
// The script layer as others see it: one script_host (a Lua state with all scripts of a configuration)
// belongs to one generation of one worker; a chain is the scripts of one frontend in order.
//
// To add a hook: script/hooks.h (the table), a call here or in struct exchange_hooks, the manual.
#ifndef MOONGATE_SCRIPT_SCRIPT_H
#define MOONGATE_SCRIPT_SCRIPT_H

#include "base/dict.h"
#include "base/error.h"
#include "base/metrics.h"
#include "conf/conf.h"
#include "http/exchange.h"

struct resolver;
struct source;
struct script_host;
struct script_chain;
struct lua_State;

// Where the running script and hook are noted for the watchdog: lies in the master's memory.
struct script_probe {
    _Atomic uint32_t script;  // 1 + ordinal among all script lines (frontends in order), 0: none runs
    _Atomic uint32_t hook;    // enum hook_id
};

struct script_dict {
    const char *name;
    struct dict *dict;
};

// For what runs scripts without a server (test_*.c, examine.c); each may be NULL.
struct script_observer {
    void (*opened)(void *owner, struct lua_State *lua);  // nothing of a script's has run
    // A dictionary that the configuration has not: it, or NULL.
    struct dict *(*dict)(void *owner, const char *name);
    void *owner;
};

struct script_options {
    const struct conf *conf;
    struct source *source;            // texts for require
    const struct script_dict *dicts;  // shared dictionaries by name; copied, the dicts outlive the host
    unsigned dict_count;
    struct script_probe *probe;  // may be NULL
    struct metrics *metrics;     // outlives the host; NULL: one that is thrown away with it
    struct list *upstreams;      // struct upstream; outlives the host. NULL: there are none
    struct resolver *resolver;   // of gate.resolve; outlives the host. NULL: there is none
    uint64_t generation;
    unsigned worker;
    const struct script_observer *observer;  // NULL: none; outlives the host
};

// Only compiles every script (the master's check): file:line: why.
int script_check(const struct conf *conf, struct error *error) __attribute__((warn_unused_result));
// Makes the Lua state, runs every script's main chunk and checks the table of hooks that it returns. Main
// chunks may not yield.
int script_host_new(const struct script_options *options, struct script_host **ret_host, struct error *error)
    __attribute__((warn_unused_result));
// Runs the init hooks, one after the other; they may wait. done() is called once, perhaps at once: error NULL
// when all came to their end. Not when script_host_end() or _free() come first.
void script_host_init(struct script_host *host, void (*done)(void *owner, const struct error *error),
                      void *owner);
// The configuration is in use from now on: timers begin to count, worker_init hooks run.
void script_host_go(struct script_host *host);
// Another one is in use: timers stop. What runs goes on, and exchanges may still call hooks.
void script_host_retire(struct script_host *host);
// Nothing will call hooks any more. The first call runs the exit hooks, if it was in use. True when nothing
// is left that runs: it may be freed; else ask again.
bool script_host_end(struct script_host *host);
// No exchange of its may live. Records of conns that live on are detached.
void script_host_free(struct script_host *host);

// NULL when the frontend has no scripts.
struct script_chain *script_chain_of(struct script_host *host, const struct conf_frontend *frontend);
// The site of requests that its scripts make (gate.fetch); outlives the chain's hooks. Without it they fail.
void script_chain_set_inner(struct script_chain *chain, struct exchange_site *inner);
const struct exchange_hooks *script_chain_hooks(struct script_chain *chain);  // `scripts`: the chain itself

// The connect hook. STEP_MORE: *ret_reject says the verdict. STEP_WAIT: decided(conn, owner, reject) is
// called later, unless script_connect_cancel() came first.
enum step_result script_connect(struct script_chain *chain, struct conn *conn, bool *ret_reject,
                                void (*decided)(struct conn *conn, void *owner, bool reject), void *owner);
// The hooks of a TLS handshake, likewise: at the client's hello, and when it is done. What a tls_hello hook chose is
// with the conn (tls/stream.h).
enum step_result script_tls_hello(struct script_chain *chain, struct conn *conn, bool *ret_reject,
                                  void (*decided)(struct conn *conn, void *owner, bool reject), void *owner);
enum step_result script_tls_done(struct script_chain *chain, struct conn *conn, bool *ret_reject,
                                 void (*decided)(struct conn *conn, void *owner, bool reject), void *owner);
// Of any of the three.
void script_connect_cancel(struct script_chain *chain, struct conn *conn);
bool script_chain_has_connect(const struct script_chain *chain);
bool script_chain_has_tls_hello(const struct script_chain *chain);
bool script_chain_has_tls_done(const struct script_chain *chain);

// Who is asked for names before DNS is: the scripts of the chain that have a resolve hook; of servers that the
// configuration names: all that have one. NULL: none has. Lives as long as the host.
struct resolver_guide *script_chain_guide(struct script_chain *chain);
struct resolver_guide *script_host_guide(struct script_host *host);

// Sockets of scripts that the descriptors of this worker suffice for, whatever script_sockets says.
void script_sockets_bound(uint64_t most);

// Checks of servers by functions of scripts (proxy/check.h); `scripts`: the host.
struct check_script;
const struct check_script *script_health(void);

struct script_stats {
    uint64_t calls, errors, yields;
    size_t lua_bytes;
};
void script_host_stats(const struct script_host *host, struct script_stats *ret_stats);

#endif
