// SPDX-License-Identifier: BSD-2-Clause
// A table of host names with wildcards: "*.example.com" stands for every name with one label before
// ".example.com" (RFC 6125, 6.4.3). Names are compared without case. Made by server.c.
#ifndef MOONGATE_TLS_NAMES_H
#define MOONGATE_TLS_NAMES_H

#include "base/slice.h"

struct names;

struct names *names_new(void);
void names_free(struct names *names);  // NULL is allowed
// The value of this very name, wildcards as they are written; -ENOMEM.
int names_add(struct names *names, struct slice name, void *value) __attribute__((warn_unused_result));
bool names_has(const struct names *names, struct slice name);
// The value for a host: of its own name, else of the wildcard that fits. A dot at the end does not count.
void *names_find(const struct names *names, struct slice host);
// Whether a name of a certificate, maybe a wildcard, is that of the host.
bool name_fits(struct slice name, struct slice host);

#endif
