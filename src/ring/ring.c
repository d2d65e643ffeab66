// SPDX-License-Identifier: BSD-2-Clause
// Setting up the ring, telling why it is refused, and the turn: flush, submit and wait in one system call,
// handle all completions, run the timers. Driven by proc/worker.c; handlers belong to the operations' owners.
#include "ring/engine.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/fault.h"
#include "base/timer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

struct engine engine;

enum { CQ_FACTOR = 8 };  // completions per submission entry: multishot operations have many

static unsigned setup_flags(void) {
    return IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE |
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG;
}

// Turns io_uring_setup's refusal into a cause and a cure.
static int explain(int rc, struct error *error) {
    char sysctl[8] = "";
    int fd = open("/proc/sys/kernel/io_uring_disabled", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t n = read(fd, sysctl, sizeof sysctl - 1);
        sysctl[n > 0 ? n : 0] = 0;
        close(fd);
    }
    struct utsname system;
    uname(&system);
    if (rc == -ENOSYS)
        return error_set(error, rc,
                         "io_uring: this kernel (%s) was built without it; moongate needs Linux 6.1 or later "
                         "with CONFIG_IO_URING",
                         system.release);
    if (rc == -EPERM && sysctl[0] == '2')
        return error_set(error, rc,
                         "io_uring: forbidden by sysctl kernel.io_uring_disabled = 2; allow it with: "
                         "sysctl -w kernel.io_uring_disabled=0");
    if (rc == -EPERM && sysctl[0] == '1')
        return error_set(error, rc,
                         "io_uring: sysctl kernel.io_uring_disabled = 1 forbids it to this user; set it "
                         "to 0, or add the user's group to kernel.io_uring_group");
    if (rc == -EPERM || rc == -EACCES)
        return error_set(error, rc,
                         "io_uring: forbidden (%s), though the sysctl allows it: a seccomp profile or "
                         "security module does; in a container, run with a profile that permits "
                         "io_uring_setup, io_uring_enter and io_uring_register "
                         "(docker: --security-opt seccomp=FILE)",
                         strerror(-rc));
    if (rc == -EINVAL)
        return error_set(error, rc,
                         "io_uring: this kernel (%s) lacks DEFER_TASKRUN; moongate needs Linux 6.1 or later",
                         system.release);
    if (rc == -ENOMEM)
        return error_set(error, rc,
                         "io_uring: no memory for the ring; on this kernel it counts against RLIMIT_MEMLOCK: "
                         "raise it (ulimit -l, LimitMEMLOCK= in the unit)");
    return error_set(error, rc, "io_uring: io_uring_setup: %s", strerror(-rc));
}

int ring_probe(struct error *error) {
    struct io_uring ring;
    struct io_uring_params params = { .flags = setup_flags(), .cq_entries = 16 };
    int rc = io_uring_queue_init_params(8, &ring, &params);
    if (rc < 0)
        return explain(rc, error);
    io_uring_queue_exit(&ring);
    return 0;
}

int ring_init(const struct ring_options *options, struct error *error) {
    unsigned entries = fault_number("sq", options->entries);
    struct io_uring_params params = { .flags = setup_flags(),
                                      .cq_entries = fault_number("cq", entries * CQ_FACTOR) };
    list_init(&engine.flushes);
    list_init(&engine.later);
    int rc = io_uring_queue_init_params(entries, &engine.ring, &params);
    if (rc < 0)
        return explain(rc, error);
    engine.ready = true;
    if (!(params.features & IORING_FEAT_NODROP) || !(params.features & IORING_FEAT_EXT_ARG) ||
        !(params.features & IORING_FEAT_CQE_SKIP)) {
        ring_release();
        return error_set(
            error, -ENOSYS,
            "io_uring: this kernel lacks NODROP, EXT_ARG or CQE_SKIP; moongate needs Linux 6.1 or later");
    }
    io_uring_register_ring_fd(&engine.ring);  // saves a look-up per call; works without
    rc = buffers_init(options->receive_bytes, error);
    if (rc < 0) {
        ring_release();
        return rc;
    }
    clock_update();
    fault_arm();
    return 0;
}

void ring_release(void) {
    if (!engine.ready)
        return;
    io_uring_queue_exit(&engine.ring);
    buffers_release();
    fault_report();
    engine.ready = false;
}

void ring_flush_later(struct ring_flush *flush) {
    if (!list_linked(&flush->link))
        list_push_back(&engine.flushes, &flush->link);
}

void ring_do_without(void) {
    list_init(&engine.flushes);
    list_init(&engine.later);
}

static void flush_all(void) {
    while (!list_empty(&engine.flushes)) {
        struct ring_flush *flush = container_of(engine.flushes.next, struct ring_flush, link);
        list_remove(&flush->link);
        flush->flush(flush);
    }
}

bool ring_flush_now(void) {
    bool any = !list_empty(&engine.flushes);
    flush_all();
    return any;
}

static void complete(const struct io_uring_cqe *cqe) {
    struct op *op = io_uring_cqe_get_data(cqe);
    if (!op)
        return;  // a cancel that found nothing, a close that failed: nobody waits
    struct completion c = { .more = cqe->flags & IORING_CQE_F_MORE };
    c.res = faults_completed(op, cqe->res, c.more);
    if (cqe->flags & IORING_CQE_F_BUFFER)
        c.span = buffers_received(op, cqe->res, cqe->flags);
    if (!c.more)
        op->pending = false;
    op->done(op, &c);
}

static unsigned handle_completions(void) {
    enum { BATCH = 64 };
    struct io_uring_cqe *cqes[BATCH];
    unsigned handled = 0, limit = io_uring_cq_ready(&engine.ring);
    while (handled < limit) {
        unsigned n = io_uring_peek_batch_cqe(&engine.ring, cqes, BATCH);
        if (n == 0)
            break;
        for (unsigned i = 0; i < n; i++) {
            engine.unhandled = limit > handled + i + 1 ? limit - (handled + i + 1) : 0;
            complete(cqes[i]);
        }
        io_uring_cq_advance(&engine.ring, n);
        handled += n;
    }
    return handled;
}

void ring_go_on_later(struct ring_later *later) {
    if (!list_linked(&later->link))
        list_push_back(&engine.later, &later->link);
}

// What the kernel has done but not posted yet counts too (TASKRUN): with DEFER_TASKRUN it waits for us.
bool ring_others_wait(void) {
    return engine.unhandled > 0 || (IO_URING_READ_ONCE(*engine.ring.sq.kflags) & IORING_SQ_TASKRUN);
}

// What puts itself off again meanwhile waits for another turn, and so do all when so many have put off so
// much that those who have just come would wait for them: the first in the list are the first then.
static void run_later(void) {
    enum { LATER_US = 250 };
    struct list now;
    list_init(&now);
    list_splice(&now, &engine.later);
    for (uint64_t begun = list_empty(&now) ? 0 : clock_us_now(); !list_empty(&now);) {
        struct ring_later *later = container_of(now.next, struct ring_later, link);
        list_remove(&later->link);
        later->run(later);
        if (!list_empty(&now) && clock_us_now() - begun >= LATER_US)
            break;
    }
    list_splice(&now, &engine.later);
    list_splice(&engine.later, &now);
}

int ring_turn(uint64_t max_wait_ms) {
    flush_all();
    uint64_t wait = faults_turn() || buffers_to_feed() || !list_empty(&engine.later) ? 0 : timer_next_ms();
    if (wait > max_wait_ms)
        wait = max_wait_ms;
    struct __kernel_timespec limit = { .tv_sec = (int64_t)(wait / 1000),
                                       .tv_nsec = (int64_t)(wait % 1000) * 1000000 };
    struct io_uring_cqe *cqe;
    int rc = io_uring_submit_and_wait_timeout(&engine.ring, &cqe, wait == 0 ? 0 : 1, &limit, NULL);
    if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
        return rc;
    if (io_uring_sq_ready(&engine.ring) == 0)
        op_submitted();
    if (wait == 0)
        io_uring_get_events(&engine.ring);  // nothing to wait for, but deferred work must run
    clock_update();
    counters->ring_turns++;
    handle_completions();
    run_later();
    timer_run();
    buffers_feed();
    return 0;
}

int ring_print_features(void (*print)(void *to, const char *line), void *to) {
    struct error error;
    struct io_uring_params params = { .flags = setup_flags(), .cq_entries = 16 };
    int lines = 0;
    int rc = engine.ready ? -EBUSY : io_uring_queue_init_params(8, &engine.ring, &params);
    if (rc < 0) {
        explain(rc, &error);
        print(to, error.text);
        return 1;
    }
    struct io_uring_probe *probe = io_uring_get_probe_ring(&engine.ring);
    // Incremental buffer rings cannot be asked for: a group is registered and given up again.
    struct ring_options options = { .receive_bytes = 0 };
    bool inc = buffers_init(options.receive_bytes, &error) == 0 && buffers_incremental();
    const struct {
        const char *name, *meaning;
        bool has;
    } features[] = {
        { "single issuer, deferred task work", "completions run when the worker waits", true },
        { "no dropped completions", "an overflowing completion queue is kept by the kernel",
          params.features & IORING_FEAT_NODROP },
        { "wait with time-out argument", "one system call a turn", params.features & IORING_FEAT_EXT_ARG },
        { "skipped completions", "closing and cancelling cost no completion",
          params.features & IORING_FEAT_CQE_SKIP },
        { "zero-copy send", "SEND_ZC", probe && io_uring_opcode_supported(probe, 47) },
        { "incremental receive buffers", "Linux 6.12; large buffers are filled piece by piece", inc },
    };
    for (size_t i = 0; i < sizeof features / sizeof *features; i++, lines++) {
        char line[160];
        snprintf(line, sizeof line, "%s: %s (%s)", features[i].name, features[i].has ? "yes" : "no",
                 features[i].meaning);
        print(to, line);
    }
    free(probe);
    io_uring_queue_exit(&engine.ring);
    buffers_release();
    return lines;
}
