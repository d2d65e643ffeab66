// SPDX-License-Identifier: BSD-2-Clause
// Which fault happens when (fault.h), and the functions of libc that fail. The linker puts these in the place of malloc
// and the others for our own calls (configure.ac), so that no source asks.
#include "base/fault.h"

#ifdef MOONGATE_FAULTS

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const char *const names[] = {
#define X(name, doc) #name,
    FAULTS(X)
#undef X
};

static unsigned one_in[FAULT_COUNT], hits[FAULT_COUNT];
static uint64_t state = 1;
static bool armed;
static unsigned sweep;  // by how many allocations the next one is later, 0: there is no sweep
static unsigned countdown;  // allocations until the one that fails, 0: none
static bool failed;
static unsigned clients;

uint32_t fault_random(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

bool fault_hit(enum fault_kind kind) {
    bool hit = armed && one_in[kind] > 0 && fault_random(one_in[kind]) == 0;
    hits[kind] += hit;
    return hit;
}

unsigned fault_number(const char *name, unsigned otherwise) {
    const char *text = getenv("MOONGATE_FAULTS");
    size_t len = strlen(name);
    for (const char *at = text; at && (at = strstr(at, name)); at += len)
        if ((at == text || at[-1] == ' ') && at[len] == '=')
            return (unsigned)strtoul(at + len + 1, NULL, 10);
    return otherwise;
}

void fault_arm(void) {
    for (int i = 0; i < FAULT_COUNT; i++)
        one_in[i] = fault_number(names[i], 0);
    state = fault_number("seed", 1);
    sweep = fault_number("alloc_sweep", 0);
    armed = true;
}

void fault_report(void) {
    for (int i = 0; i < FAULT_COUNT; i++)
        if (one_in[i] > 0)
            log_notice("fault: %s %u times", names[i], hits[i]);
}

bool fault_alloc_at(unsigned n) {
    bool before = failed;
    countdown = n;
    failed = false;
    return before;
}

static unsigned sweep_at(void) {
    return clients / 2 * sweep + 1;
}

void fault_client_came(void) {
    clients++;
    if (sweep)
        fault_alloc_at(clients % 2 ? sweep_at() : 0);
}

static bool alloc_fails(void) {
    if (countdown > 0 && --countdown == 0) {
        failed = true;
        if (sweep)
            log_notice("fault: allocation %u fails", sweep_at());
    } else if (clients == 0 || !fault_hit(FAULT_alloc)) {
        return false;
    }
    errno = ENOMEM;
    return true;
}

// The linker's names.
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *at, size_t size);
char *__real_strdup(const char *text);
int __real_socket(int family, int type, int protocol);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *at, size_t size);
char *__wrap_strdup(const char *text);
int __wrap_socket(int family, int type, int protocol);

void *__wrap_malloc(size_t size) {
    return alloc_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size) {
    return alloc_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *at, size_t size) {
    return alloc_fails() ? NULL : __real_realloc(at, size);
}

char *__wrap_strdup(const char *text) {
    return alloc_fails() ? NULL : __real_strdup(text);
}

int __wrap_socket(int family, int type, int protocol) {
    if (!fault_hit(FAULT_socket))
        return __real_socket(family, type, protocol);
    errno = fault_random(2) ? EMFILE : ENFILE;
    return -1;
}

#endif
