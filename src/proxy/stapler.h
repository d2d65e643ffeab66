// SPDX-License-Identifier: BSD-2-Clause
// Asks for the OCSP responses of a generation's certificates (tls/ocsp.h), while it is in use: a timer looks
// whose time has come and which of the workers it is for, and the request is an exchange without a client, as
// those of scripts are, so that nothing waits for it. The generation (proc/) owns it.
#ifndef MOONGATE_PROXY_STAPLER_H
#define MOONGATE_PROXY_STAPLER_H

#include "proxy/frontend.h"

struct stapler;

// Takes on the certificates of a frontend; makes *stapler when it is NULL and there are any.
int stapler_add(struct stapler **stapler, struct frontend *frontend, struct error *error)
    __attribute__((warn_unused_result));
void stapler_go(struct stapler *stapler);
// What is under way is given up.
void stapler_stop(struct stapler *stapler);
void stapler_free(struct stapler *stapler);  // stopped, or never begun; NULL is allowed

#endif
