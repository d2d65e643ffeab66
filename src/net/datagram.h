// SPDX-License-Identifier: BSD-2-Clause
// A datagram socket that is connected to one address: UDP over IPv4 and IPv6, or unix. What arrives waits in
// the kernel, in a queue of bounded size (DATAGRAM_QUEUE), until it is received; what finds no room is lost,
// as datagrams may be. Used by script/wire.c.
//
// Who owns what: the datagram owns its descriptor and its operations; it belongs to its owner until
// datagram_close(), then to itself, until the last completion.
#ifndef MOONGATE_NET_DATAGRAM_H
#define MOONGATE_NET_DATAGRAM_H

#include "base/addr.h"

struct datagram;

enum {
    DATAGRAM_MAX = 65535,     // bytes of one that is received; UDP over IPv4 carries 65507
    DATAGRAM_QUEUE = 131072,  // bytes that wait in the kernel, its own records counted
};

// NULL with errno set. ready() is called once for each datagram_await(), from a turn, never at once; it may
// come for nothing.
struct datagram *datagram_open(const struct addr *to, void (*ready)(void *owner, bool output), void *owner)
    __attribute__((warn_unused_result));
// 0; -EAGAIN: there is no room, wait for output; or what the network said of this one or an earlier one:
// -ECONNREFUSED, -EMSGSIZE, ...
int datagram_send(struct datagram *datagram, const void *at, size_t len) __attribute__((warn_unused_result));
// 0 with the length, which may be 0; -EAGAIN: none is there, wait for input; -EMSGSIZE: it was longer than
// `room` and is lost; or what the network said of one that was sent.
int datagram_receive(struct datagram *datagram, void *at, size_t room, size_t *ret_len)
    __attribute__((warn_unused_result));
void datagram_await(struct datagram *datagram, bool output);
void datagram_close(struct datagram *datagram);  // NULL is allowed; ready() is not called any more

unsigned datagram_count(void);  // of this process, with those that drain

#endif
