// SPDX-License-Identifier: BSD-2-Clause
// Users, cores and limits (privileges.h). Called by the master before fork and by workers after it.
#include "proc/privileges.h"

#include "base/log.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

int identity_find(const struct conf *conf, struct identity *ret_identity, struct error *error) {
    struct identity identity = { .change = geteuid() == 0, .uid = geteuid(), .gid = getegid() };
    if (identity.change) {
        errno = 0;
        const struct passwd *user = getpwnam(conf->user);
        if (!user)
            return error_set(error, -EINVAL,
                             "%s: user \"%s\" does not exist; make it (adduser --system --group "
                             "--no-create-home %s) or name "
                             "another one with the directive `user`",
                             conf->file, conf->user, conf->user);
        identity.uid = user->pw_uid;
        identity.gid = user->pw_gid;
        if (conf->group) {
            const struct group *group = getgrnam(conf->group);
            if (!group)
                return error_set(error, -EINVAL, "%s: group \"%s\" of the directive `user` does not exist",
                                 conf->file, conf->group);
            identity.gid = group->gr_gid;
        }
    }
    snprintf(identity.name, sizeof identity.name, "%s", conf->user);
    *ret_identity = identity;
    return 0;
}

int identity_assume(const struct identity *identity, pid_t parent, struct error *error) {
    if (identity->change) {
        if (setgroups(1, &identity->gid) < 0 || setresgid(identity->gid, identity->gid, identity->gid) < 0 ||
            setresuid(identity->uid, identity->uid, identity->uid) < 0)
            return error_set(error, -errno, "cannot become user \"%s\": %s", identity->name, strerror(errno));
        // Changing ids cleared it; without it a crash leaves no core file and no debugger of that user may
        // attach.
        (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set(error, -errno, "cannot set no_new_privs: %s", strerror(errno));
    if (parent) {
        // After the change of ids, which would clear it too.
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        if (getppid() != parent)
            return error_set(error, -ESRCH, "the master is gone");
    }
    return 0;
}

unsigned cpus_allowed(int ret_cpus[CPU_MAX]) {
    cpu_set_t set;
    unsigned count = 0;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE && count < CPU_MAX; cpu++)
            if (CPU_ISSET(cpu, &set))
                ret_cpus[count++] = cpu;
    if (count == 0)
        ret_cpus[count++] = -1;
    return count;
}

void cpu_pin(int cpu) {
    cpu_set_t set;
    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        log_warn("cannot pin to core %d: %s", cpu, strerror(errno));
}

uint64_t descriptors_raise(uint64_t need) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    if (limit.rlim_cur >= need)
        return limit.rlim_cur;
    struct rlimit wanted = { .rlim_cur = need, .rlim_max = limit.rlim_max < need ? need : limit.rlim_max };
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
        return need;
    // Beyond the hard limit only with the right to: take all that is there.
    wanted = (struct rlimit){ .rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max };
    return setrlimit(RLIMIT_NOFILE, &wanted) == 0 ? limit.rlim_max : limit.rlim_cur;
}
