// SPDX-License-Identifier: BSD-2-Clause
// The throw-away child that runs the scripts' main chunks (trial.h). What it finds comes back through a pipe.
#include "proc/trial.h"

#include "base/dict.h"
#include "base/log.h"
#include "script/script.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DICTS_MAX = 64, DICT_BYTES_MAX = 4 << 20 };

static int try_scripts(const struct conf *conf, struct source *source, struct error *error) {
    static struct dict dicts[DICTS_MAX];
    static struct script_dict named[DICTS_MAX];
    unsigned count = 0;
    for (const struct conf_shared *shared = conf->shared; shared && count < DICTS_MAX;
         shared = shared->next) {
        size_t size = shared->size < DICT_BYTES_MAX ? shared->size : DICT_BYTES_MAX;
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return error_set(error, -errno, "cannot map %zu bytes: %s", size, strerror(errno));
        int code = dict_format(memory, size, error);
        if (code == 0)
            code = dict_attach(&dicts[count], memory, size, error);
        if (code < 0)
            return code;
        named[count] = (struct script_dict){ .name = shared->name, .dict = &dicts[count] };
        count++;
    }
    const struct script_options options = {
        .conf = conf, .source = source, .dicts = named, .dict_count = count
    };
    struct script_host *host;
    return script_host_new(&options, &host, error);
}

_Noreturn static void child(const struct conf *conf, struct source *source, const struct identity *identity,
                            pid_t parent, int fd) {
    struct error error;
    signal(SIGPIPE, SIG_IGN);
    log_identify("trial");
    int code = identity_assume(identity, parent, &error);
    if (code == 0)
        code = try_scripts(conf, source, &error);
    if (code < 0 && write(fd, error.text, strlen(error.text)) < 0)
        _exit(2);
    // Without the handlers of exit(): all that is here belongs to the parent.
    _exit(code < 0);
}

int trial_start(struct trial *trial, const struct conf *conf, struct source *source,
                const struct identity *identity, struct error *error) {
    int ends[2];
    pid_t parent = getpid();
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return error_set(error, -errno, "cannot make a pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        child(conf, source, identity, parent, ends[1]);
    close(ends[1]);
    if (pid < 0) {
        int code = error_set(error, -errno, "cannot fork: %s", strerror(errno));
        close(ends[0]);
        return code;
    }
    *trial = (struct trial){ .pid = pid, .fd = ends[0] };
    return 0;
}

int trial_read(struct trial *trial, struct error *error) {
    ssize_t n;
    while ((n = read(trial->fd, trial->error.text + trial->len, sizeof trial->error.text - 1 - trial->len)) >
           0)
        trial->len += (size_t)n;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    trial->error.text[trial->len] = 0;
    int status = 0;
    while (waitpid(trial->pid, &status, 0) < 0 && errno == EINTR) {}
    close(trial->fd);
    trial->pid = 0;
    if (WIFSIGNALED(status))
        return error_set(error, -EINVAL, "a script crashed while it was loaded: signal %d (%s)",
                         WTERMSIG(status), strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) == 0)
        return 0;
    return error_set(error, -EINVAL, "%s", trial->len ? trial->error.text : "the scripts could not be tried");
}

void trial_kill(struct trial *trial) {
    if (!trial->pid)
        return;
    kill(trial->pid, SIGKILL);
    while (waitpid(trial->pid, NULL, 0) < 0 && errno == EINTR) {}
    close(trial->fd);
    trial->pid = 0;
}

// An endless main chunk would cost a worker after `watchdog`.
uint64_t trial_patience(const struct conf *conf) {
    return conf->watchdog && conf->watchdog < conf->reload_timeout ? conf->watchdog : conf->reload_timeout;
}

int trial_run(const struct conf *conf, struct source *source, const struct identity *identity,
              struct error *error) {
    struct trial trial;
    int code = trial_start(&trial, conf, source, identity, error);
    if (code < 0)
        return code;
    int patience = (int)trial_patience(conf);
    do {
        struct pollfd poller = { .fd = trial.fd, .events = POLLIN };
        if (poll(&poller, 1, patience) == 0) {
            trial_kill(&trial);
            return error_set(error, -ETIMEDOUT,
                             "%s: the scripts did not load within %.1f s: one of them does not end",
                             conf->file, patience / 1000.0);
        }
        code = trial_read(&trial, error);
    } while (code == -EAGAIN);
    return code;
}
