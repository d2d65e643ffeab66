// SPDX-License-Identifier: BSD-2-Clause
// Sessions of TLS 1.2 clients that take no tickets: such a client names its session by an id (RFC 5246, 7.3),
// and what the id stands for has to be kept here. It is kept in memory that the master shares (vault.h), so
// that any worker resumes it, after a reload or a death, too. For the files of src/tls/ alone, and the
// master.
//
// Who can read that memory can read what was sent: as with the keys of tickets it gets into no core file, and
// a session is in it for as long as it may be resumed (session_timeout), or until there is no more room.
#ifndef MOONGATE_TLS_SESSIONS_H
#define MOONGATE_TLS_SESSIONS_H

#include "base/error.h"

#include <stddef.h>

struct ssl_ctx_st;

// By the master, before it forks. 0 bytes: no sessions are kept.
int sessions_share(size_t bytes, struct error *error) __attribute__((warn_unused_result));
// Sessions of this context are kept, and resumed.
void sessions_use(struct ssl_ctx_st *ctx);

#endif
