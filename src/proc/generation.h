// SPDX-License-Identifier: BSD-2-Clause
// A generation: one loaded configuration with its Lua state, its frontends and its upstreams, in one worker.
// It is immutable, and lives while it is in use or something that began in it lives: an exchange, a waiting
// connect hook, a relay. Then generation_reap() frees it.
#ifndef MOONGATE_PROC_GENERATION_H
#define MOONGATE_PROC_GENERATION_H

#include "base/list.h"
#include "conf/conf.h"
#include "proc/heritage.h"
#include "proxy/frontend.h"
#include "proxy/stapler.h"
#include "script/script.h"

struct generation_site {
    const struct conf_frontend *conf;
    struct frontend *frontend;
};

struct generation {
    struct list link;          // of all that live, newest first
    uint64_t id;               // the master's number
    uint64_t exchanges;        // that hold it; listeners that are still stopping, too
    bool wanted;               // by the worker: loaded, or in use
    struct source *source;
    struct conf *conf;
    struct resolver *resolver; // shared with others that are configured alike
    struct script_host *scripts;
    struct list upstreams;
    struct address_book addresses;  // that scripts named
    struct generation_site *sites;
    unsigned site_count;
    struct stapler *stapler;   // NULL: no staple is to be asked for
};

struct generation_options {
    uint64_t id;
    const char *file;          // the main configuration file
    int source_fd;             // stays the caller's
    const struct script_dict *dicts;  // outlive the generation
    unsigned dict_count;
    struct script_probe *probe;
    struct metrics *metrics;   // outlive the generation
    struct standings *standings;  // outlive the generation; NULL: none are shared
    unsigned worker;
};

// Loads everything; nothing is in use yet. The worker wants it until generation_unwant().
int generation_load(const struct generation_options *options, struct generation **ret_generation,
                    struct error *error)
    __attribute__((warn_unused_result));
// It is in use now.
void generation_go(struct generation *generation);
void generation_unwant(struct generation *generation);  // NULL is allowed
// void *: they are callbacks of frontends.
void generation_hold(void *generation);
void generation_drop(void *generation);
// Frees those that nobody wants or holds. Call between turns only: callbacks may be using one until they
// return.
void generation_reap(void);

// NULL when none of its frontends listens there. The name is conf_listen.name.
struct frontend *generation_frontend(const struct generation *generation, const char *listener_name);
bool generation_none(void);  // none lives
// Writes who lives, with how many exchanges, to the master's memory; cheap enough for every turn.
void generation_publish(struct heritage_worker *shared);
uint64_t generation_lua_bytes(void);  // memory of all their Lua states

#endif
