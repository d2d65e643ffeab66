// SPDX-License-Identifier: BSD-2-Clause
// Which addresses a name may stand for (route_allow). Asked about names that scripts give, which may come
// from requests; by address.c, and by whatever else connects to what a name resolves to.
#ifndef MOONGATE_PROXY_ALLOW_H
#define MOONGATE_PROXY_ALLOW_H

#include "base/addr.h"
#include "conf/conf.h"

bool allow_addr(const struct conf_allow *allow, const struct addr *addr);

#endif
