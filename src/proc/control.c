// SPDX-License-Identifier: BSD-2-Clause
// Serves the control socket (control.h): reads a line, carries it out, writes the reply when there is one.
// Many clients at once; each has little time and little memory.
#include "proc/control.h"

#include "base/log.h"
#include "base/timer.h"
#include "proc/master.h"
#include "proc/report.h"
#include "proc/servers.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, REQUEST_MAX = 400, CLIENT_TIMEOUT_MS = 10000, LAST_WORD_MS = 200 };

enum client_state {
    CLIENT_READING,     // the request is not complete; the timer runs
    CLIENT_WAITS,       // for the reload under way
    CLIENT_WAITS_NEXT,  // for the one after it
    CLIENT_WAITS_END,   // of the master
    CLIENT_WAITS_TOLD,  // for what the workers say
    CLIENT_WRITING,     // reply is set; the timer runs
};

struct control_client {
    struct list link;
    struct watch watch;
    struct timer timer;
    enum client_state state;
    bool json;
    char request[REQUEST_MAX + 1];
    size_t request_len;
    const char *arguments;  // of the command, in request
    char *reply;
    size_t reply_len, sent;
};

static struct master *master_of(struct control *control) {
    return container_of(control, struct master, control);
}

void control_init(struct control *control) {
    *control = (struct control){ .watch = { .fd = -1 } };
    list_init(&control->clients);
}

static void client_free(struct control *control, struct control_client *client) {
    int fd = client->watch.fd;
    watch_remove(&client->watch);
    close(fd);
    timer_stop(&client->timer);
    list_remove(&client->link);
    control->client_count--;
    free(client->reply);
    free(client);
}

// There is one control socket in a process.
static struct control *the_control;

static void client_timed_out(struct timer *timer) {
    client_free(the_control, container_of(timer, struct control_client, timer));
}

static void client_write(struct control_client *client) {
    while (client->sent < client->reply_len) {
        ssize_t n = send(client->watch.fd, client->reply + client->sent, client->reply_len - client->sent,
                         MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch_change(&client->watch, EPOLLOUT);
            return;
        }
        if (n < 0)
            break;
        client->sent += (size_t)n;
    }
    client_free(the_control, client);
}

// Takes the body (malloc'ed, or NULL when memory was out).
static void client_answer(struct control_client *client, bool ok, char *body, size_t len) {
    const char *status = ok ? "ok\n" : "error\n";
    if (!body) {
        status = "error\n";
        body = strdup("memory is out\n");
        len = body ? strlen(body) : 0;
    }
    client->reply = malloc(strlen(status) + len);
    if (!client->reply) {
        free(body);
        client_free(the_control, client);
        return;
    }
    memcpy(client->reply, status, strlen(status));
    memcpy(client->reply + strlen(status), body ? body : "", len);
    client->reply_len = strlen(status) + len;
    free(body);
    client->state = CLIENT_WRITING;
    timer_start(&client->timer, CLIENT_TIMEOUT_MS);
    client_write(client);
}

static void client_say(struct control_client *client, bool ok, const char *text) {
    char *body = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&body, &len);
    if (out) {
        if (client->json) {
            fputs(ok ? "{\"result\":" : "{\"error\":", out);
            report_json_text(out, text);
            fputs("}\n", out);
        } else {
            fprintf(out, "%s\n", text);
        }
        fclose(out);
    }
    client_answer(client, ok, body, len);
}

static void do_reload(struct master *master, struct control_client *client) {
    // What the one under way has read already may be older than what the caller wants in use.
    client->state = master->reload.state == RELOAD_IDLE ? CLIENT_WAITS : CLIENT_WAITS_NEXT;
    if (master->phase == MASTER_RUNNING)
        reload_start(master);
    else
        client_say(client, false,
                   master->phase == MASTER_STARTING ? "moongate is being started"
                                                    : "moongate is being stopped");
}

static void do_stop(struct master *master, struct control_client *client) {
    client->state = CLIENT_WAITS_END;
    master_stop(master);
}

static void do_quit(struct master *master, struct control_client *client) {
    client->state = CLIENT_WAITS_END;
    master_quit(master);
}

static void do_reopen(struct master *master, struct control_client *client) {
    struct error error;
    if (master_reopen(master, &error) < 0)
        client_say(client, false, error.text);
    else
        client_say(client, true, "log files are open again");
}

static void do_upgrade(struct master *master, struct control_client *client) {
    (void)master;
    client_say(client, false, "upgrade is not available in this version");
}

static void show(struct master *master, struct control_client *client,
                 void (*report)(const struct master *master, FILE *out, bool json)) {
    char *body = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&body, &len);
    if (out) {
        report(master, out, client->json);
        fclose(out);
    }
    client_answer(client, true, body, len);
}

static void do_show_workers(struct master *master, struct control_client *client) {
    show(master, client, report_workers);
}

static void do_show_stats(struct master *master, struct control_client *client) {
    show(master, client, report_stats);
}

static void do_show_metrics(struct master *master, struct control_client *client) {
    show(master, client, report_metrics);
}

static void do_show_generations(struct master *master, struct control_client *client) {
    show(master, client, report_generations);
}

static void do_show_dns(struct master *master, struct control_client *client) {
    client->state = CLIENT_WAITS_TOLD;
    inquiry_start(&master->inquiry, master->workers, master->worker_count);
}

static void do_show_upstreams(struct master *master, struct control_client *client) {
    show(master, client, report_upstreams);
}

static void do_set_server(struct master *master, struct control_client *client) {
    struct error result;
    int code = servers_set(master, client->arguments, &result);
    client_say(client, code == 0, result.text);
}

static const struct {
    const char *name;  // one that ends with a space is followed by arguments
    void (*carry_out)(struct master *master, struct control_client *client);
} commands[] = {
    { "reload", do_reload },
    { "stop", do_stop },
    { "quit", do_quit },
    { "reopen", do_reopen },
    { "upgrade", do_upgrade },
    { "show workers", do_show_workers },
    { "show stats", do_show_stats },
    { "show metrics", do_show_metrics },
    { "show generations", do_show_generations },
    { "show dns", do_show_dns },
    { "show upstreams", do_show_upstreams },
    { "set server ", do_set_server },
};

// The line has no end of line any more. The client may be gone afterwards.
static void carry_out(struct control_client *client, char *line) {
    size_t len = strlen(line);
    if (len > 5 && strcmp(line + len - 5, " json") == 0) {
        client->json = true;
        line[len - 5] = 0;
    }
    timer_stop(&client->timer);
    watch_change(&client->watch, 0);
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) {
        const char *name = commands[i].name;
        size_t name_len = strlen(name);
        bool more = name[name_len - 1] == ' ';
        if (more ? strncmp(line, name, name_len) == 0 : strcmp(line, name) == 0) {
            client->arguments = line + name_len;
            commands[i].carry_out(master_of(the_control), client);
            return;
        }
    }
    char text[REQUEST_MAX + 200];
    int n = snprintf(text, sizeof text, "unknown command \"%s\", expected one of:", line);
    for (unsigned i = 0; i < sizeof commands / sizeof *commands && n > 0 && (size_t)n < sizeof text; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s %s", i ? "," : "", commands[i].name);
    client_say(client, false, text);
}

static void client_ready(struct watch *watch, uint32_t events) {
    struct control_client *client = container_of(watch, struct control_client, watch);
    if (client->state == CLIENT_WRITING) {
        client_write(client);
        return;
    }
    if (client->state != CLIENT_READING) {
        // It hung up while it waited; what it asked for goes on.
        if (events & (EPOLLHUP | EPOLLERR))
            client_free(the_control, client);
        return;
    }
    ssize_t n = recv(watch->fd, client->request + client->request_len, REQUEST_MAX - client->request_len,
                     MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        client_free(the_control, client);
        return;
    }
    client->request_len += (size_t)n;
    client->request[client->request_len] = 0;
    char *end = strpbrk(client->request, "\r\n");
    if (end) {
        *end = 0;
        carry_out(client, client->request);
    } else if (client->request_len == REQUEST_MAX) {
        client_say(client, false, "the request is too long");
    }
}

static void client_came(struct watch *watch, uint32_t events) {
    struct control *control = container_of(watch, struct control, watch);
    (void)events;
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct control_client *client = control->client_count < CLIENTS_MAX ? calloc(1, sizeof *client) : NULL;
    if (!client) {
        static const char busy[] = "error\ntoo many clients of the control socket\n";
        (void)send(fd, busy, sizeof busy - 1, MSG_NOSIGNAL);
        close(fd);
        return;
    }
    list_push_back(&control->clients, &client->link);
    control->client_count++;
    timer_init(&client->timer, client_timed_out);
    if (watch_add(&client->watch, fd, EPOLLIN, client_ready) < 0) {
        client->watch.fd = fd;
        client_free(control, client);
        return;
    }
    timer_start(&client->timer, CLIENT_TIMEOUT_MS);
}

// -EADDRINUSE when somebody answers there.
static int clear_stale(const struct sockaddr_un *addr) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int code = connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 ? -EADDRINUSE : -errno;
    close(fd);
    if (code == -ENOENT)
        return 0;
    if (code == -ECONNREFUSED)
        return unlink(addr->sun_path) < 0 ? -errno : 0;
    return code;
}

int control_open(struct control *control, const char *path, struct error *error) {
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof addr.sun_path)
        return error_set(error, -ENAMETOOLONG,
                         "the path of the control socket is longer than %zu bytes: \"%s\"",
                         sizeof addr.sun_path - 1, path);
    strcpy(addr.sun_path, path);
    int code = make_folder_of(path, error);
    if (code < 0)
        return error_prefix(error, code, "control socket");
    code = clear_stale(&addr);
    if (code == -EADDRINUSE)
        return error_set(error, code, "another moongate answers on the control socket \"%s\"", path);
    int fd = code < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        mode_t mask = umask(0177);
        code = bind(fd, (struct sockaddr *)&addr, sizeof addr) < 0 ? -errno : 0;
        umask(mask);
        if (code == 0 && listen(fd, CLIENTS_MAX) < 0)
            code = -errno;
        if (code == 0)
            code = watch_add(&control->watch, fd, EPOLLIN, client_came);
    } else if (code == 0) {
        code = -errno;
    }
    if (code < 0) {
        if (fd >= 0)
            close(fd);
        return error_set(error, code, "cannot make the control socket \"%s\": %s", path, strerror(-code));
    }
    control->path = strdup(path);
    the_control = control;
    return 0;
}

void control_reloaded(struct control *control, bool ok, const char *text) {
    list_each(link, &control->clients) {
        struct control_client *client = container_of(link, struct control_client, link);
        if (client->state == CLIENT_WAITS)
            client_say(client, ok, text);
        else if (client->state == CLIENT_WAITS_NEXT)
            client->state = CLIENT_WAITS;
    }
}

void control_told(void) {
    list_each(link, &the_control->clients) {
        struct control_client *client = container_of(link, struct control_client, link);
        if (client->state == CLIENT_WAITS_TOLD)
            show(master_of(the_control), client, report_dns);
    }
}

void control_release(struct control *control) {
    if (control->watch.fd < 0)
        return;
    int fd = control->watch.fd;
    watch_remove(&control->watch);
    unlink(control->path);
    close(fd);
    list_each(link, &control->clients) {
        struct control_client *client = container_of(link, struct control_client, link);
        if (client->state == CLIENT_WAITS_END)
            client_say(client, true, "moongate has ended");
        else if (client->state == CLIENT_WAITS || client->state == CLIENT_WAITS_NEXT ||
                 client->state == CLIENT_WAITS_TOLD)
            client_say(client, false, "moongate was stopped");
    }
    // A reply that did not fit at once gets one more moment.
    list_each(link, &control->clients) {
        struct control_client *client = container_of(link, struct control_client, link);
        struct pollfd poller = { .fd = client->watch.fd, .events = POLLOUT };
        if (client->state == CLIENT_WRITING && poll(&poller, 1, LAST_WORD_MS) == 1)
            (void)send(client->watch.fd, client->reply + client->sent, client->reply_len - client->sent,
                       MSG_NOSIGNAL);
        client_free(control, client);
    }
    free(control->path);
    control->path = NULL;
}
