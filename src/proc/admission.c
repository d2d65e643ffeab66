// SPDX-License-Identifier: BSD-2-Clause
// The rules of admission.h. Numbers and states are looked at in each turn, so that whatever ends (a
// connection, a request, a shortage) is noticed without a call from there.
#include "proc/admission.h"

#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "net/conn.h"
#include "net/listener.h"
#include "proxy/client.h"
#include "script/script.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    RETRY_MS = 100,     // accepting failed: tried again, unless something was closed before
    CALM_MS = 1000,     // a shortage that was not felt for so long is over
    PATIENCE_MS = 1000, // beyond memory_limit with nothing left to close: then requests are refused
    RESERVE = 256,      // descriptors for other things than connections
    SHED_AT_ONCE = 8,   // idle connections closed, with an eighth of all, for one measurement of memory
};

static struct admission *only;  // conn_exhausted() has no other way to find it

static const char *const names[] = {
#define X(name, text) text,
    SHORTAGES(X)
#undef X
};

// Felt: tells it when it begins.
static void __attribute__((format(printf, 3, 4)))
press(struct admission *admission, enum shortage_kind kind, const char *format, ...) {
    struct shortage *shortage = &admission->shortages[kind];
    shortage->pressed_ms = clock_ms();
    if (shortage->begun_ms)
        return;
    shortage->begun_ms = clock_ms();
    shortage->shed = counters->connections_shed;
    shortage->refused = counters->connections_refused + counters->requests_refused;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_warn("%s: %s", names[kind], text);
}

static void relax(struct admission *admission) {
    for (int kind = 0; kind < SHORTAGE_COUNT; kind++) {
        struct shortage *shortage = &admission->shortages[kind];
        if (!shortage->begun_ms || clock_ms() - shortage->pressed_ms < CALM_MS)
            continue;
        log_notice("%s: over after %.1f s; %llu idle connections were closed, %llu connections or requests "
                   "refused",
                   names[kind], (double)(shortage->pressed_ms - shortage->begun_ms) / 1000,
                   (unsigned long long)(counters->connections_shed - shortage->shed),
                   (unsigned long long)(counters->connections_refused + counters->requests_refused -
                                        shortage->refused));
        shortage->begun_ms = 0;
    }
}

bool admission_short(const struct admission *admission) {
    for (int kind = 0; kind < SHORTAGE_COUNT; kind++)
        if (admission->shortages[kind].begun_ms)
            return true;
    return false;
}

static void set_paused(struct admission *admission, bool paused) {
    if (paused == admission->paused)
        return;
    admission->paused = paused;
    counters->connections_limited += paused;
    list_each(link, admission->listeners) {
        struct listener *listener = container_of(link, struct listener, link);
        if (listener->stopping)
            continue;
        if (paused)
            listener_pause(listener);
        else
            listener_start(listener);
    }
}

// ---- connections ------------------------------------------------------------------------------------------

static uint64_t most(const struct admission *admission, const struct conf *conf) {
    uint64_t sockets = conf_script_sockets(conf);
    if (sockets > admission->sockets_most)
        sockets = admission->sockets_most;
    uint64_t most = (admission->descriptors - sockets) / 2;  // a proxied connection has two
    return conf->connections < most ? conf->connections : most;
}

static void press_connections(struct admission *admission, const struct conf *conf) {
    static const char *const consequences[] = {
        [CONNECTIONS_FULL_SHED] = "idle ones are closed for new ones, which wait while none is idle",
        [CONNECTIONS_FULL_WAIT] = "new ones wait",
        [CONNECTIONS_FULL_REFUSE] = "new ones are refused",
    };
    press(admission, SHORTAGE_connections, "%llu are open; %s",
          (unsigned long long)most(admission, conf), consequences[conf->connections_full]);
}

bool admission_let_in(struct admission *admission, const struct conf *conf, int fd) {
    if (!conf || conf->connections_full != CONNECTIONS_FULL_REFUSE ||
        conn_client_count() < most(admission, conf))
        return true;
    press_connections(admission, conf);
    counters->connections_refused++;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
    close(fd);
    return false;
}

void admission_taken(struct admission *admission, const struct conf *conf) {
    if (!conf)
        return;
    if (conf->connections_full == CONNECTIONS_FULL_SHED && conn_client_count() > most(admission, conf) &&
        clients_may_shed()) {
        press_connections(admission, conf);
        clients_shed();
    }
    admission_turn(admission, conf);
}

static bool full(struct admission *admission, const struct conf *conf) {
    if (conf->connections_full == CONNECTIONS_FULL_REFUSE || conn_client_count() < most(admission, conf) ||
        (conf->connections_full == CONNECTIONS_FULL_SHED && clients_may_shed()))
        return false;
    press_connections(admission, conf);
    return true;
}

// ---- descriptors ------------------------------------------------------------------------------------------

// conn_exhausted(): for a connection that should be accepted or made there is no descriptor, or no memory in
// the kernel. The listener that failed is armed again by admission_turn().
static void exhausted(int error) {
    press(only, SHORTAGE_descriptors,
          "%s; idle connections are closed, new ones wait (raise the limit of open files or lower "
          "`connections`)",
          strerror(error));
    clients_shed();  // the kernel fails as soon as the last one is taken, whether or not somebody waits
    only->exhausted = true;
    only->exhausted_at = conn_count();
    set_paused(only, true);  // at once: a listener that failed goes on only by being paused and started
    timer_start(&only->retry, RETRY_MS);
}

static void retry(struct timer *timer) {
    container_of(timer, struct admission, retry)->exhausted = false;
}

static bool without_descriptors(struct admission *admission) {
    if (admission->exhausted && conn_count() < admission->exhausted_at) {
        timer_stop(&admission->retry);
        admission->exhausted = false;
    }
    return admission->exhausted;
}

// ---- memory -----------------------------------------------------------------------------------------------

// Resident bytes that are this worker's alone: neither the program's nor in dictionaries. 0: unknown.
static uint64_t resident(const struct admission *admission) {
    char text[128];
    unsigned long long all = 0, shared = 0;
    ssize_t n = pread(admission->memory_fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    if (sscanf(text, "%*u %llu %llu", &all, &shared) != 2 || all < shared)
        return 0;
    return (all - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

void admission_measure(struct admission *admission, const struct conf *conf) {
    uint64_t limit = conf->memory_limit;
    uint64_t bytes = limit ? resident(admission) : 0;
    // Somewhat below before it counts as over, or it would come and go.
    if (bytes < (admission->over_since_ms ? limit - limit / 16 : limit) || limit == 0) {
        admission->over_since_ms = 0;
        clients_refusing = false;
        return;
    }
    if (!admission->over_since_ms)
        admission->over_since_ms = clock_ms();
    press(admission, SHORTAGE_memory,
          "%llu KiB are in use, memory_limit is %llu KiB; idle connections are closed, new ones wait",
          (unsigned long long)bytes / 1024, (unsigned long long)limit / 1024);
    unsigned shed = 0, most_at_once = SHED_AT_ONCE + clients_count() / 8;
    while (shed < most_at_once && clients_shed())
        shed++;
    malloc_trim(0);  // what was freed since the last measurement; else it stays resident
    clients_refusing = shed == 0 && clock_ms() - admission->over_since_ms >= PATIENCE_MS;
}

// ---- life -------------------------------------------------------------------------------------------------

void admission_turn(struct admission *admission, const struct conf *conf) {
    // Each is asked: each keeps its own shortage alive.
    bool paused = full(admission, conf);
    paused |= without_descriptors(admission);
    paused |= admission->over_since_ms > 0;
    if (admission->over_since_ms)
        admission->shortages[SHORTAGE_memory].pressed_ms = clock_ms();
    set_paused(admission, paused);
    relax(admission);
}

void admission_start(struct admission *admission, struct list *listeners) {
    struct rlimit limit = { 0 };
    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t have = limit.rlim_cur, reserve = have / 4 < RESERVE ? have / 4 : RESERVE;
    *admission = (struct admission){ .listeners = listeners };
    admission->descriptors = have - reserve;
    admission->sockets_most = have / 4;
    script_sockets_bound(admission->sockets_most);
    admission->memory_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    timer_init(&admission->retry, retry);
    only = admission;
    conn_exhausted = exhausted;
}

void admission_end(struct admission *admission) {
    timer_stop(&admission->retry);
    if (admission->memory_fd >= 0)
        close(admission->memory_fd);
}
