// SPDX-License-Identifier: BSD-2-Clause
// Carries out the master's orders in a worker: loads a generation beside the one in use, takes it into use or
// forgets it, moves listeners from one to the next. Called from the worker's ring when the channel is
// readable.
#include "proc/orders.h"

#include "base/log.h"
#include "proc/inquiry.h"
#include "proxy/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// A listening socket that the master sent and no generation uses yet.
struct offer {
    struct list link;
    int fd;
    char name[ADDR_TEXT_MAX];
};

static struct worker_self *only;  // frontend_current() has no other way to find it

static struct listener *find_listener(struct worker_self *self, const char *name) {
    list_each(link, &self->listeners) {
        struct listener *listener = container_of(link, struct listener, link);
        if (!listener->stopping && strcmp(listener->name, name) == 0)
            return listener;
    }
    return NULL;
}

static struct offer *find_offer(struct worker_self *self, const char *name) {
    list_each(link, &self->offers) {
        struct offer *offer = container_of(link, struct offer, link);
        if (strcmp(offer->name, name) == 0)
            return offer;
    }
    return NULL;
}

static void offer_free(struct offer *offer) {
    if (offer->fd >= 0)
        close(offer->fd);
    list_remove(&offer->link);
    free(offer);
}

static void drop_offers(struct worker_self *self) {
    list_each(link, &self->offers) offer_free(container_of(link, struct offer, link));
}

static void take_listener(struct worker_self *self, const char *name, int fd) {
    struct offer *offer = find_offer(self, name);
    if (offer)
        offer_free(offer);
    offer = calloc(1, sizeof *offer);
    if (!offer) {
        close(fd);  // LOAD will miss it and refuse
        return;
    }
    offer->fd = fd;
    snprintf(offer->name, sizeof offer->name, "%.*s", ADDR_TEXT_MAX - 1, name);
    list_push_back(&self->offers, &offer->link);
}

static void take_dict(struct worker_self *self, const char *name, uint64_t size, int fd) {
    struct error error;
    for (unsigned i = 0; i < self->dict_count; i++)
        if (strcmp(self->dicts[i].name, name) == 0) {
            close(fd);
            return;
        }
    if (self->dict_count == WORKER_DICTS) {
        log_error("more than %u shared dictionaries", self->dict_count);
        close(fd);
        return;
    }
    // Mapped for the rest of this process's life.
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    struct dict *dict = &self->attached[self->dict_count];
    if (memory == MAP_FAILED) {
        log_error("cannot map the dictionary \"%s\": %s", name, strerror(errno));
        return;
    }
    if (dict_attach(dict, memory, size, &error) < 0) {
        log_error("cannot use the dictionary \"%s\": %s", name, error.text);
        munmap(memory, size);
        return;
    }
    char *copy = strdup(name);
    if (copy)
        self->dicts[self->dict_count++] = (struct script_dict){ .name = copy, .dict = dict };
}

static struct frontend *current_frontend(const char *listener_name) {
    return only->current ? generation_frontend(only->current, listener_name) : NULL;
}

// While the listener is being stopped its generation, which may be an old one, is held.
static void accepted(struct listener *listener, int fd) {
    struct frontend *frontend = generation_frontend(listener->owner, listener->name);
    const struct conf *conf = only->current ? only->current->conf : NULL;
    if (!frontend) {
        close(fd);
        return;
    }
    if (!admission_let_in(&only->admission, conf, fd))
        return;
    client_accept(frontend, listener->name, fd);
    admission_taken(&only->admission, conf);
}

static void stopped(struct listener *listener) {
    generation_drop(listener->owner);
    free(listener);
}

static void removed_too_long(struct timer *timer) {
    (void)timer;
    clients_close_removed();
}

// What was loaded, or is being loaded, is not to be used.
static void forget_loaded(struct worker_self *self) {
    generation_unwant(self->loading);
    generation_unwant(self->loaded);
    self->loading = self->loaded = NULL;
}

void worker_take(struct worker_self *self, struct generation *generation) {
    struct generation *old = self->current;
    self->current = generation;
    list_each(link, &self->listeners) {
        struct listener *listener = container_of(link, struct listener, link);
        if (listener->stopping)
            continue;
        if (generation && generation_frontend(generation, listener->name)) {
            listener->owner = generation;
            continue;
        }
        generation_hold(listener->owner);
        listener_stop(listener, stopped);
    }
    for (unsigned i = 0; generation && i < generation->site_count; i++)
        for (const struct conf_listen *listen = generation->sites[i].conf->listens; listen;
             listen = listen->next) {
            struct offer *offer = find_offer(self, listen->name);
            if (find_listener(self, listen->name) || !offer)
                continue;
            struct listener *listener = listener_new(listen->name, offer->fd, accepted, generation);
            offer->fd = -1;
            if (!listener) {
                log_error("cannot listen on \"%s\": memory is out", listen->name);
                continue;
            }
            list_push_back(&self->listeners, &listener->link);
            if (!self->admission.paused)
                listener_start(listener);
        }
    drop_offers(self);
    if (self->loaded == generation)
        self->loaded = NULL;
    forget_loaded(self);
    generation_unwant(old);
    if (generation)
        generation_go(generation);
    if (old && generation) {
        clients_drain(false);
        timer_start(&self->removed, generation->conf->drain_timeout);
    }
}

static int check_offers(struct worker_self *self, const struct generation *generation, struct error *error) {
    for (unsigned i = 0; i < generation->site_count; i++)
        for (const struct conf_listen *listen = generation->sites[i].conf->listens; listen;
             listen = listen->next)
            if (!find_listener(self, listen->name) && !find_offer(self, listen->name))
                return error_set(error, -EMFILE,
                                 "the socket of \"%s\" did not arrive: too few descriptors (ulimit -n)?",
                                 listen->name);
    return 0;
}

// The init hooks of a generation have come to their end.
static void initialised(void *owner, const struct error *error) {
    struct worker_self *self = only;
    struct generation *generation = owner;
    if (self->loading != generation)
        return;
    self->loading = NULL;
    if (error) {
        generation_unwant(generation);
        (void)channel_send(&self->channel, MESSAGE_REFUSED, generation->id, error->text, -1);
        return;
    }
    self->loaded = generation;
    (void)channel_send(&self->channel, MESSAGE_READY, generation->id, NULL, -1);
}

static void load(struct worker_self *self, uint64_t id, const char *file, int fd) {
    struct error error;
    struct generation *generation = NULL;
    forget_loaded(self);
    const struct generation_options options = {
        .id = id,
        .file = file,
        .source_fd = fd,
        .dicts = self->dicts,
        .dict_count = self->dict_count,
        .probe = &self->heritage->shared->probe,
        .metrics = &self->metrics,
        .standings = self->heritage->standings,
        .worker = self->heritage->index,
    };
    int code = fd < 0
        ? error_set(&error, -EMFILE, "the configuration did not arrive: too few descriptors (ulimit -n)?")
        : generation_load(&options, &generation, &error);
    if (fd >= 0)
        close(fd);
    if (code == 0) {
        code = check_offers(self, generation, &error);
        if (code < 0)
            generation_unwant(generation);
    }
    if (code < 0) {
        (void)channel_send(&self->channel, MESSAGE_REFUSED, id, error.text, -1);
        return;
    }
    self->loading = generation;
    script_host_init(generation->scripts, initialised, generation);
}

// The descriptor stays open: everything that is logged later goes there.
static void take_error_log(struct worker_self *self, uint64_t number, int fd) {
    bool syslog = number & MESSAGE_SYSLOG;
    log_open(fd >= 0 ? fd : syslog ? -1 : STDERR_FILENO, (enum log_level)(number & (MESSAGE_SYSLOG - 1)));
    if (self->error_fd >= 0)
        close(self->error_fd);
    self->error_fd = fd;
}

static void obey(struct worker_self *self, const struct message *message, int fd) {
    if (fd < 0 &&
        (message->type == MESSAGE_LISTENER || message->type == MESSAGE_ACCESS_LOG ||
         message->type == MESSAGE_DICT)) {
        log_error("no descriptor came with %s \"%s\": too few descriptors (ulimit -n)?",
                  message_name(message->type), message->text);
        return;
    }
    switch (message->type) {
    case MESSAGE_LISTENER:
        take_listener(self, message->text, fd);
        return;
    case MESSAGE_ACCESS_LOG:
        if (!access_log_sink_open(message->text, fd))
            log_error("cannot write to \"%s\": memory is out", message->text);
        return;
    case MESSAGE_ERROR_LOG:
        take_error_log(self, message->number, fd);
        return;
    case MESSAGE_DICT:
        take_dict(self, message->text, message->number, fd);
        return;
    case MESSAGE_LOAD:
        if (self->phase == WORKER_SERVING)
            load(self, message->number, message->text, fd);
        else if (fd >= 0)
            close(fd);
        return;
    case MESSAGE_COMMIT:
        if (self->phase == WORKER_SERVING && self->loaded && self->loaded->id == message->number) {
            worker_take(self, self->loaded);
            self->confirm = message->number;
            self->confirm_turns = 0;
        }
        break;
    case MESSAGE_ABORT:
        if ((self->loaded && self->loaded->id == message->number) ||
            (self->loading && self->loading->id == message->number))
            forget_loaded(self);
        drop_offers(self);
        break;
    case MESSAGE_QUIT:
        worker_quit(self);
        break;
    case MESSAGE_STOP:
        worker_close_all(self);
        break;
    case MESSAGE_ASK:
        inquiry_answer(&self->channel, message->number, self->current);
        break;
    default:
        log_error("%s is no order for a worker", message_name(message->type));
        break;
    }
    if (fd >= 0)
        close(fd);
}

// Whoever was told that a reload is over must find removed listeners closed.
void orders_confirm(struct worker_self *self) {
    if (!self->confirm)
        return;
    list_each(link, &self->listeners) if (container_of(link, struct listener, link)->stopping) return;
    if (self->confirm_turns++ == 0)
        return;
    (void)channel_send(&self->channel, MESSAGE_COMMITTED, self->confirm, NULL, -1);
    self->confirm = 0;
}

static void listen_to_master(struct worker_self *self);

static void channel_readable(struct op *op, const struct completion *c) {
    struct worker_self *self = container_of(op, struct worker_self, channel_poll);
    struct message message;
    int fd, code;
    while ((code = channel_receive(&self->channel, &message, &fd)) == 0)
        obey(self, &message, fd);
    if (code == -EPIPE) {
        log_crit("the master is gone");
        channel_release(&self->channel);
        worker_close_all(self);
    } else if (!c->more && self->phase != WORKER_OVER) {
        listen_to_master(self);
    }
}

static void listen_to_master(struct worker_self *self) {
    ring_poll_multishot(&self->channel_poll, self->channel.fd, POLLIN | POLLRDHUP);
}

void orders_start(struct worker_self *self) {
    timer_init(&self->removed, removed_too_long);
    only = self;
    self->error_fd = self->heritage->error_fd;
    frontend_current = current_frontend;
    op_init(&self->channel_poll, channel_readable);
    listen_to_master(self);
}

void orders_end(struct worker_self *self) {
    drop_offers(self);
    generation_reap();
    channel_release(&self->channel);
    for (unsigned i = 0; i < self->dict_count; i++)
        free((void *)(uintptr_t)self->dicts[i].name);
    metrics_detach(&self->metrics);
}
