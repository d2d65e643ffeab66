// SPDX-License-Identifier: BSD-2-Clause
// Request targets (RFC 9112, 3.2) and the normalised path that routes and rules look at. Pure functions,
// fuzzed.
#ifndef MOONGATE_HTTP_TARGET_H
#define MOONGATE_HTTP_TARGET_H

#include "http/message.h"

// Splits request->target into raw_path, query, scheme and authority (absolute form) and fills in path. For
// CONNECT and "*" the path is the target. 0, or -EINVAL with a reason in *ret_why.
int target_parse(struct request *request, struct arena *arena, const char **ret_why)
    __attribute__((warn_unused_result));

// Percent-decodes once, removes dot segments, joins repeated slashes. The result begins with '/' and never
// leads above it. -EINVAL for bad or NUL percent-encoding, controls and non-ASCII on the wire; -ENOMEM.
int path_normalise(struct slice raw, struct arena *arena, struct slice *ret_path)
    __attribute__((warn_unused_result));

// host [ ":" port ] of RFC 9110, 7.2: registered name, IPv4, or bracketed IPv6; no userinfo; empty is allowed
// for Host.
bool authority_valid(struct slice authority);

#endif
