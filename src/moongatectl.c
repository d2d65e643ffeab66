// SPDX-License-Identifier: BSD-2-Clause
// moongatectl(1): sends one command to the master's control socket and prints the reply. The protocol is in
// proc/control.h; what commands there are and what they print, the master knows.
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { REQUEST_MAX = 400 };

static const char usage[] =
    "usage: moongatectl [-j] [-s SOCKET] COMMAND\n"
    "    reload             take the configuration and scripts into use as they are now\n"
    "    stop               stop at once\n"
    "    quit               stop gracefully: connections end first, for drain_timeout at most\n"
    "    reopen             open the log files again\n"
    "    show workers       processes: state, age, connections, memory\n"
    "    show stats         counters\n"
    "    show metrics       counters, and what scripts count, in Prometheus' text format\n"
    "    show generations   loaded configurations, and who still uses them\n"
    "    show dns           how names are resolved, and what is known of each\n"
    "    show upstreams     servers: state, weight, requests, connections, times\n"
    "    set server UPSTREAM/ADDRESS weight N|weight default|up|drain|down\n"
    "                       for all workers at once, until it is set again; ADDRESS * is all of the upstream\n"
    "    upgrade            change the processes (not available in this version)\n"
    "-j prints JSON; -s names the control socket, which is " MOONGATE_CONTROL " otherwise.\n";

static int complain(const char *what, const char *path) {
    fprintf(stderr, "moongatectl: %s \"%s\": %s\n", what, path, strerror(errno));
    if (errno == ENOENT || errno == ECONNREFUSED)
        fprintf(stderr,
                "moongatectl: no moongate runs with this control socket "
                "(the directive `control` names it, -s chooses it)\n");
    else if (errno == EACCES)
        fprintf(stderr, "moongatectl: only the user who started moongate may control it\n");
    return 1;
}

static int dial(const char *path) {
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof addr.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(addr.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof addr) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

// The first line says where the rest goes.
static int print_reply(int fd) {
    char status[16], bytes[4096];
    size_t len = 0;
    FILE *out = NULL;
    ssize_t n;
    while ((n = read(fd, bytes, sizeof bytes)) > 0 || (n < 0 && errno == EINTR)) {
        ssize_t at = 0;
        for (; !out && at < n; at++) {
            if (bytes[at] != '\n' && len < sizeof status - 1) {
                status[len++] = bytes[at];
                continue;
            }
            status[len] = 0;
            out = strcmp(status, "ok") == 0 ? stdout : stderr;
        }
        if (out && n > at)
            fwrite(bytes + at, 1, (size_t)(n - at), out);
    }
    if (!out) {
        fprintf(stderr, "moongatectl: moongate ended without an answer\n");
        return 1;
    }
    return fflush(out) != 0 || out == stderr;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },
        { 0 },
    };
    const char *path = MOONGATE_CONTROL;
    bool json = false;
    int option;
    while ((option = getopt_long(argc, argv, "s:jhV", options, NULL)) >= 0)
        switch (option) {
        case 's':
            path = optarg;
            break;
        case 'j':
            json = true;
            break;
        case 'V':
            printf("moongatectl %s\n", PACKAGE_VERSION);
            return 0;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs("moongatectl: try moongatectl -h\n", stderr);
            return 1;
        }
    if (optind == argc) {
        fputs(usage, stderr);
        return 1;
    }
    char request[REQUEST_MAX] = "";
    size_t len = 0;
    for (int i = optind; i < argc && len < sizeof request; i++)
        len += (size_t)snprintf(request + len, sizeof request - len, "%s%s", i > optind ? " " : "", argv[i]);
    if (len < sizeof request)
        len += (size_t)snprintf(request + len, sizeof request - len, "%s\n", json ? " json" : "");
    if (len >= sizeof request) {
        fputs("moongatectl: the command is too long\n", stderr);
        return 1;
    }
    int fd = dial(path);
    if (fd < 0)
        return complain("cannot connect to", path);
    if (send(fd, request, len, MSG_NOSIGNAL) != (ssize_t)len)
        return complain("cannot send to", path);
    int status = print_reply(fd);
    close(fd);
    return status;
}
