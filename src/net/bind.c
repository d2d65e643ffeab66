// SPDX-License-Identifier: BSD-2-Clause
// Binds listening sockets for the master (net/listener.h). Accepting from them is listener.c's, in the
// workers.
#include "net/listener.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int bind_error(const struct addr *addr, int code, struct error *error) {
    char text[ADDR_TEXT_MAX];
    addr_print(addr, text);
    const char *cure = "";
    switch (-code) {
    case EADDRINUSE:
        cure = ": another program listens there (ss -lntxp shows which)";
        break;
    case EACCES:
    case EPERM:
        cure = addr_family(addr) == AF_UNIX ? ": the folder must be writable for the user who starts moongate"
                                            : ": low ports need root (or CAP_NET_BIND_SERVICE)";
        break;
    case EADDRNOTAVAIL:
        cure = ": no network interface of this machine has that address";
        break;
    case ENOENT:
        cure = ": the folder does not exist";
        break;
    case EAFNOSUPPORT:
        cure = ": this kernel does not speak that family";
        break;
    }
    return error_set(error, code, "cannot listen on \"%s\": %s%s", text, strerror(-code), cure);
}

static int open_socket(const struct addr *addr) {
    int fd = socket(addr_family(addr), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int on = 1;
    if (addr_family(addr) != AF_UNIX) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        // What is accepted inherits it. Without it the last piece of a response waits for the client's delayed
        // acknowledgement of the piece before: 40 ms.
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (addr_family(addr) == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    return fd;
}

// A unix socket's file outlives the program that bound it. One at which nobody answers is removed.
static int clear_stale(const struct addr *addr) {
    const char *path = addr->un.sun_path;
    struct stat st;
    if (addr_family(addr) != AF_UNIX || path[0] == 0 || lstat(path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return -EADDRINUSE;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int code = connect(fd, &addr->sa, addr->len) == 0 ? 0 : -errno;
    close(fd);
    if (code != -ECONNREFUSED)
        return -EADDRINUSE;
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int listener_check_free(const struct addr *addr, struct error *error) {
    int code = clear_stale(addr);
    if (code < 0)
        return bind_error(addr, code, error);
    if (addr_family(addr) == AF_UNIX)
        return 0;
    int fd = open_socket(addr);
    if (fd < 0)
        return bind_error(addr, fd, error);
    code = bind(fd, &addr->sa, addr->len) < 0 ? bind_error(addr, -errno, error) : 0;
    close(fd);
    return code;
}

int listener_bind(const struct addr *addr, unsigned backlog, bool shared, struct error *error) {
    int code = clear_stale(addr);
    int fd = code < 0 ? code : open_socket(addr);
    if (fd < 0)
        return bind_error(addr, fd, error);
    int on = 1;
    if (!shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
        goto failed;
    if (bind(fd, &addr->sa, addr->len) < 0)
        goto failed;
    // Who may connect is decided by the rights of the folder.
    if (addr_family(addr) == AF_UNIX && addr->un.sun_path[0] && chmod(addr->un.sun_path, 0666) < 0)
        goto failed;
    if (listen(fd, (int)backlog) < 0)
        goto failed;
    return fd;
failed:
    code = bind_error(addr, -errno, error);
    close(fd);
    return code;
}

// A thousand slow readers would else have the kernel hold megabytes for each, which it takes from servers at
// full speed while everybody else waits.
void listener_set_notsent_lowat(int fd, uint64_t bytes) {
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &(int){ (int)bytes }, sizeof(int));
}
