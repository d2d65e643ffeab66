// SPDX-License-Identifier: BSD-2-Clause
// Numbers that stand for objects towards scripts. A handle of an object that is gone resolves to NULL, never
// to freed memory nor to another object: each slot counts its reuses. A handle fits a Lua number exactly (53
// bits) and is never 0.
#ifndef MOONGATE_BASE_HANDLE_H
#define MOONGATE_BASE_HANDLE_H

#include <stdint.h>

enum handle_kind {
    HANDLE_FREE, HANDLE_CONN, HANDLE_EXCHANGE, HANDLE_JOB, HANDLE_TASK, HANDLE_FETCH, HANDLE_RESOLUTION, HANDLE_TCP,
    HANDLE_UDP
};

// 0 when memory is out or 2^20 handles live.
uint64_t handle_new(enum handle_kind kind, void *object);
void *handle_get(enum handle_kind kind, uint64_t handle);
void handle_drop(uint64_t handle);  // 0 is allowed

#endif
