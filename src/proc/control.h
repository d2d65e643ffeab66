// SPDX-License-Identifier: BSD-2-Clause
// The control socket, on which moongatectl (or anybody with netcat and the right) talks to the master. A
// connection carries one request and its reply:
//
//   request   one line of at most 200 bytes: a command, and " json" for a reply as JSON
//   reply     a line "ok" or "error", then text (or JSON) to the end of the connection
//
//   reload             ok when all workers use the new configuration; error: the old one goes on
//   stop | quit        ok when the last worker has ended
//   reopen             opens the log files again
//   show workers | stats | metrics | generations | upstreams | dns    dns: when the workers have answered
//   upgrade            an error in this version
//
// To add a command: a row in the table of control.c; what it prints goes to report.c.
#ifndef MOONGATE_PROC_CONTROL_H
#define MOONGATE_PROC_CONTROL_H

#include "base/error.h"
#include "base/list.h"
#include "proc/loop.h"

#include <stdbool.h>

struct master;

struct control {
    struct watch watch;
    struct list clients;   // struct control_client, of control.c
    unsigned client_count;
    char *path;            // NULL: not open
};

void control_init(struct control *control);
// Makes the socket, with mode 0600. A socket that nobody answers at is replaced.
int control_open(struct control *control, const char *path, struct error *error)
    __attribute__((warn_unused_result));
// The end of the master: those who wait for it are answered; the socket is removed.
void control_release(struct control *control);

// The workers have answered (inquiry.h); those who wait for that get their report.
void control_told(void);

// The reload that was under way has ended: its result goes to those who asked for it. Those who asked later
// wait for the next.
void control_reloaded(struct control *control, bool ok, const char *text);

#endif
