// SPDX-License-Identifier: BSD-2-Clause
// Reads SRV records (RFC 2782) out of a DNS server's message, with their time to live, which c-ares's own
// reader does not tell. What comes from the network is believed as far as it is about the name that was asked
// for. Called by resolver_lookup.c.
#ifndef MOONGATE_NET_SERVICE_RECORD_H
#define MOONGATE_NET_SERVICE_RECORD_H

#include "net/resolver_cache.h"

// `message` is the answer to one question, which c-ares has compared with what it asked. The records of the
// name, by way of its aliases (CNAME), into `services` (DNS_SERVICES_MAX of them, the first by priority,
// target and port when there are more; each once), in that order; the shortest time of all records that led
// there. Returns DNS_none, DNS_no_service (there is none, or the only target is the root) or DNS_bad_answer;
// results are written with the first.
enum dns_failure dns_read_services(const uint8_t *message, size_t len, struct dns_service *services,
                                   unsigned *ret_count, uint32_t *ret_ttl_s);

#endif
