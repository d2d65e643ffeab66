// SPDX-License-Identifier: BSD-2-Clause
// A datagram socket of a script, for the files that know its inside: udp.c, wire.c and the made-up peers of
// tests.
#ifndef MOONGATE_SCRIPT_UDP_H
#define MOONGATE_SCRIPT_UDP_H

#include "script/socket.h"

struct udp {
    struct socket base;
    struct datagram *datagram;  // with a made-up peer NULL
    unsigned peer;              // its number
    struct socket_target target;
    struct addr addr;
    bool open;
    int failure;     // negative errno: it could not be opened
    uint64_t reader, writer;
    unsigned share;  // datagrams that may still be received before others get their turn
};

#endif
