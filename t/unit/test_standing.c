// SPDX-License-Identifier: BSD-2-Clause
// What workers share of servers (src/proxy/standing.h): records are found again, outlive who held them, and
// give way only when nobody holds them.
#include "base/clock.h"
#include "proxy/standing.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct standings *table;

static struct standing *hold(unsigned worker, const char *upstream, const char *server) {
    return standing_hold(table, worker, slice_of(upstream), slice_of(server));
}

static void end(void) {
    standings_unmap(table);
}

// How many are held, and the last of them.
static unsigned count_held(struct standing_report *ret_last) {
    unsigned count = 0;
    for (unsigned position = 0; standings_read(table, &position, ret_last); count++)
        ;
    return count;
}

TestSuite(standing, .fini = end);

Test(standing, workers_that_hold_the_same_server_share_its_record) {
    table = standings_map(16, 2);
    struct standing *a = hold(0, "app", "127.0.0.1:80"), *b = hold(1, "app", "127.0.0.1:80");
    cr_assert_not_null(a);
    cr_assert_eq(a, b);
    cr_assert_neq(hold(0, "other", "127.0.0.1:80"), a);
    cr_assert_neq(hold(0, "app", "127.0.0.1:81"), a);
    cr_assert_str_eq(a->upstream, "app");
    cr_assert_str_eq(a->server, "127.0.0.1:80");
}

Test(standing, a_record_is_known_again_after_all_let_go_of_it) {
    table = standings_map(16, 2);
    struct standing *standing = hold(0, "app", "127.0.0.1:80");
    standing->failures = 3;
    standing_leave(standing, 0);
    struct standing_report report;
    cr_assert_eq(count_held(&report), 0, "what nobody holds is not reported");
    cr_assert_eq(hold(1, "app", "127.0.0.1:80"), standing);
    cr_assert_eq(standing->failures, 3);
}

Test(standing, a_dead_worker_holds_nothing_and_its_sums_stay) {
    table = standings_map(16, 2);
    struct standing *standing = hold(0, "app", "127.0.0.1:80");
    cr_assert_eq(hold(1, "app", "127.0.0.1:80"), standing);
    standing->counts[1].active = 2;
    standing->counts[1].requests = 5;
    standings_bury(table, 1);
    struct standing_report report;
    cr_assert_eq(count_held(&report), 1, "worker 0 holds it still");
    cr_assert_eq(report.standing, standing);
    cr_assert_eq(report.sum.active, 0);
    cr_assert_eq(report.sum.requests, 5);
    standings_bury(table, 0);
    cr_assert_eq(count_held(&report), 0);
}

Test(standing, what_a_worker_gone_wrong_writes_does_no_harm_to_a_report) {
    table = standings_map(1, 1);
    struct standing *standing = hold(0, "app", "127.0.0.1:80");
    struct standing_report report;
    memset(standing->upstream, 'x', sizeof standing->upstream);
    memset(standing->server, 'y', sizeof standing->server);
    memset(standing->check_why, 'z', sizeof standing->check_why);
    standing->admin = 77;
    standing->check = 77;
    cr_assert_eq(count_held(&report), 1);
    cr_assert_eq(strlen(report.upstream), STANDING_NAME_MAX - 1);
    cr_assert_eq(strlen(report.server), STANDING_NAME_MAX - 1);
    cr_assert_eq(strlen(report.check_why), STANDING_WHY_MAX - 1);
    cr_assert_str_eq(report.admin, "?");
    cr_assert_str_eq(report.check, "?");
    cr_assert_str_eq(report.state, "?");
}

Test(standing, a_full_table_gives_up_the_record_that_was_left_first) {
    table = standings_map(4, 1);
    struct standing *held[4];
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "127.0.0.1:%d", 80 + i);
        held[i] = hold(0, "app", name);
        cr_assert_not_null(held[i]);
    }
    cr_assert_null(hold(0, "app", "127.0.0.1:90"), "all are held");
    held[2]->failures = 4;
    held[1]->failures = 4;
    clock_stand(1000000);
    standing_leave(held[2], 0);
    clock_advance(5000000);
    standing_leave(held[1], 0);
    cr_assert_eq(hold(0, "app", "127.0.0.1:90"), held[2]);
    cr_assert_eq(held[2]->failures, 0, "of somebody else's past");
    cr_assert_str_eq(held[2]->server, "127.0.0.1:90");
    cr_assert_eq(hold(0, "app", "127.0.0.1:81"), held[1], "it was not needed");
    cr_assert_eq(held[1]->failures, 4);
}

Test(standing, processes_that_begin_at_the_same_time_agree) {
    enum { PROCESSES = 6, SERVERS = 200 };
    table = standings_map(1024, PROCESSES);
    int gate[2];
    cr_assert_eq(pipe(gate), 0);
    pid_t pids[PROCESSES];
    for (unsigned worker = 0; worker < PROCESSES; worker++) {
        pids[worker] = fork();
        if (pids[worker] != 0)
            continue;
        char name[32];
        close(gate[1]);
        (void)!read(gate[0], name, 1);
        for (unsigned i = 0; i < SERVERS; i++) {
            snprintf(name, sizeof name, "10.0.%u.%u:80", (i + worker * 31) % SERVERS, 0u);
            struct standing *standing = hold(worker, "app", name);
            if (!standing)
                _exit(1);
            atomic_fetch_add(&standing->failures, 1);
        }
        _exit(0);
    }
    close(gate[1]);
    for (unsigned worker = 0; worker < PROCESSES; worker++) {
        int status;
        waitpid(pids[worker], &status, 0);
        cr_assert_eq(status, 0);
    }
    unsigned count = 0;
    struct standing_report at;
    for (unsigned position = 0; standings_read(table, &position, &at); count++)
        cr_assert_eq(at.standing->failures, PROCESSES, "%s was asked for by %u", at.server, at.standing->failures);
    cr_assert_eq(count, SERVERS);
}
