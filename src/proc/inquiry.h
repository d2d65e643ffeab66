// SPDX-License-Identifier: BSD-2-Clause
// What only the workers know, for moongatectl: the names in the caches of their resolvers. The master asks all of them at
// once (channel.h: ASK), each writes what it knows to a file in memory (TELL), and when all have, or after a while, whoever
// waits for it is called. A worker that is busy, hangs or dies meanwhile has said nothing.
#ifndef MOONGATE_PROC_INQUIRY_H
#define MOONGATE_PROC_INQUIRY_H

#include "base/timer.h"
#include "proc/channel.h"

#include <stdbool.h>
#include <stddef.h>

struct generation;
struct worker;

// Bytes of one worker's answer; what is beyond is left out.
enum { INQUIRY_TEXT_MAX = 2 << 20 };

struct inquiry {
    void (*done)(void);
    struct inquiry_answer {
        bool awaited;
        char *text;          // as resolver_print() writes it, nothing but printable characters, tabs and ends of lines;
                             // NULL: the worker was not asked, or has not answered
        size_t len;
    } *answers;              // by worker, while one is under way and within done(); NULL: none is
    unsigned count;
    uint64_t number;         // of the question
    struct timer patience;
};

// done: at the end of each inquiry; the answers are valid during the call.
void inquiry_init(struct inquiry *inquiry, void (*done)(void));
// Asks, unless one is under way already.
void inquiry_start(struct inquiry *inquiry, struct worker *workers, unsigned count);
// A worker has answered. fd: the caller's, -1 for none.
void inquiry_told(struct inquiry *inquiry, unsigned worker, uint64_t number, int fd);
// A worker is dead.
void inquiry_lost(struct inquiry *inquiry, unsigned worker);

// In the worker. generation: in use, or NULL.
void inquiry_answer(struct channel *channel, uint64_t number, const struct generation *generation);

#endif
