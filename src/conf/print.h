// SPDX-License-Identifier: BSD-2-Clause
// The configuration and its directives as text: moongate -T, moongate --defaults, and the lists of
// moongate.conf(5). All of it is printed from conf/directives.h.
#ifndef MOONGATE_CONF_PRINT_H
#define MOONGATE_CONF_PRINT_H

#include "conf/conf.h"

#include <stdio.h>

// What is in effect: valid input, without includes and environment variables, with absolute paths. In
// frontends and routes stand the settings that differ from what they would inherit.
void conf_print(const struct conf *conf, FILE *out);

// Every directive with its documentation and default, as a valid configuration file with an example upstream
// and frontend.
void conf_print_defaults(FILE *out);

// mdoc(7): a subsection with a list for each group of directives, for moongate.conf(5).
void conf_print_man(FILE *out);

#endif
