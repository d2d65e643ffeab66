// SPDX-License-Identifier: BSD-2-Clause
// Receive buffers lent to the kernel. On Linux 6.12 and later incremental ones: the kernel fills a buffer
// with many receives and says with BUF_MORE that it keeps it; elsewhere a receive takes a whole buffer. The
// kernel uses what it is lent in turn, the first one first, so all of it becomes resident sooner or later: as
// many buffers lie with the kernel as the load needs, and of the others the last one returned is lent first.
// A buffer is a block: one reference is the kernel's, one is each span's that is still held.
#include "ring/engine.h"

#include "base/check.h"
#include "base/counters.h"
#include "base/fault.h"
#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    WHOLE_SIZE = 64 * 1024,  // of buffers that one receive takes
};

// How large the buffers are, and how many lie with the kernel: the least, enough for one connection at full
// speed, and the most, enough for what comes in within a turn. Multishot receives bring heads and small
// bodies, and cannot be bounded otherwise; single ones bring bulk.
struct group_plan {
    unsigned size, least, most;
};
static const struct group_plan incremental_plans[GROUP_COUNT] = {
    [GROUP_MULTI] = { 64 * 1024, 2, 16 },
    [GROUP_ONCE] = { 256 * 1024, 1, 12 },
};
static const struct group_plan whole_plans[GROUP_COUNT] = {
    [GROUP_MULTI] = { WHOLE_SIZE, 4, UINT_MAX },
    [GROUP_ONCE] = { WHOLE_SIZE, 4, UINT_MAX },
};

enum { CALM_TURNS = 256 };  // with buffers to spare, before one fewer is lent

struct receive_buffer {
    struct block block;
    struct receive_buffer *next_free;
    uint32_t filled;
    uint16_t id;
    uint8_t group;
};

static struct group {
    struct io_uring_buf_ring *shared;  // with the kernel
    size_t shared_bytes;
    size_t size;  // of each buffer
    unsigned entries, count, lent;
    unsigned least, most, target;  // how many shall be lent
    unsigned taken, active;        // in this turn: buffers that were used up, receivers that had some or none
    bool missed;                   // in this turn one had none
    const struct op *last;         // of these receivers
    unsigned calm;                 // turns that had buffers to spare
    struct receive_buffer *buffers, *free;
    unsigned free_count;
    char *memory;
    size_t memory_bytes;
} groups[GROUP_COUNT];

static bool incremental;
static struct list starved[GROUP_COUNT];  // struct ring_starved, who waits for longest first

static void lend(struct group *group) {
    while (group->lent < group->target && group->free) {
        struct receive_buffer *buffer = group->free;
        group->free = buffer->next_free;
        group->free_count--;
        buffer->filled = 0;
        buffer->block.refs = 1;
        io_uring_buf_ring_add(group->shared, buffer->block.base, (unsigned)group->size, buffer->id,
                              io_uring_buf_ring_mask(group->entries), 0);
        io_uring_buf_ring_advance(group->shared, 1);
        group->lent++;
    }
}

static void give_back(struct block *block) {
    struct receive_buffer *buffer = container_of(block, struct receive_buffer, block);
    struct group *group = &groups[buffer->group];
    buffer->next_free = group->free;
    group->free = buffer;
    group->free_count++;
    lend(group);
}

static void note_active(struct group *group, const struct op *op) {
    group->active += op != group->last;
    group->last = op;
}

struct span buffers_received(const struct op *op, int res, unsigned cqe_flags) {
    struct group *group = &groups[op->group];
    unsigned id = cqe_flags >> IORING_CQE_BUFFER_SHIFT;
    check_fatal(id < group->count);
    struct receive_buffer *buffer = &group->buffers[id];
    struct span span = { NULL, NULL, 0 };
    note_active(group, op);
    if (res > 0) {
        check_fatal((size_t)res <= group->size - buffer->filled);
        span = (struct span){ &buffer->block, buffer->block.base + buffer->filled, (uint32_t)res };
        buffer->filled += (uint32_t)res;
        block_ref(&buffer->block);
    }
    if (!(cqe_flags & IORING_CQE_F_BUF_MORE)) {
        group->lent--;
        group->taken++;
        block_unref(&buffer->block);  // the kernel's
        lend(group);
    }
    return span;
}

bool ring_buffers_scarce(void) {
    for (int i = 0; i < GROUP_COUNT; i++)
        if (groups[i].free_count + groups[i].lent < groups[i].count / 2)
            return true;
    return false;
}

// Who waits while there is a reserve is helped at the turn's end.
bool ring_buffers_awaited(void) {
    for (int i = 0; i < GROUP_COUNT; i++)
        if (!list_empty(&starved[i]) && !groups[i].free)
            return true;
    return false;
}

bool buffers_incremental(void) {
    return incremental;
}

void ring_wait_buffers(struct ring_starved *who, const struct op *op) {
    struct group *group = &groups[op->group];
    note_active(group, op);
    group->missed = true;
    if (!group->free)
        counters->buffers_starved++;
    if (!list_linked(&who->link))
        list_push_back(&starved[op->group], &who->link);
}

// Each receiver of a turn in which the buffers did not suffice shall have its own least. One alone that took
// them all, at full speed, has them again in the next turn.
static void adapt(struct group *group) {
    if (group->missed && group->least * group->active > group->target)
        group->target = group->least * group->active < group->most ? group->least * group->active : group->most;
    if (group->missed || group->taken + 2 > group->target) {
        group->calm = 0;
    } else if (group->target > group->least && ++group->calm >= CALM_TURNS) {
        group->target--;
        group->calm = 0;
    }
    group->taken = group->active = 0;
    group->missed = false;
    group->last = NULL;
    lend(group);
}

// A bulk receive may use up a whole buffer: no more of them are woken than there are buffers, in turn, or all
// would try and most fail again. Whoever finds its socket empty leaves its buffer to the next, who is woken a
// turn later.
void buffers_feed(void) {
    for (int i = 0; i < GROUP_COUNT; i++) {
        adapt(&groups[i]);
        unsigned budget = i == GROUP_ONCE ? groups[i].lent : groups[i].lent > 0 ? UINT_MAX : 0;
        struct list waiting;
        list_init(&waiting);
        list_splice(&waiting, &starved[i]);
        while (!list_empty(&waiting) && budget > 0) {
            struct ring_starved *who = container_of(waiting.next, struct ring_starved, link);
            list_remove(&who->link);
            who->fed(who);
            budget--;
        }
        list_splice(&starved[i], &waiting);
    }
}

bool buffers_to_feed(void) {
    for (int i = 0; i < GROUP_COUNT; i++)
        if (groups[i].lent > 0 && !list_empty(&starved[i]))
            return true;
    return false;
}

static int register_ring(struct group *group, int id, unsigned flags) {
    struct io_uring_buf_reg reg = {
        .ring_addr = (uintptr_t)group->shared,
        .ring_entries = group->entries,
        .bgid = (uint16_t)id,
    };
    reg.pad = (uint16_t)flags;  // named `flags` by later kernels
    return io_uring_register_buf_ring(&engine.ring, &reg, 0);
}

static int group_init(struct group *group, int id, size_t bytes, struct error *error) {
    group->entries = 1;
    const struct group_plan *plan = incremental ? &incremental_plans[id] : &whole_plans[id];
    group->size = plan->size;
    group->count = (unsigned)(bytes / group->size);
    if (group->count < 8)
        group->count = 8;
    group->target = group->least = plan->least;
    group->most = plan->most < group->count ? plan->most : group->count;
    while (group->entries < group->count)
        group->entries *= 2;
    group->shared_bytes = group->entries * sizeof(struct io_uring_buf);
    group->shared =
        mmap(NULL, group->shared_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    group->memory_bytes = group->count * group->size;
    group->memory =
        mmap(NULL, group->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    group->buffers = calloc(group->count, sizeof *group->buffers);
    if (group->shared == MAP_FAILED || group->memory == MAP_FAILED || !group->buffers)
        return error_set(error, -ENOMEM, "no memory for %zu bytes of receive buffers (receive_buffers)",
                         bytes);
    io_uring_buf_ring_init(group->shared);
    int rc = register_ring(group, id, incremental ? IOU_PBUF_RING_INC : 0);
    if (rc < 0)
        return error_set(error, rc, "registering receive buffers: %s", strerror(-rc));
    for (unsigned i = group->count; i-- > 0;) {
        struct receive_buffer *buffer = &group->buffers[i];
        buffer->block = (struct block){ .base = group->memory + i * group->size,
                                        .size = (uint32_t)group->size,
                                        .used = (uint32_t)group->size,
                                        .scarce = true,
                                        .release = give_back };
        buffer->id = (uint16_t)i;
        buffer->group = (uint8_t)id;
        buffer->next_free = group->free;
        group->free = buffer;
        group->free_count++;
    }
    lend(group);
    return 0;
}

// Whether the kernel takes incremental buffer rings: registering a tiny one tells. The environment can say
// no, so that the way of older kernels is tested on newer ones: MOONGATE_RING_WITHOUT=incremental.
static bool probe_incremental(void) {
    const char *without = getenv("MOONGATE_RING_WITHOUT");
    if (without && strstr(without, "incremental"))
        return false;
    struct group trial = { .entries = 1, .shared_bytes = 4096 };
    trial.shared = mmap(NULL, trial.shared_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (trial.shared == MAP_FAILED)
        return false;
    io_uring_buf_ring_init(trial.shared);
    bool works = register_ring(&trial, GROUP_COUNT, IOU_PBUF_RING_INC) == 0;
    if (works)
        io_uring_unregister_buf_ring(&engine.ring, GROUP_COUNT);
    munmap(trial.shared, trial.shared_bytes);
    return works;
}

int buffers_init(size_t bytes, struct error *error) {
    for (int i = 0; i < GROUP_COUNT; i++)
        list_init(&starved[i]);
    incremental = probe_incremental();
    for (int i = 0; i < GROUP_COUNT; i++) {
        int rc = group_init(&groups[i], i, bytes / 2, error);
        if (rc < 0)
            return rc;
    }
    return 0;
}

// The only references left should be the kernel's own.
static void tell_held(const struct group *group) {
    unsigned held = 0;
    for (unsigned i = 0; i < group->count; i++)
        held += group->buffers[i].block.refs;
    if (held > group->lent)
        log_error("%u receive buffers did not come back", held - group->lent);
}

void buffers_release(void) {
    for (int i = 0; i < GROUP_COUNT; i++) {
        struct group *group = &groups[i];
        if (FAULTS_BUILT && group->buffers)
            tell_held(group);
        if (group->memory && group->memory != MAP_FAILED)
            munmap(group->memory, group->memory_bytes);
        if (group->shared && group->shared != MAP_FAILED)
            munmap(group->shared, group->shared_bytes);
        free(group->buffers);
        *group = (struct group){ 0 };
    }
}
