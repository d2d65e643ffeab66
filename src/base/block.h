// SPDX-License-Identifier: BSD-2-Clause
// Bytes on their way through the proxy.
//   block  a counted piece of memory: on the heap, or one of the ring's receive buffers (then release() gives
//          it back)
//   span   a part of a block with a reference on it: the unit that is passed on without a copy
//   queue  spans in order: what waits for a parser, for an upstream or for a socket
// Whoever holds a span holds a reference; passing a span to a function that "takes" it passes the reference
// on.
#ifndef MOONGATE_BASE_BLOCK_H
#define MOONGATE_BASE_BLOCK_H

#include "base/slice.h"

#include <sys/uio.h>

struct block {
    char *base;
    uint32_t size;
    uint32_t used;  // heap blocks: bytes written from base on; appending goes here
    uint32_t refs;
    bool scarce;    // a receive buffer: what has to wait is copied out of it (queue_unpin)
    void (*release)(struct block *block);  // called with the last reference
};

enum {
    BLOCK_SMALL = 4096 - 64,    // heads, small bodies
    BLOCK_LARGE = 65536 - 64,   // bulk that was copied out
};

// A heap block of at least `size` bytes with one reference; the two usual sizes are recycled. NULL when
// memory is out.
struct block *block_new(size_t size) __attribute__((warn_unused_result));

static inline void block_ref(struct block *block) {
    block->refs++;
}
static inline void block_unref(struct block *block) {
    if (--block->refs == 0)
        block->release(block);
}

struct span {
    struct block *block;
    char *at;
    uint32_t len;
};

struct piece {
    struct piece *next;
    struct span span;
};

struct queue {
    struct piece *head, *tail;
    size_t bytes;
};

static inline void queue_init(struct queue *queue) {
    *queue = (struct queue){ 0 };
}
void queue_release(struct queue *queue);

static inline bool queue_empty(const struct queue *queue) {
    return queue->bytes == 0;
}

// Takes the span. Small spans are copied behind the last heap block when there is room, so that a head and a
// short body leave in one piece. -ENOMEM: the span was released and the bytes are lost, the caller must end
// the stream.
int queue_put(struct queue *queue, struct span span) __attribute__((warn_unused_result));
// Takes the span as it is.
int queue_put_whole(struct queue *queue, struct span span) __attribute__((warn_unused_result));
int queue_copy(struct queue *queue, const void *at, size_t len) __attribute__((warn_unused_result));
// Room for `len` contiguous bytes (at most BLOCK_LARGE) at the queue's end, to be written and then counted
// with queue_wrote() before anything else happens to the queue. NULL when memory is out.
char *queue_reserve(struct queue *queue, size_t len);
void queue_wrote(struct queue *queue, size_t len);

// The first span as a view; the reference stays with the queue. False when empty.
bool queue_peek(const struct queue *queue, struct slice *ret_view);
// Takes the first span off the queue; the caller holds the reference.
bool queue_take(struct queue *queue, struct span *ret_span);
// Takes the span and puts it back at the front.
int queue_unget(struct queue *queue, struct span span) __attribute__((warn_unused_result));
void queue_drop(struct queue *queue, size_t bytes);
// Moves everything to the end of another queue, joining nothing.
void queue_move(struct queue *to, struct queue *from);
// Moves the first `bytes`, of which there are so many at least; a span that is cut has a reference on both
// sides.
int queue_move_part(struct queue *to, struct queue *from, size_t bytes) __attribute__((warn_unused_result));
// Fills at most `max` vectors from the front; returns how many, and the bytes in them.
unsigned queue_vectors(const struct queue *queue, struct iovec *vectors, unsigned max, size_t *ret_bytes);
// Copies what lies in scarce blocks to the heap and gives these back, but for the pieces of the first `skip`
// bytes, which may be in the kernel's hands. On -ENOMEM the rest stays where it is.
int queue_unpin_behind(struct queue *queue, size_t skip) __attribute__((warn_unused_result));
static inline int queue_unpin(struct queue *queue) {
    return queue_unpin_behind(queue, 0);
}
// Whether a piece of the first `bytes` lies in a scarce block.
bool queue_pins(const struct queue *queue, size_t bytes);

#endif
