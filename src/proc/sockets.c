// SPDX-License-Identifier: BSD-2-Clause
// Keeps the listening sockets of all slots (sockets.h). How one is bound is net/bind.c's; when, is the
// reload's.
#include "proc/sockets.h"

#include "base/log.h"
#include "net/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BIND_TRIES = 20, BIND_RETRY_US = 50000 };

struct socket_group {
    struct list link;
    char name[ADDR_TEXT_MAX];
    struct addr addr;
    bool fresh;   // bound for a configuration that is not committed
    bool shared;  // fds[0] is everybody's
    unsigned count;
    int fds[];
};

void sockets_init(struct sockets *sockets, unsigned slots) {
    list_init(&sockets->list);
    sockets->slots = slots;
}

static void group_free(struct socket_group *group) {
    for (unsigned i = 0; i < group->count; i++)
        close(group->fds[i]);
    if (group->count && addr_family(&group->addr) == AF_UNIX && group->addr.un.sun_path[0])
        unlink(group->addr.un.sun_path);
    list_remove(&group->link);
    free(group);
}

void sockets_release(struct sockets *sockets) {
    list_each(link, &sockets->list) group_free(container_of(link, struct socket_group, link));
}

static struct socket_group *find(const struct sockets *sockets, const char *name) {
    list_each(link, &sockets->list) {
        struct socket_group *group = container_of(link, struct socket_group, link);
        if (strcmp(group->name, name) == 0)
            return group;
    }
    return NULL;
}

static const struct conf_listen *wanted(const struct conf *conf, const char *name,
                                        const struct conf_settings **ret_settings) {
    for (const struct conf_frontend *frontend = conf->frontends; frontend; frontend = frontend->next)
        for (const struct conf_listen *listen = frontend->listens; listen; listen = listen->next)
            if (strcmp(listen->name, name) == 0) {
                *ret_settings = &frontend->settings;
                return listen;
            }
    return NULL;
}

static int bind_group(struct sockets *sockets, const struct conf_listen *listen,
                      const struct conf_settings *settings, bool patient, struct error *error) {
    bool shared = addr_family(&listen->addr) == AF_UNIX;
    unsigned count = shared ? 1 : sockets->slots;
    struct socket_group *group = calloc(1, sizeof *group + count * sizeof *group->fds);
    if (!group)
        return error_set(error, -ENOMEM, "memory is out");
    snprintf(group->name, sizeof group->name, "%s", listen->name);
    group->addr = listen->addr;
    group->fresh = true;
    group->shared = shared;
    list_push_back(&sockets->list, &group->link);
    int code = listener_check_free(&listen->addr, error);
    // The kernel closes a ring's sockets a moment after its process died: a moongate that was killed may have
    // left some.
    for (int tries = 0; code == -EADDRINUSE && patient && tries < BIND_TRIES; tries++) {
        usleep(BIND_RETRY_US);
        code = listener_check_free(&listen->addr, error);
    }
    while (code == 0 && group->count < count) {
        int fd = listener_bind(&listen->addr, (unsigned)listen->backlog, shared, error);
        if (fd < 0) {
            code = fd;
        } else {
            listener_set_notsent_lowat(fd, settings->notsent_lowat);
            group->fds[group->count++] = fd;
        }
    }
    if (code < 0)
        group_free(group);
    return code;
}

int sockets_prepare(struct sockets *sockets, const struct conf *conf, bool patient, struct error *error) {
    for (const struct conf_frontend *frontend = conf->frontends; frontend; frontend = frontend->next)
        for (const struct conf_listen *listen = frontend->listens; listen; listen = listen->next) {
            if (find(sockets, listen->name))
                continue;
            int code = bind_group(sockets, listen, &frontend->settings, patient, error);
            if (code < 0) {
                struct error why = *error;
                return conf_error(conf, listen->place, error, "%s", why.text), code;
            }
        }
    return 0;
}

void sockets_commit(struct sockets *sockets, const struct conf *conf) {
    list_each(link, &sockets->list) {
        struct socket_group *group = container_of(link, struct socket_group, link);
        const struct conf_settings *settings;
        const struct conf_listen *want = wanted(conf, group->name, &settings);
        if (!want) {
            group_free(group);
            continue;
        }
        for (unsigned i = 0; !group->fresh && i < group->count; i++) {
            // Listening again only changes the length of the queue.
            if (listen(group->fds[i], (int)want->backlog) < 0)
                log_warn("cannot change the backlog of \"%s\": %s", group->name, strerror(errno));
            listener_set_notsent_lowat(group->fds[i], settings->notsent_lowat);
        }
        group->fresh = false;
    }
}

void sockets_abort(struct sockets *sockets) {
    list_each(link, &sockets->list) {
        struct socket_group *group = container_of(link, struct socket_group, link);
        if (group->fresh)
            group_free(group);
    }
}

void sockets_offer(const struct sockets *sockets, struct channel *channel, unsigned slot, bool fresh_only) {
    list_each(link, &sockets->list) {
        const struct socket_group *group = container_of(link, struct socket_group, link);
        if (group->fresh || !fresh_only)
            (void)channel_send(channel, MESSAGE_LISTENER, 0, group->name,
                               group->fds[group->shared ? 0 : slot]);
    }
}
