// SPDX-License-Identifier: BSD-2-Clause
// Blocks and queues of block.h. One process, one thread: counts are plain integers.
#include "base/block.h"

#include "base/check.h"
#include "base/slab.h"

#include <errno.h>
#include <stdlib.h>

enum { COPY_BELOW = 1024 };  // a span this short is cheaper to copy than to send as a vector of its own

static struct slab small_slab = SLAB_INIT(sizeof(struct block) + BLOCK_SMALL, 512);
static struct slab large_slab = SLAB_INIT(sizeof(struct block) + BLOCK_LARGE, 16);
static struct slab piece_slab = SLAB_INIT(sizeof(struct piece), 1024);

static void release_small(struct block *block) {
    slab_put(&small_slab, block);
}
static void release_large(struct block *block) {
    slab_put(&large_slab, block);
}
static void release_odd(struct block *block) {
    free(block);
}

struct block *block_new(size_t size) {
    struct block *block;
    if (size <= BLOCK_SMALL) {
        block = slab_get(&small_slab);
        size = BLOCK_SMALL;
    } else if (size <= BLOCK_LARGE && size > BLOCK_LARGE / 4) {
        block = slab_get(&large_slab);
        size = BLOCK_LARGE;
    } else {  // between and beyond, exactly as much: what waits must not take more than it is
        block = size > UINT32_MAX - sizeof *block ? NULL : malloc(sizeof *block + size);
    }
    if (!block)
        return NULL;
    *block = (struct block){
        .base = (char *)(block + 1),
        .size = (uint32_t)size,
        .refs = 1,
        .release = size == BLOCK_SMALL ? release_small
            : size == BLOCK_LARGE      ? release_large
                                       : release_odd,
    };
    return block;
}

static void piece_free(struct piece *piece) {
    block_unref(piece->span.block);
    slab_put(&piece_slab, piece);
}

void queue_release(struct queue *queue) {
    struct piece *piece = queue->head;
    while (piece) {
        struct piece *next = piece->next;
        piece_free(piece);
        piece = next;
    }
    queue_init(queue);
}

static void piece_push(struct queue *queue, struct piece *piece) {
    piece->next = NULL;
    if (queue->tail)
        queue->tail->next = piece;
    else
        queue->head = piece;
    queue->tail = piece;
    queue->bytes += piece->span.len;
}

static struct piece *piece_pop(struct queue *queue) {
    struct piece *piece = queue->head;
    queue->head = piece->next;
    if (!queue->head)
        queue->tail = NULL;
    queue->bytes -= piece->span.len;
    return piece;
}

int queue_put_whole(struct queue *queue, struct span span) {
    struct piece *piece = slab_get(&piece_slab);
    if (!piece) {
        block_unref(span.block);
        return -ENOMEM;
    }
    piece->span = span;
    piece_push(queue, piece);
    return 0;
}

int queue_unget(struct queue *queue, struct span span) {
    struct piece *piece = slab_get(&piece_slab);
    if (!piece) {
        block_unref(span.block);
        return -ENOMEM;
    }
    piece->next = queue->head;
    piece->span = span;
    queue->head = piece;
    if (!queue->tail)
        queue->tail = piece;
    queue->bytes += span.len;
    return 0;
}

// Bytes that may be written right behind the last piece: only when it ends where its heap block's writing
// ended.
static size_t tail_room(const struct queue *queue) {
    if (!queue->tail)
        return 0;
    const struct span *span = &queue->tail->span;
    if (span->block->scarce || span->at + span->len != span->block->base + span->block->used)
        return 0;
    return span->block->size - span->block->used;
}

char *queue_reserve(struct queue *queue, size_t len) {
    if (tail_room(queue) < len || !queue->tail) {
        struct block *block = block_new(len);
        if (!block)
            return NULL;
        if (queue_put_whole(queue, (struct span){ block, block->base, 0 }) < 0)
            return NULL;
    }
    return queue->tail->span.at + queue->tail->span.len;
}

void queue_wrote(struct queue *queue, size_t len) {
    check_debug(tail_room(queue) >= len);
    queue->tail->span.len += (uint32_t)len;
    queue->tail->span.block->used += (uint32_t)len;
    queue->bytes += len;
}

int queue_copy(struct queue *queue, const void *at, size_t len) {
    const char *from = at;
    while (len > 0) {
        size_t room = tail_room(queue);
        if (room == 0) {
            size_t want = len <= BLOCK_SMALL ? BLOCK_SMALL : len < BLOCK_LARGE ? len : BLOCK_LARGE;
            if (!queue_reserve(queue, want))
                return -ENOMEM;
            room = want;
        }
        size_t n = len < room ? len : room;
        memcpy(queue->tail->span.at + queue->tail->span.len, from, n);
        queue_wrote(queue, n);
        from += n;
        len -= n;
    }
    return 0;
}

int queue_put(struct queue *queue, struct span span) {
    if (span.len == 0 || (span.len < COPY_BELOW && tail_room(queue) >= span.len)) {
        int rc = queue_copy(queue, span.at, span.len);
        block_unref(span.block);
        return rc;
    }
    return queue_put_whole(queue, span);
}

bool queue_peek(const struct queue *queue, struct slice *ret_view) {
    // Room that was reserved and never written is a piece without bytes.
    const struct piece *piece = queue->head;
    while (piece && piece->span.len == 0)
        piece = piece->next;
    if (!piece)
        return false;
    *ret_view = slice_make(piece->span.at, piece->span.len);
    return true;
}

bool queue_take(struct queue *queue, struct span *ret_span) {
    if (queue->bytes == 0)
        return false;
    while (queue->head->span.len == 0)
        piece_free(piece_pop(queue));
    struct piece *piece = piece_pop(queue);
    *ret_span = piece->span;
    slab_put(&piece_slab, piece);
    return true;
}

void queue_drop(struct queue *queue, size_t bytes) {
    check_fatal(bytes <= queue->bytes);
    while (queue->head && queue->head->span.len <= bytes) {
        bytes -= queue->head->span.len;
        piece_free(piece_pop(queue));
    }
    if (bytes > 0) {
        queue->head->span.at += bytes;
        queue->head->span.len -= (uint32_t)bytes;
        queue->bytes -= bytes;
    }
}

void queue_move(struct queue *to, struct queue *from) {
    if (!from->head)
        return;
    if (to->tail)
        to->tail->next = from->head;
    else
        to->head = from->head;
    to->tail = from->tail;
    to->bytes += from->bytes;
    queue_init(from);
}

int queue_move_part(struct queue *to, struct queue *from, size_t bytes) {
    check_fatal(bytes <= from->bytes);
    while (bytes > 0) {
        struct span *front = &from->head->span;
        if (front->len <= bytes) {
            struct piece *piece = piece_pop(from);
            bytes -= piece->span.len;
            if (piece->span.len >= COPY_BELOW || tail_room(to) < piece->span.len) {
                piece_push(to, piece);
                continue;
            }
            int rc = queue_put(to, piece->span);
            slab_put(&piece_slab, piece);
            if (rc < 0)
                return rc;
            continue;
        }
        block_ref(front->block);
        if (queue_put(to, (struct span){ front->block, front->at, (uint32_t)bytes }) < 0)
            return -ENOMEM;
        queue_drop(from, bytes);
        bytes = 0;
    }
    return 0;
}

unsigned queue_vectors(const struct queue *queue, struct iovec *vectors, unsigned max, size_t *ret_bytes) {
    unsigned n = 0;
    *ret_bytes = 0;
    for (struct piece *piece = queue->head; piece && n < max; piece = piece->next) {
        if (piece->span.len == 0)
            continue;
        vectors[n++] = (struct iovec){ piece->span.at, piece->span.len };
        *ret_bytes += piece->span.len;
    }
    return n;
}

bool queue_pins(const struct queue *queue, size_t bytes) {
    size_t at = 0;
    for (const struct piece *piece = queue->head; piece && at < bytes; piece = piece->next) {
        if (piece->span.block->scarce)
            return true;
        at += piece->span.len;
    }
    return false;
}

// Empties `queue` onto `heap`, copying what is scarce. On -ENOMEM the rest follows as it is.
static int move_unpinned(struct queue *heap, struct queue *queue) {
    int rc = 0;
    while (rc == 0 && queue->head) {
        struct span *span = &queue->head->span;
        if (!span->block->scarce) {
            piece_push(heap, piece_pop(queue));
            continue;
        }
        size_t before = heap->bytes;
        rc = queue_copy(heap, span->at, span->len);
        queue_drop(queue, heap->bytes - before);  // when memory ran out, what was copied until then
    }
    queue_move(heap, queue);
    return rc;
}

int queue_unpin_behind(struct queue *queue, size_t skip) {
    struct queue rest = *queue, done;
    struct piece *last = NULL;  // of those that stay
    queue_init(&done);
    for (size_t at = 0; rest.head && at < skip; rest.head = last->next) {
        last = rest.head;
        at += last->span.len;
        rest.bytes -= last->span.len;
    }
    if (!queue_pins(&rest, rest.bytes))
        return 0;
    int rc = move_unpinned(&done, &rest);
    if (!last) {
        *queue = done;
        return rc;
    }
    queue->bytes -= done.bytes;
    queue->tail = last;
    last->next = NULL;
    queue_move(queue, &done);
    return rc;
}
