// SPDX-License-Identifier: BSD-2-Clause
// Makes and tidies the memory that master and workers share (heritage.h). Called by the master.
#include "proc/heritage.h"

#include <sys/mman.h>

struct heritage_worker *heritage_map(unsigned count) {
    void *at = mmap(NULL, count * sizeof(struct heritage_worker), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

void heritage_unmap(struct heritage_worker *slots, unsigned count) {
    if (slots)
        munmap(slots, count * sizeof *slots);
}

void heritage_bury(struct heritage_worker *slot) {
    slot->counters.connections_active = 0;
    slot->counters.requests_active = 0;
    slot->counters.tls_handshakes_active = 0;
    slot->counters.upstream_idle = 0;
    slot->counters.tunnels_active = 0;
    slot->counters.scripts_active = 0;
    slot->counters.timers_active = 0;
    slot->counters.handles_active = 0;
    slot->counters.dns_lookups_active = 0;
    slot->counters.dns_entries_active = 0;
    slot->probe.script = 0;
    slot->probe.hook = 0;
    metrics_bury(slot->metrics, sizeof slot->metrics);
    slot->connections = 0;
    slot->lua_bytes = 0;
    for (int i = 0; i < HERITAGE_GENERATIONS; i++)
        slot->generations[i].id = 0;
}
