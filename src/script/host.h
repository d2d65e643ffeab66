// SPDX-License-Identifier: BSD-2-Clause
// What the files of this folder share: the host, its chains, and the records that hang on exchanges and
// conns. Nobody outside script/ includes it.
//
// Who owns what
//   host             the Lua state, the pool of coroutines, the chains and the records of conns; freed with
//                    its generation
//   coroutine        in the pool while idle; lent to a task while a hook runs; after an error, or when a
//                    waiting hook is dropped, left to Lua's collector
//   task             a chain under way at one hook, or one script's body hook; lies in a record
//   exchange_record  in the exchange's arena, from its first hook until hooks->ended
//   job              on the heap; on the host's list until it has ended (job.c)
//   conn_record      on the heap, one for each host whose scripts asked for the conn; until the conn goes
#ifndef MOONGATE_SCRIPT_HOST_H
#define MOONGATE_SCRIPT_HOST_H

#include "base/list.h"
#include "base/log.h"
#include "base/timer.h"
#include "net/conn.h"
#include "net/resolver.h"
#include "script/hooks.h"
#include "script/script.h"

#include <lua.h>

struct coroutine {
    lua_State *lua;
    int ref;  // keeps it from the collector
};

struct script {
    const struct conf_script *conf;
    uint32_t ordinal;       // 1 + its place among the configuration's script lines
    int hooks[HOOK_COUNT];  // references to functions, LUA_NOREF where there is none
};

struct script_chain {
    struct list link;  // the host's
    struct script_host *host;
    const struct conf_frontend *frontend;
    struct exchange_hooks hooks;
    struct exchange_site *inner;  // of requests that its scripts make; the frontend's
    struct resolver_guide guide;
    bool has_connect, has_tls_hello, has_tls_done, has_resolve;
    unsigned count;
    struct script scripts[];
};

// bounds.c's.
struct script_bounds {
    size_t used, most;     // bytes that Lua holds; most 0: not counted
    bool compiles;         // LuaJIT's compiler is on
    bool hasty;            // its collector is to work ahead
    bool reached, failed;  // the limit of memory was reached in this run of a script, in the last one
    lua_Alloc allocate;    // Lua's own
    void *allocator;
};

struct script_host {
    lua_State *lua;
    const struct conf *conf;
    struct source *source;
    struct script_dict *dicts;
    unsigned dict_count;
    struct script_probe *probe;  // never NULL: points at own_probe without one
    struct script_probe own_probe;
    struct tls_client *tls[2];  // of sockets, where whoever answers is trusted, and where not; NULL: not yet
    struct list *upstreams;     // the generation's; NULL: there are none
    struct resolver *resolver;  // the generation's; NULL: there is none
    struct metrics *metrics;  // never NULL: points at own_metrics, in own_region, without one
    struct metrics own_metrics;
    void *own_region;
    uint64_t generation;
    unsigned worker;
    struct list chains, conns;
    struct resolver_guide guide;  // all chains'
    bool has_resolve;
    struct list jobs;
    struct list health_functions;  // health.c's
    unsigned job_count, jobs_running;
    struct script_chain *loading;  // whose main chunk runs: script number loading_at
    unsigned loading_at;
    struct {
        void (*done)(void *owner, const struct error *error);  // set while init hooks run
        void *owner;
        unsigned next;  // of all scripts of the host, in order
    } starting;
    bool in_use, ending;
    struct script_bounds bounds;
    struct coroutine *idle;  // a stack
    unsigned idle_count, idle_room;
    uint32_t *free_slots;  // places in the Lua table of requests, a stack
    uint32_t free_count, free_room, slot_count;
    // References: the loop that a coroutine runs, requests by slot, conns by handle, functions of jobs by
    // their id, what is called when a job and when a task is over, and before a check begins.
    int runner, live, conn_table, job_table, job_over, task_over, health_begin;
    struct script_stats stats;
    struct log_limit limit;
    const struct script_observer *observer;
};

// What a task's hook did.
enum outcome { OUTCOME_ENDED, OUTCOME_WAITS, OUTCOME_FAILED };

// What a hook that yielded waits for.
enum wait {
    WAIT_NONE,
    WAIT_TIME,   // the timer
    WAIT_INPUT,  // body hooks: something to read, or its end
    WAIT_ROOM,   // body hooks: that what was written leaves
};

struct exchange_record;
struct conn_record;

struct task {
    struct script_chain *chain;
    struct exchange *x;        // either this
    struct conn_record *conn;  // or this
    struct job *job;           // or this
    uint64_t ticket;           // base/handle.h; 0 until the hook asks
    bool parked;               // waits to be woken by its ticket
    struct ring_flush wake;    // what the timer does, at the next opportunity
    struct list sockets;       // that its hook has opened (socket.h): they end with it
    struct list children;      // jobs that gate.spawn started: they end with what the task belongs to
    unsigned at;               // which script of the chain
    enum hook_id hook;
    struct coroutine co;  // lua is set while a hook waits
    enum wait wait;
    struct timer timer;  // with WAIT_TIME
    uint64_t sleep_ms;   // what the hook asked for
    bool overdue;        // when the timer fires, script_time_limit is over
    uint64_t since_ms;   // when the hook (of a body: its last wait) began, by clock_ms()
};

struct asked;

// A function of a script that runs on nobody's behalf.
struct job {
    struct task task;     // `chain` and `at` are those of the script that made it
    struct list link;     // the host's
    struct task *parent;  // of what gate.spawn started; outlives it
    struct list sibling;  // among the parent's children
    unsigned sockets;     // of it and of what it spawned
    uint64_t id;          // of its function in the Lua table of jobs; 0: a hook of the table of hooks
    struct asked *asked;  // of a resolve hook: who wants to know; NULL: nobody does any more
    uint64_t delay_ms;    // until it begins; with `every` between two beginnings, too
    uint64_t due_ms;
    bool every;
    bool cancelled;  // does not begin again
    struct check_run *check;  // health.c's: it checks a server; NULL: it does not
    enum {
        JOB_HELD,   // made while the script loads: begins to count when the configuration is in use
        JOB_ARMED,  // the task's timer runs, or it is to be woken
        JOB_RUNNING,
    } state;
};

// One script's body hook of an exchange: reads what the one before it wrote (the first: what the codec
// brought) and writes for the next one (the last: for the codec). Lies in the exchange's arena.
struct body_stage {
    struct task task;
    struct body_filter *filter;
    struct queue *in, *out;
    struct queue own;  // what `in` points at, but for the first
    struct span held;  // was read last: Lua copies it after the call
    struct queue tail; // what goes behind the body (append)
    bool passes;       // the hook reads no more: everything goes on as it is
    enum {
        STAGE_NEW,     // not called yet
        STAGE_WAITS,   // task.wait says for what
        STAGE_AWAKE,   // its time is over
        STAGE_PASSES,  // passes, and the hook is over (or failed, with on_script_error pass)
        STAGE_ENDED,
    } state;
};

struct body_filter {
    int whose;  // MG_REQUEST, MG_RESPONSE
    struct exchange *x;
    unsigned count;
    struct body_stage stages[];
};

struct exchange_record {
    struct task task;
    uint32_t slot;
    bool known;                     // the Lua object was made
    unsigned sockets;               // of its hooks and of what they spawned
    struct headers reply;           // of a response that a script is putting together
    struct body_filter *bodies[2];  // by whose; NULL before the body hooks are called
};

struct conn_record {
    struct conn_script base;   // the conn's, in the first record only
    struct conn_record *next;  // of the same conn, for another host
    struct list link;          // the host's
    struct script_host *host;  // NULL: the host is gone
    struct conn *conn;
    uint64_t handle;  // the conn's
    struct task task;
    unsigned sockets;  // of its hooks and of what they spawned
    bool rejected;
    bool answered;  // a tls_hello hook gave another verdict
    void (*decided)(struct conn *conn, void *owner, bool reject);  // set while a hook waits
    void *owner;
};

// The task whose hook runs at this moment; NULL outside of hooks, while scripts load too.
extern struct task *task_running;
// The host whose Lua code runs, while scripts load too.
extern struct script_host *host_running;

// What the runner yields: a hook came to its end, or waits. Addresses only.
extern char token_done, token_wait, token_verdict;

// For a task whose memory is zero but for what it is of; fired() takes it up when its time or its wake-up
// comes.
void task_init(struct task *task, struct script_chain *chain, void (*fired)(struct timer *timer));
// Takes up a task at the next opportunity, whatever it waits for.
void task_wake(struct task *task);
// The same for one that parked; false when there is none with that ticket, or it does not wait.
bool task_unpark(uint64_t ticket);
// What the hook's wake-ups go by, until it is over; 0: memory is out.
uint64_t task_ticket(struct task *task);
// What the task belongs to ends: nothing of it is taken up again.
void task_end(struct task *task);

// state.c: 0, or -EINVAL with "file:line: why"; with a host, the main chunks run and hooks are taken.
int state_open(struct script_host *host, struct error *error) __attribute__((warn_unused_result));
int state_load(struct script_host *host, struct script *script, struct error *error)
    __attribute__((warn_unused_result));
void state_close(struct script_host *host);

// bounds.c
void bounds_open(struct script_host *host);
void bounds_close(struct script_host *host);
// Around code of scripts.
void bounds_begin(struct script_host *host);
void bounds_end(struct script_host *host);
void bounds_failed(struct script_host *host);
const char *bounds_memory_text(const struct script_host *host);  // why there was none

// coroutine.c: runs the hook of task->chain->scripts[task->at]. ENDED: one value is on task->co.lua's stack
// at index 2, and coroutine_done() must follow. FAILED: the message and traceback are in *ret_text, valid
// until the next call.
enum outcome coroutine_start(struct task *task, int slot, double handle, bool known, bool with_response,
                             const char **ret_text);
enum outcome coroutine_resume(struct task *task, const char **ret_text);
void coroutine_done(struct task *task);
// Drops a waiting hook: it is never taken up again.
void coroutine_drop(struct task *task);
void coroutine_release_all(struct script_host *host);

// hook.c
struct exchange_record *exchange_record_of(struct exchange *x);
struct exchange_record *exchange_record_need(struct script_chain *chain,
                                             struct exchange *x);  // NULL: memory is out
enum outcome task_start(struct task *task, const char **ret_text);
void task_report(struct task *task, const char *text);
bool task_passes_errors(const struct task *task);
const struct conf_settings *task_settings(const struct task *task);
// "file:line: the request hook returned a number: expected ...", for the value of a hook that has ended.
const char *task_bad_value(struct task *task, const char *expected);
// Finds or makes; NULL when memory is out. The handle of the conn is set then.
struct conn_record *conn_record_of(struct script_host *host, struct conn *conn);
void conn_records_detach(struct script_host *host);
void chain_bind(struct script_chain *chain);

// job.c: a resolve hook is called at the next opportunity, and asked_took_turn() when it is over. NULL: it cannot be.
struct job *job_ask(struct script_chain *chain, unsigned at, struct asked *asked, enum dns_failure *ret_failure);
void job_unask(struct job *job);  // nobody wants to know
void job_over(struct job *job);
void jobs_cancel(struct list *children);
void jobs_release_all(struct script_host *host);
// Begins at the next opportunity; its function has to be made until then. NULL when memory is out.
struct job *job_begin(struct script_chain *chain, unsigned at, enum hook_id hook);
void job_end(struct job *job);  // wherever it is, but not from within

// health.c
// That every function that the configuration names is there.
int health_check(const struct script_host *host, struct error *error) __attribute__((warn_unused_result));
void health_forget(struct script_host *host);
void health_ended(struct job *job, const char *failure);  // it goes with that; failure: of the function, or NULL
void health_lost(struct job *job);  // it goes, whatever came of it

// guide.c: what a resolve hook is called with, as two values.
void asked_push(const struct asked *asked, lua_State *co);
// It has ended or failed; the job is over then.
void asked_took_turn(struct job *job, enum outcome outcome, const char *text);
void asked_lost(struct asked *asked);  // the job goes without being over
void guide_bind(struct script_host *host);
// Who is asked first for a name that this task wants: nobody, where it is a resolve hook or was started by one.
struct resolver_guide *task_guide(const struct task *task);
bool task_is_resolving(const struct task *task);

// socket.c, tcp_pool.c
void sockets_end(struct list *sockets);
void sockets_forget(const struct script_host *host);  // closes its idle connections

// body.c
enum filter_result body_request(void *scripts, struct exchange *x);
enum filter_result body_response(void *scripts, struct exchange *x);
void body_drop(struct exchange_record *record);
// The body hook that runs at this moment and is about that body of x; NULL when there is none.
struct body_stage *body_stage_running(const struct exchange *x, int whose);
bool body_stage_input_ended(const struct body_stage *stage);
bool body_stage_has_room(const struct body_stage *stage, uint64_t most);

#endif
