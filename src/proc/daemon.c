// SPDX-License-Identifier: BSD-2-Clause
// Becomes a daemon (daemon.h). Called by main.c; what follows is the master's.
#include "proc/daemon.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int report_fd = -1;    // to the starter
static int terminal_fd = -1;  // its standard error, until the start is over

// What the daemon reports: one byte for success, or the reason why not.
_Noreturn static void starter(pid_t child, int fd) {
    char text[4096];
    size_t len = 0;
    ssize_t n;
    while ((n = read(fd, text + len, sizeof text - 1 - len)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0)
            len += (size_t)n;
    text[len] = 0;
    waitpid(child, NULL, 0);
    if (len == 1 && text[0] == '\n')
        _exit(0);
    fprintf(stderr, "%s\n", len ? text : "moongate: the daemon ended before it served");
    _exit(1);
}

int daemon_detach(struct error *error) {
    int ends[2];
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    terminal_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (null < 0 || pipe2(ends, O_CLOEXEC) < 0)
        return error_set(error, -errno, "cannot become a daemon: %s", strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return error_set(error, -errno, "cannot fork: %s", strerror(errno));
    if (pid > 0) {
        close(ends[1]);
        starter(pid, ends[0]);
    }
    close(ends[0]);
    // The second fork leaves a process that can never get a terminal of its own.
    if (setsid() < 0 || (pid = fork()) != 0)
        _exit(pid < 0);
    report_fd = ends[1];
    if (chdir("/") < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
        dup2(null, STDERR_FILENO) < 0) {
        daemon_started("moongate: cannot let go of the terminal");
        _exit(1);
    }
    close(null);
    if (terminal_fd >= 0)
        log_open(terminal_fd, log_threshold);
    return 0;
}

void daemon_started(const char *text) {
    if (report_fd < 0)
        return;
    const char *report = text ? text : "\n";
    if (write(report_fd, report, strlen(report)) < 0 && !text)
        log_warn("the process that started the daemon is gone");
    close(report_fd);
    report_fd = -1;
    if (terminal_fd >= 0)
        close(terminal_fd);
    terminal_fd = -1;
}
