// SPDX-License-Identifier: BSD-2-Clause
// Stands in for everything around the script layer in its unit tests: a configuration with one frontend whose
// scripts are texts, a made-up conn, exchanges made by hand, and the functions of exchange.c that scripts
// reach, which only note that they were called. Included by one .c a program. What scripts do to whole
// exchanges is tested by moongate --test (lua/*_test.lua, t/system/test_script_tests.py).
#ifndef MOONGATE_T_SCRIPT_RIG_H
#define MOONGATE_T_SCRIPT_RIG_H

#include "base/clock.h"
#include "base/counters.h"
#include "base/handle.h"
#include "base/log.h"
#include "base/timer.h"
#include "conf/source.h"
#include "http/exchange.h"
#include "http/target.h"
#include "script/script.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { RIG_SCRIPTS = 4 };

struct rig {
    struct conf conf;
    struct conf_path folder;
    struct conf_frontend frontend;
    struct conf_script scripts[RIG_SCRIPTS];
    struct conf_script_setting settings[8];
    unsigned script_count, setting_count;
    struct source *source;
    struct dict dict;
    void *dict_memory;
    struct script_dict dicts[1];
    struct script_probe probe;
    struct script_host *host;
    struct script_chain *chain;
    const struct exchange_hooks *hooks;
    struct exchange_site site;
    struct conn *conn;
    struct error error;
    // What was noted.
    int runs, pumps, fails, responds;
    unsigned status;
    struct slice body;
    struct headers reply;
};
static struct rig *rig_now;

// ---- what the script layer calls --------------------------------------------------------------------------

const char *exchange_id(struct exchange *x) {
    snprintf(x->id, sizeof x->id, "test-id");
    return x->id;
}
void exchange_run(struct exchange *x) {
    (void)x;
    rig_now->pumps++;
}
void exchange_hook_done(struct exchange *x) {
    (void)x;
    rig_now->runs++;
}
void exchange_fail(struct exchange *x, unsigned status, enum close_reason reason) {
    x->responded = true;
    x->reason = reason;
    rig_now->fails++;
    rig_now->status = status;
}
int exchange_respond(struct exchange *x, unsigned status, const struct headers *headers, struct slice body) {
    x->responded = true;
    rig_now->responds++;
    rig_now->status = status;
    rig_now->reply = *headers;
    rig_now->body = arena_copy(&x->arena, body);
    return 0;
}
int exchange_body_whole(struct exchange *x, bool response, size_t most, const struct queue **ret_body) {
    (void)most;
    *ret_body = response ? &x->res_body : &x->req_body;
    return 0;
}
int exchange_replace_body(struct exchange *x, bool response, struct slice body) {
    (void)x, (void)response, (void)body;
    return -EALREADY;
}
// What a fetch would need: none is made here, a system test does.
struct exchange *exchange_new(struct exchange_site *site, const struct downstream_ops *down, void *down_owner) {
    (void)site, (void)down, (void)down_owner;
    return NULL;
}
void exchange_start(struct exchange *x) {
    (void)x;
}
void exchange_client_gone(struct exchange *x, enum close_reason reason) {
    (void)x, (void)reason;
}

static struct conn *rig_down_conn(struct exchange *x) {
    (void)x;
    return rig_now->conn;
}
static size_t rig_backlog;
static size_t rig_down_backlog(struct exchange *x) {
    (void)x;
    return rig_backlog;
}
static const struct downstream_ops rig_down = { .conn = rig_down_conn, .backlog = rig_down_backlog };

// ---- the rig ----------------------------------------------------------------------------------------------

static inline void rig_init(struct rig *rig) {
    *rig = (struct rig){ 0 };
    rig_now = rig;
    clock_update();
    ring_do_without();
    rig->source = source_new_disk();
    rig->conf.file = "/nowhere/moongate.conf";
    rig->folder.path = "/nowhere/lua";
    rig->conf.scripts = &rig->folder;
    rig->conf.frontends = &rig->frontend;
    rig->frontend.name = "test";
    rig->frontend.settings.buffer_high = 1000;
    rig->frontend.settings.buffer_low = 100;
    struct addr remote, local;
    cr_assert_eq(addr_parse(slice_of("192.0.2.7:40000"), &remote, &rig->error), 0);
    cr_assert_eq(addr_parse(slice_of("127.0.0.1:8080"), &local, &rig->error), 0);
    rig->conn = conn_made_up(&remote, &local);
    cr_assert(rig->conn);
    rig->conn->id = 42;
    rig->dict_memory = malloc(256 << 10);
    cr_assert_eq(dict_format(rig->dict_memory, 256 << 10, &rig->error), 0);
    cr_assert_eq(dict_attach(&rig->dict, rig->dict_memory, 256 << 10, &rig->error), 0);
    rig->dicts[0] = (struct script_dict){ "limits", &rig->dict };
}

static inline void rig_setting(struct rig *rig, const char *key, const char *value) {
    struct conf_script_setting *setting = &rig->settings[rig->setting_count++];
    *setting = (struct conf_script_setting){ NULL, key, value };
    if (rig->setting_count > 1)
        setting[-1].next = setting;
}

static inline struct conf_script *rig_script(struct rig *rig, const char *name, const char *text) {
    struct conf_script *script = &rig->scripts[rig->script_count++];
    script->name = name;
    script->path = name;
    script->text = slice_of(text);
    script->settings = rig->setting_count ? rig->settings : NULL;
    if (rig->script_count > 1)
        script[-1].next = script;
    rig->frontend.scripts = rig->scripts;
    return script;
}

static inline int rig_try(struct rig *rig) {
    struct script_options options = { .conf = &rig->conf,
                                      .source = rig->source,
                                      .dicts = rig->dicts,
                                      .dict_count = 1,
                                      .probe = &rig->probe,
                                      .generation = 3,
                                      .worker = 1 };
    int rc = script_host_new(&options, &rig->host, &rig->error);
    if (rc < 0)
        return rc;
    rig->chain = script_chain_of(rig->host, &rig->frontend);
    rig->hooks = script_chain_hooks(rig->chain);
    rig->site = (struct exchange_site){ .settings = &rig->frontend.settings,
                                        .hooks = rig->hooks,
                                        .scripts = rig->chain };
    return 0;
}

static inline void rig_load(struct rig *rig, const char *text) {
    rig_init(rig);
    rig_script(rig, "test.lua", text);
    cr_assert_eq(rig_try(rig), 0, "%s", rig->error.text);
}

static inline void rig_release(struct rig *rig) {
    conn_unmake(rig->conn);
    script_host_free(rig->host);
    source_free(rig->source);
    free(rig->dict_memory);
}

// A request with the fields of `fields` ("Name: value", NULL at the end).
static inline struct exchange *rig_exchange(struct rig *rig, const char *method, const char *target,
                                            const char *const *fields) {
    struct exchange *x = calloc(1, sizeof *x);
    const char *why = "";
    x->site = &rig->site;
    x->settings = &rig->frontend.settings;
    x->down = &rig_down;
    x->step = EXCHANGE_request;
    x->req.method = slice_of(method);
    x->req.head = slice_eq(x->req.method, SLICE_LIT("HEAD"));
    x->req.target = slice_of(target);
    x->req.scheme = SLICE_LIT("http");
    x->req.major = x->req.minor = 1;
    cr_assert_eq(target_parse(&x->req, &x->arena, &why), 0, "%s", why);
    for (; fields && *fields; fields++) {
        const char *colon = strchr(*fields, ':');
        cr_assert_eq(headers_add(&x->req.headers, &x->arena, slice_make(*fields, (size_t)(colon - *fields)),
                                 slice_trim(slice_of(colon + 1))),
                     0);
    }
    return x;
}

static inline void rig_end(struct rig *rig, struct exchange *x) {
    rig->hooks->ended(rig->chain, x);
    queue_release(&x->req_in);
    queue_release(&x->res_in);
    queue_release(&x->req_body);
    queue_release(&x->res_body);
    arena_release(&x->arena);
    free(x);
}

// A GET of "/" whose request hook is run; true when the hook came to its end.
static inline bool rig_request(struct rig *rig, struct exchange *x) {
    x->step = EXCHANGE_request;
    return rig->hooks->request(rig->chain, x) == STEP_MORE;
}

// Lets the timers of the next `ms` fire.
static inline void rig_pass(unsigned ms) {
    for (unsigned i = 0; i < ms; i++) {
        usleep(1000);
        clock_update();
        timer_run();
        ring_flush_now();
    }
}

static inline const char *rig_value(struct rig *rig, const struct headers *headers, const char *name) {
    static char text[256];
    uint32_t position = 0;
    (void)rig;
    const struct header *header = headers_next(headers, slice_of(name), &position);
    if (!header)
        return NULL;
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(header->value));
    return text;
}

#endif
