// SPDX-License-Identifier: BSD-2-Clause
// Jobs: functions of scripts that run on nobody's behalf. Timers (gate.after, gate.every), what gate.spawn
// starts, and the hooks init, worker_init and exit. What comes of one decides nothing but whether a
// configuration that is being loaded is refused (init). Called by proc/ through script.h, by scripts through
// api.h.
#include "script/host.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/handle.h"
#include "script/api_impl.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdlib.h>

enum { JOBS_MAX = 10000 };  // of a host: a client may be what makes a script start them

static void job_wake(struct timer *timer);
static void init_go_on(struct script_host *host);

static struct job *job_new(struct script_chain *chain, unsigned at, unsigned hook) {
    struct script_host *host = chain->host;
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    task_init(&job->task, chain, job_wake);
    job->task.job = job;
    job->task.at = at;
    job->task.hook = (enum hook_id)hook;
    list_init(&job->sibling);
    list_push_back(&host->jobs, &job->link);
    host->job_count++;
    counters->timers_active++;
    return job;
}

static void set_state(struct job *job, int state) {
    struct script_host *host = job->task.chain->host;
    host->jobs_running += (unsigned)(state == JOB_RUNNING) - (unsigned)(job->state == JOB_RUNNING);
    job->state = state;
}

// Its function and what waits for its end are let go (lua/moongate/tasks.lua).
static void job_free(struct job *job) {
    struct script_host *host = job->task.chain->host;
    if (job->check)
        health_lost(job);
    set_state(job, JOB_HELD);
    task_end(&job->task);
    if (job->asked)
        asked_lost(job->asked);
    if (job->id) {
        lua_State *lua = host->lua;
        handle_drop(job->id);
        lua_rawgeti(lua, LUA_REGISTRYINDEX, host->job_over);
        lua_pushnumber(lua, (lua_Number)job->id);
        if (lua_pcall(lua, 1, 0, 0) != 0) {
            log_error("a job's end failed: %s", lua_tostring(lua, -1));
            lua_pop(lua, 1);
        }
    }
    list_remove(&job->link);
    list_remove(&job->sibling);
    host->job_count--;
    counters->timers_active--;
    free(job);
}

void jobs_cancel(struct list *children) {
    while (!list_empty(children))
        job_free(container_of(children->next, struct job, sibling));
}

void jobs_release_all(struct script_host *host) {
    while (!list_empty(&host->jobs))
        job_free(container_of(host->jobs.next, struct job, link));
}

static void arm(struct job *job) {
    set_state(job, JOB_ARMED);
    job->due_ms = clock_ms() + job->delay_ms;
    timer_start(&job->task.timer, job->delay_ms);
}

// gate.every: the next time is counted from the last beginning, but nothing is made up for.
static void arm_again(struct job *job) {
    uint64_t due = job->due_ms + job->delay_ms, now = clock_ms();
    set_state(job, JOB_ARMED);
    job->due_ms = due > now ? due : now;
    timer_start(&job->task.timer, job->due_ms - now);
}

// The init hook of a script has ended; text: it failed.
static void init_ended(struct script_host *host, const struct task *task, const char *text) {
    if (!text) {
        init_go_on(host);
        return;
    }
    struct error error;
    void (*done)(void *, const struct error *) = host->starting.done;
    host->starting.done = NULL;
    error_set(&error, -EINVAL, "script \"%s\", init hook: %s", task->chain->scripts[task->at].conf->name,
              text);
    done(host->starting.owner, &error);
}

static void took_turn(struct job *job, enum outcome outcome, const char *text) {
    struct task *task = &job->task;
    struct script_host *host = task->chain->host;
    if (outcome == OUTCOME_WAITS)
        return;
    if (task->hook == HOOK_resolve) {
        asked_took_turn(job, outcome, text);
        return;
    }
    bool failed = outcome == OUTCOME_FAILED;
    if (!failed)
        coroutine_done(task);
    bool starting = task->hook == HOOK_init && host->starting.done;
    if (failed && !starting)
        task_report(task, text);
    if (job->check) {
        health_ended(job, failed ? text : NULL);
        return;
    }
    if (job->every && !job->cancelled) {
        jobs_cancel(&task->children);
        arm_again(job);
        return;
    }
    if (starting) {
        struct task over = *task;  // the text lives on in the host's state
        job_free(job);
        init_ended(host, &over, failed ? text : NULL);
        return;
    }
    job_free(job);
}

static bool ends_where_it_waits(const struct job *job) {
    return job->state != JOB_RUNNING || job->task.hook == HOOK_task ||
        (job->task.hook == HOOK_resolve && !job->asked);
}

static void begin(struct job *job) {
    const char *text = NULL;
    set_state(job, JOB_RUNNING);
    enum outcome outcome = task_start(&job->task, &text);
    took_turn(job, outcome, text);
}

static void job_wake(struct timer *timer) {
    struct job *job = container_of(timer, struct job, task.timer);
    if (job->cancelled && ends_where_it_waits(job)) {
        job_free(job);
        return;
    }
    if (job->state != JOB_RUNNING) {
        begin(job);
        return;
    }
    const char *text = NULL;
    enum outcome outcome = coroutine_resume(&job->task, &text);
    took_turn(job, outcome, text);
}

// ---- names ------------------------------------------------------------------------------------------------

struct job *job_ask(struct script_chain *chain, unsigned at, struct asked *asked, enum dns_failure *ret_failure) {
    bool full = chain->host->job_count >= JOBS_MAX;
    struct job *job = full ? NULL : job_new(chain, at, HOOK_resolve);
    *ret_failure = full ? DNS_busy : DNS_memory;
    if (!job)
        return NULL;
    job->asked = asked;
    set_state(job, JOB_ARMED);
    task_wake(&job->task);
    return job;
}

// Not at once: Lua code may be running.
void job_unask(struct job *job) {
    job->asked = NULL;
    job->cancelled = true;
    if (&job->task != task_running)
        task_wake(&job->task);
}

void job_over(struct job *job) {
    job->asked = NULL;
    job_free(job);
}

// ---- the life of a configuration --------------------------------------------------------------------------

// The n-th script of the host that has the hook; *n is then the number behind it. NULL: none is left.
static struct script_chain *next_with(struct script_host *host, enum hook_id hook, unsigned *n,
                                      unsigned *ret_at) {
    unsigned number = 0;
    list_each(link, &host->chains) {
        struct script_chain *chain = container_of(link, struct script_chain, link);
        for (unsigned at = 0; at < chain->count; at++)
            if (number++ >= *n && chain->scripts[at].hooks[hook] != LUA_NOREF) {
                *n = number;
                *ret_at = at;
                return chain;
            }
    }
    return NULL;
}

static void run_all(struct script_host *host, enum hook_id hook) {
    struct script_chain *chain;
    for (unsigned n = 0, at; (chain = next_with(host, hook, &n, &at));) {
        struct job *job = job_new(chain, at, hook);
        if (job)
            begin(job);
        else
            log_error("no memory for the %s hook of script \"%s\"", hook_name(hook),
                      chain->scripts[at].conf->name);
    }
}

static void init_go_on(struct script_host *host) {
    unsigned at;
    struct script_chain *chain = next_with(host, HOOK_init, &host->starting.next, &at);
    struct job *job = chain ? job_new(chain, at, HOOK_init) : NULL;
    if (job) {
        begin(job);
        return;
    }
    struct error error;
    void (*done)(void *, const struct error *) = host->starting.done;
    host->starting.done = NULL;
    if (chain)
        error_set(&error, -ENOMEM, "memory is out");
    done(host->starting.owner, chain ? &error : NULL);
}

void script_host_init(struct script_host *host, void (*done)(void *owner, const struct error *error),
                      void *owner) {
    host->starting.done = done;
    host->starting.owner = owner;
    host->starting.next = 0;
    init_go_on(host);
}

void script_host_go(struct script_host *host) {
    host->in_use = true;
    list_each(link, &host->jobs) {
        struct job *job = container_of(link, struct job, link);
        if (job->state == JOB_HELD)
            arm(job);
    }
    run_all(host, HOOK_worker_init);
}

bool script_host_end(struct script_host *host) {
    if (!host->ending) {
        host->ending = true;
        host->starting.done = NULL;
        list_each(link, &host->jobs) {
            struct job *job = container_of(link, struct job, link);
            job->cancelled = job->cancelled || job->task.hook != HOOK_resolve;  // somebody waits for these
        }
        if (host->in_use)
            run_all(host, HOOK_exit);
        else
            jobs_release_all(host);
    }
    return host->jobs_running == 0;
}

void script_host_retire(struct script_host *host) {
    list_each(link, &host->jobs) {
        struct job *job = container_of(link, struct job, link);
        job->cancelled |= job->every;
        if (job->state != JOB_RUNNING && job->task.hook == HOOK_timer) {
            timer_stop(&job->task.timer);
            job->cancelled = true;
        }
    }
}

// ---- for scripts ------------------------------------------------------------------------------------------

static int make(unsigned hook, struct job **ret_job) {
    struct script_host *host = host_running;
    struct script_chain *chain = task_running ? task_running->chain : host ? host->loading : NULL;
    if (!chain)
        return mg_error("there is no script that it could belong to");
    host = chain->host;
    if (host->job_count >= JOBS_MAX)
        return mg_error("there are %u timers and tasks already, no more can be started", JOBS_MAX);
    struct job *job = job_new(chain, task_running ? task_running->at : host->loading_at, hook);
    if (job)
        job->id = handle_new(HANDLE_JOB, job);
    if (!job || !job->id) {
        if (job)
            job_free(job);
        return mg_error("memory is out");
    }
    *ret_job = job;
    return MG_OK;
}

struct job *job_begin(struct script_chain *chain, unsigned at, enum hook_id hook) {
    struct job *job = job_new(chain, at, hook);
    if (!job)
        return NULL;
    job->id = handle_new(HANDLE_JOB, job);
    if (!job->id) {
        job_free(job);
        return NULL;
    }
    set_state(job, JOB_ARMED);
    task_wake(&job->task);
    return job;
}

void job_end(struct job *job) {
    job_free(job);
}

int mg_job_timer(double seconds, int every, double *ret_job) {
    struct job *job;
    if (!(seconds >= (every ? 0.001 : 0) && seconds <= 1e6))
        return mg_error(every ? "gate.every takes 0.001 to 1000000 seconds"
                              : "gate.after takes 0 to 1000000 seconds");
    int rc = make(HOOK_timer, &job);
    if (rc != MG_OK)
        return rc;
    job->delay_ms = (uint64_t)(seconds * 1000 + 0.999);
    job->every = every;
    if (job->task.chain->host->in_use)
        arm(job);
    *ret_job = (double)job->id;
    return MG_OK;
}

int mg_job_spawn(double *ret_job) {
    struct job *job;
    if (!task_running)
        return mg_error("gate.spawn is for hooks and timers: a script must not start tasks while it loads");
    int rc = make(HOOK_task, &job);
    if (rc != MG_OK)
        return rc;
    job->parent = task_running;
    list_push_back(&task_running->children, &job->sibling);
    set_state(job, JOB_ARMED);
    task_wake(&job->task);
    *ret_job = (double)job->id;
    return MG_OK;
}

// A timer that runs comes to the end of its run; a task ends where it waits.
int mg_job_cancel(double id) {
    struct job *job = handle_get(HANDLE_JOB, mg_handle(id));
    if (!job)
        return MG_NONE;
    job->cancelled = true;
    // Not at once: this is called from the middle of Lua code.
    if (&job->task != task_running && ends_where_it_waits(job))
        task_wake(&job->task);
    return MG_OK;
}

uint64_t task_ticket(struct task *task) {
    if (!task->ticket)
        task->ticket = handle_new(HANDLE_TASK, task);
    return task->ticket;
}

int mg_task_ticket(double *ret_ticket) {
    if (!task_running)
        return mg_error("this is for hooks, timers and tasks: a script must not wait while it loads");
    uint64_t ticket = task_ticket(task_running);
    *ret_ticket = (double)ticket;
    return ticket ? MG_OK : mg_error("memory is out");
}

int mg_task_park(double seconds) {
    if (!task_running || !task_running->ticket)
        return mg_error("nothing could wake it");
    if (!(seconds >= 0 && seconds <= 1e6))
        return mg_error("a time-out is 0 to 1000000 seconds");
    task_running->wait = WAIT_TIME;
    task_running->sleep_ms = (uint64_t)(seconds * 1000 + 0.999);
    task_running->parked = true;
    return MG_OK;
}

int mg_task_unpark(double ticket) {
    return task_unpark(mg_handle(ticket)) ? MG_OK : MG_NONE;
}
