// SPDX-License-Identifier: BSD-2-Clause
// What sockets of scripts have in common: who has how many, who waits for them, what their failures are
// called. See socket.h.
#include "script/socket.h"

#include "base/counters.h"
#include "net/datagram.h"
#include "script/api_impl.h"
#include "script/tcp.h"

#include <errno.h>

const struct socket_wire *socket_wire = &wire_real;

static uint64_t allowed = UINT64_MAX;  // by the limit of descriptors

void script_sockets_bound(uint64_t most) {
    allowed = most;
}

// ---- failures ---------------------------------------------------------------------------------------------

int socket_failure(int error) {
    switch (-error) {
#define X(number, word, doc) \
    case number:             \
        mg_error("%s", word);  \
        return MG_NONE;
        SOCKET_FAILURES(X)
#undef X
    }
    mg_error("failed: %s", strerror(-error));
    return MG_NONE;
}

// ---- limits -----------------------------------------------------------------------------------------------

// What a spawned task opens is its request's (connection's, timer's): a parent outlives its children.
static unsigned *held_by(struct task *task) {
    while (task->job && task->job->parent)
        task = task->job->parent;
    if (task->x)
        return &exchange_record_of(task->x)->sockets;
    return task->conn ? &task->conn->sockets : &task->job->sockets;
}

static int refuse(const struct task *task, const char *directive, uint64_t most) {
    static struct log_limit limit;
    uint32_t suppressed;
    counters->script_sockets_limited++;
    if (log_limit_pass(&limit, 10, &suppressed))
        log_warn("script \"%s\": a socket was refused: %s allows %llu",
                 task->chain->scripts[task->at].conf->name, directive, (unsigned long long)most);
    mg_error("limit");
    return MG_NONE;
}

static int check_limits(struct task *task, const struct script_host *host, bool more) {
    const struct conf *conf = host->conf;
    if (*held_by(task) >= conf->script_sockets_each)
        return refuse(task, "script_sockets_each", conf->script_sockets_each);
    uint64_t most = conf->script_sockets < allowed ? conf->script_sockets : allowed;
    // Idle ones make room; their descriptors are closed at the turn's end.
    if (more && tcp_conn_count() + datagram_count() >= most && !tcp_pool_shed())
        return refuse(task, "script_sockets", most);
    return MG_OK;
}

// ---- owners -----------------------------------------------------------------------------------------------

int socket_take(struct socket *socket, enum handle_kind kind, void *object, bool more) {
    struct task *task = task_running;
    list_init(&socket->link);
    if (!task)
        return mg_error("sockets are for hooks, timers and tasks: a script must not wait while it loads");
    int rc = check_limits(task, task->chain->host, more);
    if (rc != MG_OK)
        return rc;
    socket->host = task->chain->host;
    socket->kind = kind;
    socket->id = handle_new(kind, object);
    if (!socket->id)
        return socket_failure(-ENOMEM);
    socket->held = held_by(task);
    ++*socket->held;
    list_push_back(&task->sockets, &socket->link);
    counters->script_sockets_active++;
    return MG_OK;
}

void socket_leave(struct socket *socket) {
    if (!socket->id)
        return;
    handle_drop(socket->id);
    socket->id = 0;
    --*socket->held;
    socket->held = NULL;
    list_remove(&socket->link);
    counters->script_sockets_active--;
}

void sockets_end(struct list *sockets) {
    list_each(link, sockets) {
        struct socket *socket = container_of(link, struct socket, link);
        (socket->kind == HANDLE_TCP ? tcp_end : udp_end)(socket);
    }
}

// ---- waiting ----------------------------------------------------------------------------------------------

int socket_await(uint64_t *waiter) {
    uint64_t ticket = task_running ? task_ticket(task_running) : 0;
    if (!ticket)
        return mg_error("nothing could wake it");
    if (*waiter && *waiter != ticket && handle_get(HANDLE_TASK, *waiter))
        return mg_error("another task waits for this socket already");
    *waiter = ticket;
    return MG_WAIT;
}

void socket_wake(uint64_t *waiter) {
    uint64_t ticket = *waiter;
    *waiter = 0;
    if (ticket)
        task_unpark(ticket);
}

void socket_rest(uint64_t *waiter) {
    if (task_running && *waiter == task_running->ticket)
        *waiter = 0;
}
