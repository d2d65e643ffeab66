// SPDX-License-Identifier: BSD-2-Clause
// Connections that are made before they are needed: `keepalive ... warm=N` of an upstream. Begun and stopped
// with its generation.
#ifndef MOONGATE_PROXY_WARM_H
#define MOONGATE_PROXY_WARM_H

#include "proxy/upstream.h"

void warm_init(struct upstream *upstream);
void warm_start(struct upstream *upstream);  // nothing where the configuration asks for none
void warm_stop(struct upstream *upstream);   // what there is stays

#endif
