// SPDX-License-Identifier: BSD-2-Clause
// Writes to the standing of servers (proxy/standing.h), which workers read at their next choice. It holds
// until it is set again, beyond reloads.
#include "proc/servers.h"

#include "proc/master.h"
#include "proxy/standing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHT_MAX = 256 };

struct wish {
    bool weighs;
    uint32_t weight;  // 0: as configured
    enum standing_admin admin;
};

static bool parse_admin(const char *word, enum standing_admin *ret_admin) {
#define X(name, doc)                  \
    if (strcmp(word, #name) == 0) {   \
        *ret_admin = ADMIN_##name;    \
        return true;                  \
    }
    STANDING_ADMINS(X)
#undef X
    return false;
}

static int parse(const char *verb, const char *number, struct wish *wish, struct error *result) {
    *wish = (struct wish){ 0 };
    if (!*number && parse_admin(verb, &wish->admin))
        return 0;
    if (strcmp(verb, "weight") != 0 || !*number)
        return error_set(result, -EINVAL,
                         "expected set server UPSTREAM/ADDRESS and one of: weight N, weight default, up, drain, down");
    wish->weighs = true;
    if (strcmp(number, "default") == 0)
        return 0;
    char *end;
    unsigned long weight = strtoul(number, &end, 10);
    if (*end || number[0] < '0' || number[0] > '9' || weight < 1 || weight > WEIGHT_MAX)
        return error_set(result, -EINVAL, "\"%s\" is not a weight, expected a number from 1 to %d or default",
                         number, WEIGHT_MAX);
    wish->weight = (uint32_t)weight;
    return 0;
}

static void grant(struct standing *standing, const struct wish *wish) {
    if (wish->weighs)
        atomic_store(&standing->weight, wish->weight);
    else
        atomic_store(&standing->admin, (uint32_t)wish->admin);
}

// What the upstream has, as far as it fits.
static int unknown(const struct master *master, const char *upstream, const char *server, struct error *result) {
    char list[300];
    size_t len = 0;
    struct standing_report at;
    for (unsigned position = 0; standings_read(master->standings, &position, &at);)
        if (strcmp(at.upstream, upstream) == 0 && len < sizeof list)
            len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", len > 0 ? ", " : "", at.server);
    if (len == 0)
        return error_set(result, -ENOENT, "no upstream \"%s\" with servers, moongatectl show upstreams lists them",
                         upstream);
    return error_set(result, -ENOENT, "upstream \"%s\" has no server \"%s\", expected one of: %s%s", upstream, server,
                     list, len >= sizeof list ? " ..." : "");
}

int servers_set(struct master *master, const char *words, struct error *result) {
    char text[512], *rest;
    int len = snprintf(text, sizeof text, "%s", words);
    char *subject = strtok_r(text, " ", &rest);
    const char *verb = strtok_r(NULL, " ", &rest), *number = strtok_r(NULL, " ", &rest);
    char *slash = subject ? strchr(subject, '/') : NULL;
    struct wish wish;
    if (len < 0 || (size_t)len >= sizeof text || !slash || !verb || strtok_r(NULL, " ", &rest))
        verb = "";
    int rc = parse(verb, number ? number : "", &wish, result);
    if (rc < 0)
        return rc;
    *slash = 0;
    const char *server = slash + 1;
    unsigned count = 0;
    struct standing_report at;
    for (unsigned position = 0; standings_read(master->standings, &position, &at);)
        if (strcmp(at.upstream, subject) == 0 && (strcmp(server, "*") == 0 || strcmp(at.server, server) == 0)) {
            grant(at.standing, &wish);
            count++;
        }
    if (count == 0)
        return unknown(master, subject, server, result);
    error_set(result, 0, "%u server%s of upstream \"%s\" set", count, count == 1 ? "" : "s", subject);
    return 0;
}
