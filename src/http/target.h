// SPDX-License-Identifier: BSD-2-Clause
// Request targets (RFC 9112, 3.2) and the normalised path that routes and rules look at. Pure functions,
// fuzzed.
#ifndef MOONGATE_HTTP_TARGET_H
#define MOONGATE_HTTP_TARGET_H

#include "http/message.h"

// Splits request->target into raw_path, query and authority (absolute form) and fills in path and doubts. For
// CONNECT and "*" the path is the target. 0; -EINVAL or -ENOMEM with a reason in *ret_why.
int target_parse(struct request *request, struct arena *arena, const char **ret_why)
    __attribute__((warn_unused_result));

// Percent-decodes once, removes dot segments, joins repeated slashes. The result begins with '/'. -EINVAL for
// what cannot mean one thing only: a bad percent-encoding, characters that belong encoded, encoded controls,
// dot segments that are encoded, bounded by an encoded slash or backslash or have parameters ("..;x"), and
// paths that lead above their root. -ENOMEM.
int path_normalise(struct slice raw, struct arena *arena, struct slice *ret_path)
    __attribute__((warn_unused_result));

// What servers read in different ways though it is allowed: bits of request.doubts.
enum path_doubt {
    PATH_EMPTY_SEGMENTS = 1,     // "//": one slash, or a segment without a name
    PATH_DOT_SEGMENTS = 2,       // "/./", "/../": removed, or names
    PATH_ENCODED_SLASH = 4,      // "%2f": a slash, or a character of a name
    PATH_ENCODED_BACKSLASH = 8,  // "%5c": likewise
};

// In how many ways a path with such doubts can be read: 1 without any, at most 12.
unsigned path_reading_count(unsigned doubts);
// The nth of them, n < path_reading_count(): the first is the normalised path; some may be equal. raw is one
// that target_parse() has taken; `to` has room for raw.len + 1 bytes and holds the result.
struct slice path_reading(struct slice raw, unsigned doubts, unsigned n, char *to);

// host [ ":" port ] of RFC 9110, 7.2, and stricter: the host is an IPv6 address in brackets (no zone), or
// letters, digits, "-", ".", "_" and "~" (DNS names and IPv4 addresses need no more, and what parsers make of
// the rest differs); the port is empty or 1 to 65535; no userinfo; not empty.
bool authority_valid(struct slice authority);

#endif
