// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the control socket: the input is sent to it by one client, in pieces whose lengths its first byte
// seeds, and the client goes. Whatever was said is answered "ok" or "error" once its line is complete, and nothing of a
// client is left when it has gone. The master's deeds are not done here.
#include "fuzz.h"
#include "proc/master.h"
#include "proc/report.h"
#include "proxy/standing.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct master master = { .phase = MASTER_RUNNING, .source_fd = -1 };

void master_stop(struct master *m) {
    must(m == &master);
}
void master_quit(struct master *m) {
    must(m == &master);
}
int master_reopen(struct master *m, struct error *error) {
    must(m == &master);
    return error_set(error, -EIO, "not here: \"quoted\" \\ \x01");
}
void reload_start(struct master *m) {
    control_reloaded(&m->control, true, "generation 2 is in use");
}
void inquiry_start(struct inquiry *inquiry, struct worker *workers, unsigned count) {
    must(inquiry == &master.inquiry && workers == master.workers && count == 0);
    control_told();
}
static void report(FILE *out, bool json) {
    fputs(json ? "{}\n" : "-\n", out);
}
void report_workers(const struct master *m, FILE *out, bool json) {
    must(m == &master);
    report(out, json);
}
void report_stats(const struct master *m, FILE *out, bool json) {
    report_workers(m, out, json);
}
void report_generations(const struct master *m, FILE *out, bool json) {
    report_workers(m, out, json);
}
void report_metrics(const struct master *m, FILE *out, bool json) {
    report_workers(m, out, json);
}
void report_dns(const struct master *m, FILE *out, bool json) {
    report_workers(m, out, json);
}
void report_upstreams(const struct master *m, FILE *out, bool json) {
    report_workers(m, out, json);
}
void report_json_text(FILE *out, const char *text) {
    fprintf(out, "\"%zu\"", strlen(text));
}

static struct sockaddr_un address = { .sun_family = AF_UNIX };

static void forget_socket(void) {
    unlink(address.sun_path);
}

static void open_once(void) {
    struct error error;
    if (master.control.path)
        return;
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/moongate-fuzz-%d.sock", (int)getpid());
    master.standings = standings_map(4, 1);
    must(master.standings);
    must(standing_hold(master.standings, 0, SLICE_LIT("app"), SLICE_LIT("127.0.0.1:80")));
    control_init(&master.control);
    must(loop_init() == 0);
    must(control_open(&master.control, address.sun_path, &error) == 0);
    atexit(forget_socket);
}

// Reads what there is; false when the other side has closed.
static bool take(int fd, char *reply, size_t *len) {
    for (;;) {
        char piece[4096];
        ssize_t n = recv(fd, piece, sizeof piece, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0)
            return false;
        size_t keep = (size_t)n < 8 - *len ? (size_t)n : 8 - *len;
        memcpy(reply + *len, piece, keep);
        *len += keep;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    char reply[8];
    size_t reply_len = 0;
    bool open = true, line = false;
    if (len == 0)
        return 0;
    open_once();
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    loop_turn();
    must(master.control.client_count == 1);
    unsigned seed = bytes[0];
    for (size_t at = 1; at < len && open && !line;) {
        seed = seed * 1103515245u + 12345u;
        size_t n = 1 + (seed >> 16) % 64;
        n = n < len - at ? n : len - at;
        if (send(fd, bytes + at, n, MSG_NOSIGNAL) < 0)
            break;
        line = memchr(bytes + at, '\n', n) || memchr(bytes + at, '\r', n);
        at += n;
        loop_turn();
        open = take(fd, reply, &reply_len);
    }
    bool waits = master.control.client_count > 0;  // for the end of its line, or of the master
    if (!waits && line)
        must(reply_len >= 3 && (memcmp(reply, "ok\n", 3) == 0 || memcmp(reply, "error\n", 6) == 0));
    close(fd);
    if (waits)
        loop_turn();
    must(master.control.client_count == 0);
    return 0;
}
