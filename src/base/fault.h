// SPDX-License-Identifier: BSD-2-Clause
// Faults on purpose, in builds with --enable-faults alone (a sanitizer build has them): memory that runs out, descriptors
// that run out, and what the ring makes of operations (ring/faults.c). Others cost nothing and have none of this.
//
// The environment says which, MOONGATE_FAULTS="seed=7 short_send=3 alloc_sweep=1": after a kind stands one in how many
// of its occasions fails, chosen by a generator that the seed starts, so that a run of a worker can be repeated.
// Nothing fails before fault_arm(), which a worker calls when it has its ring; memory not before a client came.
//
// To add a kind: a row here, a question fault_hit(FAULT_...) where it may happen.
#ifndef MOONGATE_BASE_FAULT_H
#define MOONGATE_BASE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

//  X(name, documentation)
#define FAULTS(X) \
    X(recv_nobufs, "a receive finds no buffer (ENOBUFS)") \
    X(recv_short, "a receive takes one byte and ends, multishot or not") \
    X(once, "a multishot operation ends with its first completion") \
    X(again, "an operation ends with EINTR or EAGAIN and has done nothing") \
    X(canceled, "an operation ends with ECANCELED, which nobody asked for") \
    X(cancel_late, "a cancel reaches the kernel some turns later, when the operation may have ended") \
    X(cancel_early, "a cancel reaches the kernel before anything else of its turn") \
    X(send_short, "a send takes a few bytes") \
    X(write_short, "a write to a log takes one byte") \
    X(accept, "accepting fails for want of descriptors (EMFILE or ENFILE)") \
    X(socket, "socket() fails for want of descriptors") \
    X(alloc, "malloc() and its kind fail")

enum fault_kind {
#define X(name, doc) FAULT_##name,
    FAULTS(X)
#undef X
    FAULT_COUNT
};

#ifdef MOONGATE_FAULTS
enum { FAULTS_BUILT = true };
// Whether it is to happen, now.
bool fault_hit(enum fault_kind kind);
uint32_t fault_random(uint32_t below);
// A number of the environment that is no kind: how many entries a queue has.
unsigned fault_number(const char *name, unsigned otherwise);
// From here on they happen, as the environment says.
void fault_arm(void);
// Says in the log how often each happened, so that a test knows that it tested something.
void fault_report(void);
// The n-th allocation from now on fails, once; 0: none will. True when the one of the last call has failed.
bool fault_alloc_at(unsigned n);
// With alloc_sweep=1 every second client that is accepted has one allocation fail after it came: the first such client
// the first one, the next the second, and so on; with alloc_sweep=10 the next the eleventh. Called for each.
void fault_client_came(void);
#else
enum { FAULTS_BUILT = false };
static inline bool fault_hit(enum fault_kind kind) {
    (void)kind;
    return false;
}
static inline unsigned fault_number(const char *name, unsigned otherwise) {
    (void)name;
    return otherwise;
}
static inline void fault_arm(void) {
}
static inline void fault_report(void) {
}
#endif

#endif
