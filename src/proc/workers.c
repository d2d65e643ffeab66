// SPDX-License-Identifier: BSD-2-Clause
// Keeps a process in every slot (workers.h). A worker that dies is replaced at once; one that dies again soon
// after, with a growing delay. What a generation is and when it changes is reload.c's.
#include "proc/workers.h"

#include "base/clock.h"
#include "base/log.h"
#include "proc/master.h"
#include "proc/worker.h"
#include "proxy/standing.h"
#include "script/hooks.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    QUICK_DEATH_MS = 5000,  // one that lived for less died quickly
    BACKOFF_MIN_MS = 100,
    BACKOFF_MAX_MS = 5000,
};

static void respawn(struct timer *timer);
static void readable(struct watch *watch, uint32_t events);
static void look_after(struct timer *timer);

const char *worker_state_name(enum worker_state state) {
    static const char *const names[] = {
#define X(name, doc) #name,
        WORKER_STATES(X)
#undef X
    };
    return names[state];
}

int workers_init(struct master *master, unsigned count) {
    static int cpus[CPU_MAX];
    unsigned cpu_count = cpus_allowed(cpus);
    if (count == 0)
        count = cpu_count;
    master->shared = heritage_map(count);
    master->standings = standings_map((unsigned)master->conf->upstream_servers, count);
    master->workers = calloc(count, sizeof *master->workers);
    if (!master->shared || !master->standings || !master->workers)
        return -ENOMEM;
    master->worker_count = count;
    for (unsigned i = 0; i < count; i++) {
        struct worker *worker = &master->workers[i];
        worker->master = master;
        worker->index = i;
        // More workers than cores share them; the kernel may then place each as it likes.
        worker->cpu = count <= cpu_count ? cpus[i] : -1;
        worker->watch.fd = -1;
        channel_init(&worker->channel, -1);
        timer_init(&worker->respawn, respawn);
    }
    timer_init(&master->watchdog, look_after);
    return 0;
}

void workers_release(struct master *master) {
    for (unsigned i = 0; i < master->worker_count; i++) {
        timer_stop(&master->workers[i].respawn);
        watch_remove(&master->workers[i].watch);
        channel_release(&master->workers[i].channel);
    }
    timer_stop(&master->watchdog);
    heritage_unmap(master->shared, master->worker_count);
    standings_unmap(master->standings);
    free(master->workers);
    master->workers = NULL;
    master->standings = NULL;
    master->shared = NULL;
    master->worker_count = 0;
}

void worker_watch_channel(struct worker *worker) {
    watch_change(&worker->watch, EPOLLIN | (worker->channel.queued ? EPOLLOUT : 0u));
}

void worker_send(struct worker *worker, enum message_type type, uint64_t number) {
    if (worker->state == WORKER_IS_down)
        return;
    int code = channel_send(&worker->channel, type, number, NULL, -1);
    if (code < 0 && code != -EPIPE)  // a dead one is noticed by SIGCHLD
        log_error("cannot send %s to worker %u: %s", message_name(type), worker->index, strerror(-code));
    worker_watch_channel(worker);
}

void worker_load(struct worker *worker, uint64_t generation, const char *file, int source_fd,
                 bool fresh_only) {
    struct master *master = worker->master;
    sockets_offer(&master->sockets, &worker->channel, worker->index, fresh_only);
    logs_offer(&master->logs, &worker->channel, fresh_only);
    dicts_offer(&master->dicts, &worker->channel, fresh_only);
    int code = channel_send(&worker->channel, MESSAGE_LOAD, generation, file, source_fd);
    if (code < 0 && code != -EPIPE)
        log_error("cannot send a configuration to worker %u: %s", worker->index, strerror(-code));
    worker->told = generation;
    worker_watch_channel(worker);
}

static void retry_later(struct worker *worker) {
    unsigned doublings = worker->quick_deaths < 7 ? worker->quick_deaths : 7;
    uint64_t delay = doublings == 0 ? 0 : (uint64_t)BACKOFF_MIN_MS << (doublings - 1);
    if (delay > BACKOFF_MAX_MS)
        delay = BACKOFF_MAX_MS;
    if (delay)
        log_warn("worker %u will be started again in %llu ms", worker->index, (unsigned long long)delay);
    worker->quick_deaths++;
    timer_start(&worker->respawn, delay);
}

static void worker_fork(struct worker *worker) {
    struct master *master = worker->master;
    int ends[2];
    int code = channel_pair(ends);
    if (code < 0) {
        log_error("cannot make a channel for worker %u: %s", worker->index, strerror(-code));
        retry_later(worker);
        return;
    }
    struct heritage_worker *shared = &master->shared[worker->index];
    shared->beat_ns = clock_us_now() * 1000;
    const struct heritage heritage = {
        .index = worker->index,
        .cpu = worker->cpu,
        .channel = ends[1],
        .error_fd = logs_error_fd(&master->logs),
        .master = getpid(),
        .identity = &master->identity,
        .receive_bytes = master->conf->receive_buffers,
        .watchdog_ms = master->conf->watchdog,
        .shared = shared,
        .standings = master->standings,
    };
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        worker_main(&heritage);
    close(ends[1]);
    if (pid < 0) {
        log_error("cannot fork worker %u: %s", worker->index, strerror(errno));
        close(ends[0]);
        retry_later(worker);
        return;
    }
    worker->pid = pid;
    worker->state = WORKER_IS_starting;
    worker->started_ms = clock_ms();
    worker->hung = false;
    channel_init(&worker->channel, ends[0]);
    if (watch_add(&worker->watch, ends[0], EPOLLIN, readable) < 0)
        log_error("cannot watch worker %u: %s", worker->index, strerror(errno));
    log_debug("worker %u is process %d", worker->index, (int)pid);
    worker_load(worker, master->generation, master->conf->file, master->source_fd, false);
}

static void respawn(struct timer *timer) {
    struct worker *worker = container_of(timer, struct worker, respawn);
    worker->master->respawns++;
    worker_fork(worker);
}

static void watch_loops(struct master *master) {
    uint64_t limit = master->conf->watchdog;
    uint64_t every = limit == 0 || limit > 4000 ? 1000 : limit / 4;
    timer_start(&master->watchdog, every < 25 ? 25 : every);
}

void workers_start(struct master *master) {
    for (unsigned i = 0; i < master->worker_count; i++)
        worker_fork(&master->workers[i]);
    watch_loops(master);
}

// The n-th script line of the configuration, frontends in order.
static const char *script_name(const struct conf *conf, unsigned ordinal) {
    for (const struct conf_frontend *frontend = conf->frontends; frontend; frontend = frontend->next)
        for (const struct conf_script *script = frontend->scripts; script; script = script->next)
            if (--ordinal == 0)
                return script->path;
    return "of an earlier generation";
}

static void look_at(struct worker *worker, uint64_t now_ns) {
    struct master *master = worker->master;
    struct heritage_worker *shared = &master->shared[worker->index];
    uint64_t beat = shared->beat_ns;
    if (worker->state == WORKER_IS_down || worker->hung || now_ns < beat + master->conf->watchdog * 1000000)
        return;
    unsigned script = shared->probe.script, hook = shared->probe.hook;
    double seconds = (double)(now_ns - beat) / 1e9;
    if (script)
        log_error(
            "worker %u (process %d) has not turned for %.1f s: it is in the script \"%s\", hook %s; killed",
            worker->index, (int)worker->pid, seconds, script_name(master->conf, script), hook_name(hook));
    else
        log_error("worker %u (process %d) has not turned for %.1f s: not in a hook; killed", worker->index,
                  (int)worker->pid, seconds);
    worker->hung = true;
    master->watchdog_kills++;
    kill(worker->pid, SIGKILL);
}

static void look_after(struct timer *timer) {
    struct master *master = container_of(timer, struct master, watchdog);
    uint64_t now = clock_us_now() * 1000;
    for (unsigned i = 0; master->conf->watchdog && i < master->worker_count; i++)
        look_at(&master->workers[i], now);
    watch_loops(master);
}

static void refused(struct worker *worker, const struct message *message) {
    struct master *master = worker->master;
    if (master->phase == MASTER_STARTING) {
        master_start_failed(master, message->text);
        return;
    }
    log_error("worker %u cannot serve: %s", worker->index, message->text);
    if (worker->pid > 0)
        kill(worker->pid, SIGKILL);
}

// A worker that is being started loads what is committed; any other answers to a reload.
static void answered(struct worker *worker, const struct message *message) {
    struct master *master = worker->master;
    log_debug("worker %u answers %s %llu", worker->index, message_name(message->type),
              (unsigned long long)message->number);
    bool starting = worker->state == WORKER_IS_starting;
    if (message->type == MESSAGE_REFUSED && message->number == 0)
        refused(worker, message);
    else if (message->number != worker->told)
        return;  // of a LOAD that was replaced by a later one
    else if (starting && message->type == MESSAGE_REFUSED)
        refused(worker, message);
    else if (starting && message->type == MESSAGE_READY)
        worker_send(worker, MESSAGE_COMMIT, worker->told);
    else if (starting && message->type == MESSAGE_COMMITTED) {
        worker->state = WORKER_IS_serving;
        master_worker_serves(master);
    } else if (worker->asked)
        reload_answered(worker, message->type != MESSAGE_REFUSED, message->text);
}

static void readable(struct watch *watch, uint32_t events) {
    struct worker *worker = container_of(watch, struct worker, watch);
    struct message message;
    int fd, code = 0;
    if (events & EPOLLOUT) {
        (void)channel_flush(&worker->channel);
        worker_watch_channel(worker);
    }
    while (watch->fd >= 0 && (code = channel_receive(&worker->channel, &message, &fd)) == 0) {
        if (message.type == MESSAGE_TELL)
            inquiry_told(&worker->master->inquiry, worker->index, message.number, fd);
        else
            answered(worker, &message);
        if (fd >= 0)
            close(fd);
    }
    if (code == -EPIPE) {  // SIGCHLD follows
        watch_remove(watch);
        channel_release(&worker->channel);
    }
}

static void died(struct worker *worker, int status) {
    struct master *master = worker->master;
    // One that is to end may be killed for taking its time; any other signal is a defect.
    bool expected = worker->state == WORKER_IS_ending && (!WIFSIGNALED(status) || WTERMSIG(status) == SIGKILL ||
                                                          WTERMSIG(status) == SIGTERM);
    int pid = (int)worker->pid;
    char how[64];
    worker->pid = 0;
    // What it said last may still lie in the channel: why it could not run, for instance.
    if (worker->watch.fd >= 0)
        readable(&worker->watch, EPOLLIN);
    if (WIFSIGNALED(status))
        snprintf(how, sizeof how, "was ended by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(status));
    if (expected)
        log_debug("worker %u (process %d) %s", worker->index, pid, how);
    else
        log_error("worker %u (process %d) %s", worker->index, pid, how);
    watch_remove(&worker->watch);
    channel_release(&worker->channel);
    heritage_bury(&master->shared[worker->index]);
    standings_bury(master->standings, worker->index);
    bool quick = clock_ms() - worker->started_ms < QUICK_DEATH_MS;
    worker->state = WORKER_IS_down;
    inquiry_lost(&master->inquiry, worker->index);
    if (master->phase == MASTER_STARTING || worker->asked) {
        char why[160];
        snprintf(why, sizeof why, "worker %u %s while it loaded the configuration", worker->index, how);
        if (master->phase == MASTER_STARTING)
            master_start_failed(master, why);
        else
            reload_answered(worker, false, why);
    }
    if (master->phase >= MASTER_QUITTING) {
        master_worker_gone(master);
        return;
    }
    worker->restarts++;
    if (!quick)
        worker->quick_deaths = 0;
    if (worker->quick_deaths == 0) {
        worker->quick_deaths = 1;
        master->respawns++;
        worker_fork(worker);
    } else {
        retry_later(worker);
    }
}

void workers_reap(struct master *master) {
    for (unsigned i = 0; i < master->worker_count; i++) {
        int status;
        struct worker *worker = &master->workers[i];
        if (worker->pid > 0 && waitpid(worker->pid, &status, WNOHANG) == worker->pid)
            died(worker, status);
    }
}

void workers_end(struct master *master, enum message_type how) {
    for (unsigned i = 0; i < master->worker_count; i++) {
        struct worker *worker = &master->workers[i];
        timer_stop(&worker->respawn);
        worker_send(worker, how, 0);
        if (worker->state != WORKER_IS_down)
            worker->state = WORKER_IS_ending;
    }
}

void workers_kill(struct master *master) {
    for (unsigned i = 0; i < master->worker_count; i++)
        if (master->workers[i].pid > 0)
            kill(master->workers[i].pid, SIGKILL);
}

bool workers_all(const struct master *master, enum worker_state state) {
    for (unsigned i = 0; i < master->worker_count; i++)
        if (master->workers[i].state != state)
            return false;
    return true;
}
