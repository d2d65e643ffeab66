// SPDX-License-Identifier: BSD-2-Clause
// Whom the workers become, on which core they run, and how many descriptors they may have. Asked by the
// master once, used in each worker after fork.
#ifndef MOONGATE_PROC_PRIVILEGES_H
#define MOONGATE_PROC_PRIVILEGES_H

#include "base/error.h"
#include "conf/conf.h"

#include <sys/types.h>

struct identity {
    bool change;  // false: not started by root, everything stays as it is
    uid_t uid;
    gid_t gid;
    char name[64];
};

// Looks `user` and `group` up when started by root; -EINVAL with a hint when there is no such one.
int identity_find(const struct conf *conf, struct identity *ret_identity, struct error *error)
    __attribute__((warn_unused_result));
// Becomes it for good: groups, ids, no_new_privs. Then dies with `parent` when that is not 0.
int identity_assume(const struct identity *identity, pid_t parent, struct error *error)
    __attribute__((warn_unused_result));

enum { CPU_MAX = 1024 };
// The cores that this process may use, in order; at most CPU_MAX. Returns how many, at least 1 (then perhaps
// {-1}).
unsigned cpus_allowed(int ret_cpus[CPU_MAX]);
// -1: any core.
void cpu_pin(int cpu);

// Raises the limit of descriptors to `need`, as far as allowed. Returns what it is then.
uint64_t descriptors_raise(uint64_t need);

#endif
