// SPDX-License-Identifier: BSD-2-Clause
// Good configurations: values, defaults, inheritance, includes, scripts, what is printed and read again, and
// what a reload may change. The texts stand in a source, not on the disk, but for the tests of includes and
// folders.
#include "base/fault.h"
#include "conf/conf.h"
#include "conf/directive.h"
#include "conf/print.h"
#include "conf/source.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define UP  "upstream app { server 127.0.0.1:9000; }\n"
#define WEB "frontend web { listen 127.0.0.1:8080; route / app; }\n"

static struct error error;

static struct conf *load_from(struct source *source, const char *path) {
    struct conf *conf;
    cr_assert(conf_load(path, source, &conf, &error) == 0, "%s", error.text);
    return conf;
}

static struct conf *load(const char *text) {
    struct source *source = source_new_disk();
    cr_assert_eq(source_put(source, "/t/c.conf", slice_of(text)), 0);
    cr_assert_eq(source_put(source, "/t/lua/a.lua", SLICE_LIT("return {}")), 0);
    struct conf *conf = load_from(source, "/t/c.conf");
    source_free(source);  // the configuration keeps what it needs
    return conf;
}

static char *printed(const struct conf *conf) {
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    conf_print(conf, out);
    fclose(out);
    return text;
}

#ifdef MOONGATE_FAULTS
// With the n-th allocation failing, for every n until none fails: refused with a reason, or loaded.
Test(conf, each_allocation_may_fail) {
    static const char text[] =
        "shared s 1m; log_format f '$remote_addr ${status} \"$request\"'; scripts /t/lua;\n"
        "upstream app { server 127.0.0.1:9000 weight=2; server unix:/run/a; keepalive 3 idle=2s; }\n"
        "frontend web { listen 127.0.0.1:8080; listen [::1]:8080 backlog=9; script a.lua rate=1 b='c d';\n"
        "access_log /t/access.log f; route / app; route /x/ app { max_body 5m; access_log off; } }\n";
    unsigned n = 0, refused = 0;
    do {
        struct conf *conf = NULL;
        error.text[0] = 0;
        fault_alloc_at(++n);
        struct source *source = source_new_disk();
        if (source && source_put(source, "/t/c.conf", slice_of(text)) == 0 &&
            source_put(source, "/t/lua/a.lua", SLICE_LIT("return {}")) == 0) {
            int rc = conf_load("/t/c.conf", source, &conf, &error);
            cr_assert(rc == 0 || error.text[0], "allocation %u: refused without a reason", n);
            refused += rc < 0;
        }
        source_free(source);
        if (conf)
            conf_free(conf);
    } while (fault_alloc_at(0));
    cr_assert_gt(refused, 5);
}
#endif

Test(conf, defaults_suit_a_proxy) {
    struct conf *conf = load(UP WEB);
    cr_assert_str_eq(conf->file, "/t/c.conf");
    cr_assert_eq(conf->workers, 0);
    cr_assert_str_eq(conf->user, "moongate");
    cr_assert_null(conf->group);
    cr_assert_eq(conf->error_log, LOG_TARGET_STDERR);
    cr_assert_eq(conf->error_level, LOG_LEVEL_notice);
    cr_assert_eq(conf->watchdog, 10000);
    cr_assert_eq(conf->connections, 65536);
    cr_assert_eq(conf->receive_buffers, 16 << 20);
    cr_assert_eq(conf->drain_timeout, 30000);
    cr_assert_not(conf->script_unsafe);
    const struct conf_settings *s = &conf->frontends->routes->settings;
    cr_assert_eq(s->header_timeout, 10000);
    cr_assert_eq(s->keepalive_timeout, 75000);
    cr_assert_eq(s->keepalive_requests, 10000);
    cr_assert_eq(s->tunnel_timeout, 3600000);
    cr_assert_eq(s->max_head, 16384);
    cr_assert_eq(s->max_body, 1 << 30);
    cr_assert_eq(s->buffer_high, 256 << 10);
    cr_assert_eq(s->buffer_low, 64 << 10);
    cr_assert_eq(s->notsent_lowat, 64 << 10);
    cr_assert_eq(s->x_forwarded, X_FORWARDED_OFF);
    cr_assert_eq(s->on_script_error, SCRIPT_ERROR_FAIL);
    cr_assert_null(s->access_log);
    const struct conf_upstream *upstream = conf->upstreams;
    cr_assert_eq(upstream->keepalive, 64);
    cr_assert_eq(upstream->keepalive_idle, 60000);
    cr_assert_eq(upstream->connect_timeout, 5000);
    cr_assert_eq(upstream->tries, 3);
    cr_assert_eq(upstream->retry, RETRY_CONNECT | RETRY_STALE | RETRY_IDEMPOTENT | RETRY_REFUSED);
    cr_assert_eq(upstream->retry_timeout, 10000);
    cr_assert_eq(upstream->retry_body, 64 << 10);
    cr_assert_eq(upstream->max_active, 0);
    cr_assert_eq(upstream->queue, 1024);
    cr_assert_eq(upstream->queue_timeout, 5000);
    cr_assert(upstream->used);
    cr_assert_eq(conf->frontends->listens->backlog, 4096);
    conf_free(conf);
}

Test(conf, everything_that_is_written_is_read) {
    struct conf *conf =
        load("workers 4; user nobody nogroup; control run/c.sock; pid_file ./p.pid; error_log e.log debug; "
             "watchdog 0;\n"
             "connections 10; receive_buffers 1m; drain_timeout 0; reload_timeout 5; script_unsafe on; "
             "scripts lua /x;\n"
             "shared a 64k; shared b 1m; log_format brief '$status' ' $path';\n"
             "upstream app { server 127.0.0.1:1 weight=3; server [::1]:2; server unix:/run/a.sock backup; balance "
             "hash cookie sid load=150%; sticky cookie srv secure ttl=1h samesite=none path=/a domain=x.test; panic 40; "
             "slow_start 20s;\n"
             "  keepalive 5 idle=2m; connect_timeout 10ms; tries 3;\n"
             "  retry timeout connect; retry_timeout 0; retry_body 0; max_active 7; queue 0; queue_timeout 9s; }\n"
             "frontend web { listen *:80 backlog=7; listen [::]:80; script a.lua rate=100 \"who=a b\" "
             "empty=; route / app;\n"
             "  access_log logs/a.log brief; x_forwarded append; on_script_error pass; forwarded on; }\n");
    cr_assert_eq(conf->workers, 4);
    cr_assert_str_eq(conf->group, "nogroup");
    cr_assert_str_eq(conf->control, "/t/run/c.sock");
    cr_assert_str_eq(conf->pid_file, "/t/p.pid");
    cr_assert_str_eq(conf->error_log_path, "/t/e.log");
    cr_assert_eq(conf->error_level, LOG_LEVEL_debug);
    cr_assert_eq(conf->watchdog, 0);
    cr_assert_eq(conf->drain_timeout, 0);
    cr_assert_eq(conf->reload_timeout, 5000);
    cr_assert(conf->script_unsafe);
    cr_assert_str_eq(conf->scripts->path, "/t/lua");
    cr_assert_str_eq(conf->scripts->next->path, "/x");
    cr_assert_str_eq(conf->scripts->next->next->path, MOONGATE_DATADIR "/lua");
    cr_assert_null(conf->scripts->next->next->next);
    cr_assert_str_eq(conf->shared->next->name, "b");
    cr_assert_eq(conf->shared->next->size, 1 << 20);
    cr_assert_str_eq(conf->log_formats->text, "$status $path");

    const struct conf_server *server = conf->upstreams->servers;
    cr_assert_eq(conf->upstreams->server_count, 3);
    cr_assert_eq(server->weight, 3);
    cr_assert_eq(addr_port(&server->next->addr), 2);
    cr_assert_eq(addr_family(&server->next->next->addr), AF_UNIX);
    cr_assert(!server->backup && server->next->next->backup);
    cr_assert_eq(conf->upstreams->balance, BALANCE_HASH);
    cr_assert_eq(conf->upstreams->hash, HASH_COOKIE);
    cr_assert_str_eq(conf->upstreams->hash_name, "sid");
    cr_assert_eq(conf->upstreams->hash_load, 150);
    cr_assert_eq(conf->upstreams->panic, 40);
    cr_assert_eq(conf->upstreams->slow_start, 20000);
    const struct conf_sticky *sticky = conf->upstreams->sticky;
    cr_assert(slice_eq(sticky->name, SLICE_LIT("srv")) && sticky->secure && !sticky->httponly);
    cr_assert_eq(sticky->ttl, 3600000);
    cr_assert_str_eq(sticky->samesite, "None");
    cr_assert_str_eq(sticky->path, "/a");
    cr_assert_str_eq(sticky->domain, "x.test");
    cr_assert_eq(conf->upstreams->retry, RETRY_CONNECT | RETRY_TIMEOUT);
    cr_assert_eq(conf->upstreams->retry_timeout, 0);
    cr_assert_eq(conf->upstreams->retry_body, 0);
    cr_assert_eq(conf->upstreams->max_active, 7);
    cr_assert_eq(conf->upstreams->queue, 0);
    cr_assert_eq(conf->upstreams->queue_timeout, 9000);
    cr_assert_eq(conf->upstreams->keepalive, 5);
    cr_assert_eq(conf->upstreams->keepalive_idle, 120000);

    const struct conf_frontend *frontend = conf->frontends;
    cr_assert_str_eq(frontend->listens->name, "0.0.0.0:80");
    cr_assert_eq(frontend->listens->backlog, 7);
    const struct conf_script *script = frontend->scripts;
    cr_assert_str_eq(script->path, "/t/lua/a.lua");
    cr_assert(slice_eq(script->text, SLICE_LIT("return {}")));
    cr_assert_str_eq(script->settings->key, "rate");
    cr_assert_str_eq(script->settings->next->value, "a b");
    cr_assert_str_eq(script->settings->next->next->value, "");
    cr_assert_str_eq(frontend->settings.access_log->path, "/t/logs/a.log");
    cr_assert_eq(frontend->settings.access_log->format, conf->log_formats);
    cr_assert_eq(frontend->settings.x_forwarded, X_FORWARDED_APPEND);
    cr_assert_eq(frontend->settings.on_script_error, SCRIPT_ERROR_PASS);
    cr_assert(frontend->settings.forwarded);
    conf_free(conf);
}

Test(conf, settings_are_inherited_wherever_they_stand) {
    struct conf *conf = load(UP "frontend web { listen 127.0.0.1:1; route / app; route /up app { max_body "
                                "3m; } max_body 2m; send_timeout 1s; }\n"
                                "frontend two { listen 127.0.0.1:2; route / app; }\n"
                                "max_body 1m; body_timeout 7s; access_log stderr json;\n");
    const struct conf_frontend *web = conf->frontends, *two = web->next;
    cr_assert_eq(conf->settings.max_body, 1 << 20);
    cr_assert_eq(web->settings.max_body, 2 << 20);
    cr_assert_str_eq(web->routes->prefix, "/up");
    cr_assert_eq(web->routes->settings.max_body, 3 << 20);
    cr_assert_eq(web->routes->settings.send_timeout, 1000);
    cr_assert_eq(web->routes->settings.body_timeout, 7000);
    cr_assert_eq(web->routes->settings.header_timeout, 10000);
    cr_assert_eq(web->routes->next->settings.max_body, 2 << 20);
    cr_assert_eq(two->settings.max_body, 1 << 20);
    cr_assert_eq(two->settings.send_timeout, 60000);
    // One log, not one for each block: it is opened once.
    cr_assert_not_null(conf->settings.access_log);
    cr_assert_eq(two->routes->settings.access_log, conf->settings.access_log);
    conf_free(conf);
}

Test(conf, routes_are_sorted_longest_first) {
    struct conf *conf =
        load(UP "frontend web { listen 127.0.0.1:1; route /b/ app; route / app; route /a/long app; "
                "route /c/ app; }\n");
    static const char *const order[] = { "/a/long", "/b/", "/c/", "/" };
    const struct conf_route *route = conf->frontends->routes;
    for (int i = 0; i < 4; i++, route = route->next)
        cr_assert_str_eq(route->prefix, order[i]);
    cr_assert_null(route);
    conf_free(conf);
}

Test(conf, an_upstream_may_be_unused_where_a_script_may_name_it) {
    conf_free(load("scripts lua; upstream canary { server 127.0.0.1:1; }\n"
                   "frontend web { listen 127.0.0.1:1; script a.lua; }\n"));
}

Test(conf, a_directive_may_go_on_over_lines) {
    conf_free(load("log_format\n  brief\n  '$status'\n;\nscripts\n lua\n /x;" UP
                   "frontend\nweb\n{\nlisten\n127.0.0.1:1;"
                   "route /\napp\n;}\n"));
}

Test(conf, errors_of_other_layers_show_the_line) {
    struct conf *conf = load("log_format brief\n  '$nothing';\n" UP WEB);
    cr_assert_eq(conf_error(conf, conf->log_formats->place, &error, "unknown variable \"%s\"", "$nothing"),
                 -EINVAL);
    cr_assert_str_eq(error.text, "/t/c.conf:2:3: unknown variable \"$nothing\"\n  '$nothing';\n  ^");
    conf_free(conf);
}

// ---- printing ---------------------------------------------------------------------------------------------

static void check_round_trip(const char *text) {
    struct conf *conf = load(text);
    char *first = printed(conf);
    conf_free(conf);
    conf = load(first);
    char *second = printed(conf);
    conf_free(conf);
    cr_assert_str_eq(second, first);
    free(first);
    free(second);
}

Test(conf, what_is_printed_reads_as_the_same) {
    check_round_trip(UP WEB);
    check_round_trip(
        "workers 3; user a 'b c'; error_log 'a;b' crit; scripts lua '/a b'; shared d 1m;\n"
        "log_format f '\"${x}\\' \"\\n\"; access_log stderr f; watchdog 0; max_body 0; tunnel_timeout "
        "1500ms;\n"
        "upstream app { server unix:/run/a.sock weight=9; keepalive 0; }\n"
        "frontend web { listen [::1]:1; script a.lua k='#' 'q q'=\"\\\"\" e=; max_uri 1000; access_log off;\n"
        "  route \"/x{}\" app;}\n");
}

Test(conf, only_what_differs_from_the_parent_is_printed_in_blocks) {
    struct conf *conf =
        load("max_body 5m;\n" UP "frontend web { listen 127.0.0.1:1; max_body 5m; send_timeout 2s;\n"
             "  route / app { send_timeout 2s; body_timeout 3s; } }\n");
    char *text = printed(conf);
    const char *block = strstr(text, "frontend web");
    cr_assert_str_eq(block,
                     "frontend web {\n    listen 127.0.0.1:1 backlog=4096;\n    send_timeout 2s;\n"
                     "    route / app {\n        body_timeout 3s;\n    }\n}\n");
    free(text);
    conf_free(conf);
}

Test(conf, defaults_are_a_configuration_that_changes_nothing) {
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    conf_print_defaults(out);
    fclose(out);
    struct conf *conf = load(text),
                *plain = load("upstream app { server 127.0.0.1:9000 weight=2; }\n"
                              "frontend web { listen 127.0.0.1:8080; route / app; route /example/ app; }\n");
    char *with = printed(conf), *without = printed(plain);
    cr_assert_str_eq(with, without);
    for (int i = 0; i < DIRECTIVE_COUNT; i++)
        cr_assert(strstr(text, directives[i].name), "%s is missing", directives[i].name);
    free(text);
    free(with);
    free(without);
    conf_free(conf);
    conf_free(plain);
}

Test(conf, the_manual_lists_every_directive) {
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    conf_print_man(out);
    fclose(out);
    for (int i = 0; i < DIRECTIVE_COUNT; i++) {
        char item[64];
        snprintf(item, sizeof item, "\n.It Ic %s ", directives[i].name);
        cr_assert(strstr(text, item), "%s is missing", directives[i].name);
    }
    free(text);
}

// ---- files ------------------------------------------------------------------------------------------------

static char folder[64];

static void put(const char *name, const char *text) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *out = fopen(path, "w");
    cr_assert(out);
    fputs(text, out);
    fclose(out);
}

static void make_folder(const char *sub) {
    char path[160];
    if (!*folder) {
        strcpy(folder, "/tmp/moongate-test-XXXXXX");
        cr_assert(mkdtemp(folder));
    }
    snprintf(path, sizeof path, "%s/%s", folder, sub);
    cr_assert_eq(mkdir(path, 0755), 0);
}

static void remove_folder(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (*folder)
        cr_assert_eq(system(command), 0);
}

Test(conf, a_worker_loads_the_same_from_memory, .fini = remove_folder) {
    make_folder("sites");
    make_folder("lua");
    put("main.conf", "scripts lua;\ninclude sites/*.conf;\ninclude none/*.conf;\nmax_body 9m;\n");
    put("sites/a.conf", "upstream a { include ../servers; }\n");
    put("sites/b.conf", "frontend b { listen 127.0.0.1:1; script s.lua; route / a; access_log b.log; }\n");
    put("servers", "server 127.0.0.1:1; server 127.0.0.1:2;\n");
    put("lua/s.lua", "return require 'lib'");
    put("lua/lib.lua", "return {}");
    char path[128], log[128], lib[128];
    snprintf(path, sizeof path, "%s/main.conf", folder);
    snprintf(log, sizeof log, "%s/sites/b.log", folder);
    snprintf(lib, sizeof lib, "%s/lua/lib.lua", folder);

    struct source *disk = source_new_disk(), *memory;
    struct conf *conf = load_from(disk, path);
    cr_assert_eq(conf->upstreams->server_count, 2);
    cr_assert_str_eq(conf->frontends->settings.access_log->path, log);
    cr_assert_eq(conf->frontends->settings.max_body, 9 << 20);
    int fd = source_export(disk, &error);
    cr_assert(fd >= 0, "%s", error.text);
    cr_assert_eq(source_new_memory(fd, &memory, &error), 0, "%s", error.text);
    close(fd);
    source_free(disk);
    remove_folder();

    struct conf *again = load_from(memory, path);
    cr_assert(source_has(memory, lib));
    source_free(memory);
    cr_assert(slice_eq(again->frontends->scripts->text, SLICE_LIT("return require 'lib'")));
    char *first = printed(conf), *second = printed(again);
    cr_assert_str_eq(first, second);
    free(first);
    free(second);
    conf_free(conf);
    conf_free(again);
}

Test(conf, an_error_in_an_included_file_is_shown_there, .fini = remove_folder) {
    make_folder("d");
    put("main.conf", "include d/*.conf;\n");
    put("d/a.conf", "workers 1;\n\n  wrokers 2;\n");
    char path[128], expected[256];
    snprintf(path, sizeof path, "%s/main.conf", folder);
    snprintf(expected, sizeof expected,
             "%s/d/a.conf:3:3: unknown directive \"wrokers\", did you mean \"workers\"?\n"
             "  wrokers 2;\n  ^",
             folder);
    struct source *source = source_new_disk();
    struct conf *conf;
    cr_assert_eq(conf_load(path, source, &conf, &error), -EINVAL);
    cr_assert_str_eq(error.text, expected);
    source_free(source);
}

Test(conf, files_that_include_themselves_are_refused, .fini = remove_folder) {
    make_folder("d");
    put("main.conf", "include main.conf;\n");
    put("many.conf", "include many.con[f];\ninclude many.con[f];\n");
    static const char *const names[] = { "main.conf", "many.conf" };
    for (int i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        struct source *source = source_new_disk();
        struct conf *conf;
        cr_assert_eq(conf_load(path, source, &conf, &error), -EINVAL);
        cr_assert(strstr(error.text, ":1:1: includes nest too deep, expected at most 16"), "%s", error.text);
        source_free(source);
    }
}

Test(conf, a_file_that_is_not_there_is_no_bad_configuration) {
    struct source *source = source_new_disk();
    struct conf *conf;
    cr_assert_eq(conf_load("/t/none.conf", source, &conf, &error), -ENOENT);
    cr_assert_str_eq(error.text, "cannot read \"/t/none.conf\": No such file or directory");
    source_free(source);
}

// ---- reload -----------------------------------------------------------------------------------------------

static void check_reload(const char *old_text, const char *new_text, const char *expected) {
    struct conf *old = load(old_text), *new = load(new_text);
    int err = conf_check_reloadable(old, new, &error);
    if (expected) {
        cr_assert_eq(err, -EINVAL);
        cr_assert_str_eq(error.text, expected);
    } else {
        cr_assert_eq(err, 0, "%s", error.text);
    }
    conf_free(old);
    conf_free(new);
}

Test(conf, a_reload_changes_all_but_what_needs_a_restart) {
    check_reload(UP WEB,
                 "max_body 1m; error_log syslog; watchdog 1s; upstream b { server 127.0.0.1:1; }\n"
                 "frontend b { listen 127.0.0.1:1; route / b; }\n",
                 NULL);
    check_reload(
        "workers 2;\n" UP WEB, "workers 4;\n" UP WEB,
        "/t/c.conf: \"workers\" changes only with a restart or an upgrade, expected as before:\nworkers 2;");
    check_reload(
        UP WEB, "user nobody;\n" UP WEB,
        "/t/c.conf: \"user\" changes only with a restart or an upgrade, expected as before:\nuser moongate;");
    check_reload("shared a 1m;\n" UP WEB, "shared a 1m; shared b 2m;\n" UP WEB, NULL);
}
