// SPDX-License-Identifier: BSD-2-Clause
// A relay: two conns, bytes both ways, nothing looked at. What upgrades (WebSocket) end in.
#ifndef MOONGATE_PROXY_RELAY_H
#define MOONGATE_PROXY_RELAY_H

#include "conf/conf.h"
#include "net/conn.h"

// Takes both conns and what was read from each but not passed on. ended(owner) is called once, when both are
// gone; settings must be valid until then.
void relay_start(struct conn *client, struct queue *from_client, struct conn *server,
                 struct queue *from_server, const struct conf_settings *settings, void (*ended)(void *owner),
                 void *owner);
// Ends the worker's relays, those whose client is chosen.
void relay_close(bool (*chosen)(const struct conn *client), enum close_reason reason);
unsigned relay_count(void);

#endif
