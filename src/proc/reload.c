// SPDX-License-Identifier: BSD-2-Clause
// The two-phase reload (reload.h). Workers that are being started meanwhile are left alone: they load what is
// committed, and when a new generation is committed before they serve, they are told to load that one
// instead.
#include "proc/reload.h"

#include "base/clock.h"
#include "base/log.h"
#include "conf/source.h"
#include "proc/master.h"
#include "script/script.h"
#include "tls/client.h"
#include "tls/server.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void timed_out(struct timer *timer);
static void go_on(struct master *master);
static void tried(struct watch *watch, uint32_t events);

void reload_init(struct reload *reload) {
    *reload = (struct reload){ .source_fd = -1, .watch = { .fd = -1 } };
    timer_init(&reload->timeout, timed_out);
}

// Back to IDLE; what has not been handed on is freed.
static void clear(struct reload *reload) {
    timer_stop(&reload->timeout);
    watch_remove(&reload->watch);
    trial_kill(&reload->trial);
    if (reload->conf)
        conf_free(reload->conf);
    if (reload->source)
        source_free(reload->source);
    if (reload->source_fd >= 0)
        close(reload->source_fd);
    reload->conf = NULL;
    reload->source = NULL;
    reload->source_fd = -1;
    reload->state = RELOAD_IDLE;
}

static void finish(struct master *master, bool ok, const char *text) {
    struct reload *reload = &master->reload;
    clear(reload);
    if (ok) {
        master->reloads++;
        log_notice("reload: %s", text);
    } else {
        master->reload_failures++;
        log_error("reload failed, generation %llu goes on: %s", (unsigned long long)master->generation, text);
    }
    control_reloaded(&master->control, ok, text);
    if (reload->again) {
        reload->again = false;
        reload_start(master);
    }
}

static void give_up(struct master *master, const char *why) {
    for (unsigned i = 0; i < master->worker_count; i++) {
        struct worker *worker = &master->workers[i];
        if (worker->state == WORKER_IS_serving && worker->told == master->reload.generation)
            worker_send(worker, MESSAGE_ABORT, master->reload.generation);
        worker->asked = false;
    }
    sockets_abort(&master->sockets);
    logs_abort(&master->logs);
    dicts_abort(&master->dicts);
    finish(master, false, why);
}

static void commit(struct master *master) {
    struct reload *reload = &master->reload;
    struct conf *old = master->conf;

    sockets_commit(&master->sockets, reload->conf);
    logs_commit(&master->logs, reload->conf);
    dicts_commit(&master->dicts);
    close(master->source_fd);
    master->conf = reload->conf;
    master->source_fd = reload->source_fd;
    master->generation = reload->generation;
    master->committed_wall_us = clock_cached.wall_us;
    reload->conf = NULL;
    reload->source_fd = -1;
    for (unsigned i = 0; i < master->worker_count; i++) {
        struct worker *worker = &master->workers[i];
        if (worker->state == WORKER_IS_down)
            continue;
        logs_offer_error(&master->logs, &worker->channel);
        if (worker->told != master->generation) {
            worker_load(worker, master->generation, master->conf->file, master->source_fd, false);
            continue;
        }
        worker->asked = true;
        worker_send(worker, MESSAGE_COMMIT, master->generation);
    }
    // A shorter time begins now, the same one goes on as it was.
    if (old->ticket_rotation != master->conf->ticket_rotation)
        master_reconfigured(master);
    conf_free(old);
    reload->state = RELOAD_COMMITTING;
    timer_start(&reload->timeout, master->conf->reload_timeout);
    go_on(master);
}

static void committed(struct master *master) {
    char text[128];
    snprintf(text, sizeof text, "generation %llu is in use, after %llu ms",
             (unsigned long long)master->generation,
             (unsigned long long)(clock_us_now() / 1000 - master->reload.began_ms));
    finish(master, true, text);
}

// One worker loads it first, alone: should it not survive that (a script's init hook that never ends), the
// others have not noticed anything. Whether one had to be asked.
static bool let_more_workers_load(struct master *master) {
    struct reload *reload = &master->reload;
    bool first = true;
    for (unsigned i = 0; i < master->worker_count; i++)
        first &= master->workers[i].told != reload->generation;
    bool asked = false;
    for (unsigned i = 0; i < master->worker_count && !(first && asked); i++) {
        struct worker *worker = &master->workers[i];
        if (worker->state != WORKER_IS_serving || worker->told == reload->generation)
            continue;
        worker->asked = asked = true;
        worker_load(worker, reload->generation, reload->conf->file, reload->source_fd, true);
    }
    return asked;
}

// Takes the next step when no worker owes an answer.
static void go_on(struct master *master) {
    for (unsigned i = 0; i < master->worker_count; i++)
        if (master->workers[i].asked)
            return;
    if (master->reload.state == RELOAD_COMMITTING)
        committed(master);
    else if (!let_more_workers_load(master))
        commit(master);
}

static int prepare(struct master *master, struct error *error) {
    struct reload *reload = &master->reload;
    int code = dicts_prepare(&master->dicts, reload->conf, error);
    if (code == 0)
        code = sockets_prepare(&master->sockets, reload->conf, false, error);
    if (code == 0)
        code = logs_prepare(&master->logs, reload->conf, error);
    if (code == 0) {
        reload->source_fd = source_export(reload->source, error);
        code = reload->source_fd < 0 ? reload->source_fd : 0;
    }
    return code;
}

static void let_workers_load(struct master *master) {
    struct reload *reload = &master->reload;
    struct error error;
    if (prepare(master, &error) < 0) {
        give_up(master, error.text);
        return;
    }
    reload->state = RELOAD_LOADING;
    timer_start(&reload->timeout, reload->conf->reload_timeout);
    go_on(master);
}

static void tried(struct watch *watch, uint32_t events) {
    struct master *master = container_of(watch, struct master, reload.watch);
    struct error error = { "cannot watch a child" };
    (void)events;
    watch_remove(watch);  // before trial_read() closes it
    int code = trial_read(&master->reload.trial, &error);
    if (code == -EAGAIN)
        code = watch_add(watch, master->reload.trial.fd, EPOLLIN, tried);
    else if (code == 0)
        let_workers_load(master);
    if (code < 0)
        give_up(master, error.text);
}

static void timed_out(struct timer *timer) {
    struct master *master = container_of(timer, struct master, reload.timeout);
    struct reload *reload = &master->reload;
    char who[128] = "", why[256];
    double seconds = (double)(clock_ms() - reload->began_ms) / 1000;
    for (unsigned i = 0; i < master->worker_count; i++)
        if (master->workers[i].asked) {
            size_t n = strlen(who);
            snprintf(who + n, sizeof who - n, "%s%u", n ? ", " : "", i);
        }
    if (reload->state == RELOAD_COMMITTING) {
        log_warn("worker %s has not taken generation %llu into use yet", who,
                 (unsigned long long)master->generation);
        for (unsigned i = 0; i < master->worker_count; i++)
            master->workers[i].asked = false;
        committed(master);
        return;
    }
    if (reload->state == RELOAD_TRYING)
        snprintf(why, sizeof why, "%s: the scripts did not load within %.1f s: one of them does not end",
                 reload->conf->file, seconds);
    else
        snprintf(why, sizeof why, "no answer within %.1f s from worker %s", seconds, who);
    give_up(master, why);
}

static int read_anew(struct master *master, struct error *error) {
    struct reload *reload = &master->reload;
    reload->source = source_new_disk();
    if (!reload->source)
        return error_set(error, -ENOMEM, "memory is out");
    int code = conf_load(master->conf->file, reload->source, &reload->conf, error);
    if (code == 0)
        code = conf_check_reloadable(master->conf, reload->conf, error);
    if (code == 0)
        code = tls_server_check(reload->conf, error);
    if (code == 0)
        code = tls_client_check(reload->conf, error);
    if (code == 0)
        code = script_check(reload->conf, error);
    if (code == 0)
        code = trial_start(&reload->trial, reload->conf, reload->source, &master->identity, error);
    if (code == 0 && watch_add(&reload->watch, reload->trial.fd, EPOLLIN, tried) < 0)
        code = error_set(error, -errno, "cannot watch a child: %s", strerror(errno));
    return code;
}

void reload_start(struct master *master) {
    struct reload *reload = &master->reload;
    struct error error;
    if (reload->state != RELOAD_IDLE) {
        reload->again = true;
        return;
    }
    reload->state = RELOAD_TRYING;
    reload->began_ms = clock_us_now() / 1000;
    reload->generation = ++master->last_generation;
    if (read_anew(master, &error) < 0) {
        give_up(master, error.text);
        return;
    }
    timer_start(&reload->timeout, trial_patience(reload->conf));
}

void reload_answered(struct worker *worker, bool ready, const char *why) {
    struct master *master = worker->master;
    worker->asked = false;
    if (master->reload.state != RELOAD_LOADING && master->reload.state != RELOAD_COMMITTING)
        return;
    // One that died after the commit is replaced by one that loads it.
    if (ready || master->reload.state == RELOAD_COMMITTING)
        go_on(master);
    else
        give_up(master, why);
}

void reload_cancel(struct master *master) {
    master->reload.again = false;
    if (master->reload.state == RELOAD_COMMITTING)
        committed(master);
    else if (master->reload.state != RELOAD_IDLE)
        give_up(master, "moongate is being stopped");
}
