// SPDX-License-Identifier: BSD-2-Clause
// The master's life: takes everything that workers need, starts them, turns its loop, ends. Signals come in
// here; what they ask for is done in reload.c, workers.c and below.
#include "proc/master.h"

#include "base/clock.h"
#include "base/log.h"
#include "conf/source.h"
#include "script/script.h"
#include "tls/client.h"
#include "tls/ocsp.h"
#include "tls/server.h"
#include "tls/sessions.h"
#include "tls/tickets.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum {
    STOP_PATIENCE_MS = 5000,   // a worker that does not stop by then is killed
    DESCRIPTOR_RESERVE = 256,  // beside connections: listeners, logs, channels
};

static void patience_over(struct timer *timer) {
    struct master *master = container_of(timer, struct master, deadline);
    log_warn("some workers do not end: killed");
    workers_kill(master);
}

static void ends_when_alone(struct master *master) {
    if (!workers_all(master, WORKER_IS_down))
        return;
    timer_stop(&master->deadline);
    master->phase = MASTER_OVER;
}

void master_worker_gone(struct master *master) {
    ends_when_alone(master);
}

static void end(struct master *master, enum master_phase phase, enum message_type how, uint64_t patience_ms) {
    if (master->phase >= phase)
        return;
    master->phase = phase;
    reload_cancel(master);
    // Nobody will accept from them any more: clients are to be refused at once.
    sockets_release(&master->sockets);
    workers_end(master, how);
    timer_start(&master->deadline, patience_ms);
    ends_when_alone(master);
}

void master_quit(struct master *master) {
    if (master->phase < MASTER_QUITTING)
        log_notice("graceful stop");
    end(master, MASTER_QUITTING, MESSAGE_QUIT, master->conf->drain_timeout + STOP_PATIENCE_MS);
}

void master_stop(struct master *master) {
    if (master->phase < MASTER_STOPPING)
        log_notice("stop");
    end(master, MASTER_STOPPING, MESSAGE_STOP, STOP_PATIENCE_MS);
}

void master_start_failed(struct master *master, const char *why) {
    if (!master->failed)
        error_set(&master->error, -EINVAL, "%s", why);
    master->failed = true;
    end(master, MASTER_STOPPING, MESSAGE_STOP, STOP_PATIENCE_MS);
}

void master_worker_serves(struct master *master) {
    if (master->phase != MASTER_STARTING || !workers_all(master, WORKER_IS_serving))
        return;
    master->phase = MASTER_RUNNING;
    log_notice("moongate serves: process %d, %u worker%s, generation %llu of \"%s\"", (int)getpid(),
               master->worker_count, master->worker_count == 1 ? "" : "s",
               (unsigned long long)master->generation, master->conf->file);
    if (master->ready)
        master->ready(master->ready_to);
}

int master_reopen(struct master *master, struct error *error) {
    int code = logs_reopen(&master->logs, error);
    for (unsigned i = 0; i < master->worker_count; i++) {
        struct worker *worker = &master->workers[i];
        if (worker->state == WORKER_IS_down)
            continue;
        logs_offer(&master->logs, &worker->channel, false);
        logs_offer_error(&master->logs, &worker->channel);
        worker_watch_channel(worker);
    }
    if (code < 0)
        log_error("%s", error->text);
    else
        log_notice("log files are open again");
    return code;
}

static void rotate_tickets(struct timer *timer) {
    struct master *master = container_of(timer, struct master, ticket_rotation);
    tickets_rotate();
    timer_start(timer, master->conf->ticket_rotation);
}

void master_reconfigured(struct master *master) {
    timer_start(&master->ticket_rotation, master->conf->ticket_rotation);
}

static void signalled(struct watch *watch, uint32_t events) {
    struct master *master = container_of(watch, struct master, signals);
    struct signalfd_siginfo info;
    struct error error;
    (void)events;
    if (read(watch->fd, &info, sizeof info) != sizeof info)
        return;
    switch (info.ssi_signo) {
    case SIGCHLD:
        workers_reap(master);
        break;
    case SIGHUP:
        if (master->phase == MASTER_RUNNING)
            reload_start(master);
        else
            log_notice("SIGHUP is ignored: moongate is being started or stopped");
        break;
    case SIGQUIT:
        master_quit(master);
        break;
    case SIGTERM:
    case SIGINT:
        master_stop(master);
        break;
    case SIGUSR1:
        (void)!master_reopen(master, &error);
        break;
    case SIGUSR2:
        log_notice("SIGUSR2: upgrade is not available in this version");
        break;
    }
}

static int take_signals(struct master *master, struct error *error) {
    sigset_t set;
    sigemptyset(&set);
    const int taken[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD };
    for (unsigned i = 0; i < sizeof taken / sizeof *taken; i++)
        sigaddset(&set, taken[i]);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);  // a parent may have had it ignored
    int fd = sigprocmask(SIG_BLOCK, &set, NULL) < 0 ? -1 : signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int code = fd < 0 ? -errno : watch_add(&master->signals, fd, EPOLLIN, signalled);
    return code < 0 ? error_set(error, code, "cannot take signals: %s", strerror(-code)) : 0;
}

static int read_configuration(struct master *master, const char *file, struct error *error) {
    struct source *source = source_new_disk();
    if (!source)
        return error_set(error, -ENOMEM, "memory is out");
    int code = conf_load(file, source, &master->conf, error);
    if (code == 0)
        code = identity_find(master->conf, &master->identity, error);
    if (code == 0)
        code = tls_server_check(master->conf, error);
    if (code == 0)
        code = tls_client_check(master->conf, error);
    if (code == 0)
        code = script_check(master->conf, error);
    if (code == 0) {
        master->source_fd = source_export(source, error);
        code = master->source_fd < 0 ? master->source_fd : 0;
    }
    source_free(source);
    master->generation = master->last_generation = 1;
    master->committed_wall_us = clock_cached.wall_us;
    return code;
}

// A proxied connection has two descriptors.
static void provide_descriptors(const struct conf *conf) {
    uint64_t sockets = conf_script_sockets(conf), need = 2 * conf->connections + sockets + DESCRIPTOR_RESERVE;
    uint64_t have = descriptors_raise(need);
    if (have < need)
        log_warn("at most %llu descriptors are allowed, %llu connections and %llu sockets of scripts need "
                 "%llu: a worker holds fewer than that; raise the limit (ulimit -n, LimitNOFILE) or lower "
                 "`connections`",
                 (unsigned long long)have, (unsigned long long)conf->connections,
                 (unsigned long long)sockets, (unsigned long long)need);
}

static int take_resources(struct master *master, const struct master_options *options, struct error *error) {
    const struct conf *conf = master->conf;
    const char *pid_file = options->pid_file;
    if (!pid_file && options->as_daemon)
        pid_file = conf->pid_file;
    int code = pid_file ? pidfile_take(&master->pidfile, pid_file, error) : 0;
    if (code == 0)
        code = control_open(&master->control, conf->control, error);
    if (code == 0)
        code = logs_prepare(&master->logs, conf, error);
    if (code < 0)
        return code;
    if (options->as_daemon && conf->error_log == LOG_TARGET_STDERR)
        log_warn("error_log is stderr, which a daemon does not have: name a file or syslog");
    logs_commit(&master->logs, conf);
    if (!master->identity.change && geteuid() != 0)
        log_info("not started by root: the workers keep the user, `user` is not looked at");
    provide_descriptors(conf);
    code = workers_init(master, (unsigned)conf->workers) < 0 ? error_set(error, -ENOMEM, "memory is out") : 0;
    if (code == 0)
        code = dicts_prepare(&master->dicts, conf, error);
    if (code == 0) {
        sockets_init(&master->sockets, master->worker_count);
        code = sockets_prepare(&master->sockets, conf, true, error);
    }
    if (code < 0)
        return code;
    dicts_commit(&master->dicts);
    sockets_commit(&master->sockets, conf);
    return take_signals(master, error);
}

// After the last worker; also when the start failed half way.
static void master_release(struct master *master) {
    if (master->phase == MASTER_OVER && !master->failed)
        log_notice("moongate has ended");
    workers_release(master);
    sockets_release(&master->sockets);
    dicts_release(&master->dicts);
    logs_release(&master->logs);
    if (master->signals.fd >= 0) {
        int fd = master->signals.fd;
        watch_remove(&master->signals);
        close(fd);
    }
    pidfile_release(&master->pidfile);
    // Last: who waits for the end may rely on everything being gone.
    control_release(&master->control);
    if (master->source_fd >= 0)
        close(master->source_fd);
    conf_free(master->conf);
    loop_release();
}

int master_run(const struct master_options *options, struct error *error) {
    static struct master master;
    master = (struct master){
        .phase = MASTER_STARTING,
        .source_fd = -1,
        .pidfile = { .fd = -1 },
        .signals = { .fd = -1 },
        .ready = options->ready,
        .ready_to = options->ready_to,
    };
    int code = loop_init();
    if (code < 0)
        return error_set(error, code, "cannot make an epoll: %s", strerror(-code));
    log_identify("master");
    master.started_ms = clock_ms();
    timer_init(&master.deadline, patience_over);
    timer_init(&master.watchdog, patience_over);
    timer_init(&master.ticket_rotation, rotate_tickets);
    control_init(&master.control);
    sockets_init(&master.sockets, 1);
    logs_init(&master.logs);
    dicts_init(&master.dicts);
    reload_init(&master.reload);
    inquiry_init(&master.inquiry, control_told);
    code = read_configuration(&master, options->file, error);
    if (code == 0)
        code = take_resources(&master, options, error);
    if (code == 0)
        code = tickets_share(error);
    if (code == 0)
        code = ocsp_share(error);
    if (code == 0)
        code = sessions_share((size_t)master.conf->session_cache, error);
    if (code == 0) {
        master_reconfigured(&master);
        workers_start(&master);
        while (master.phase != MASTER_OVER)
            loop_turn();
        if (master.failed) {
            *error = master.error;
            code = -EINVAL;
        }
    }
    master_release(&master);
    return code;
}
