// SPDX-License-Identifier: BSD-2-Clause
// moongate(8): reads the options, then tests, prints or runs. All that runs is in proc/.
#include "config.h"

#include "base/counters.h"
#include "base/error.h"
#include "base/log.h"
#include "conf/conf.h"
#include "conf/print.h"
#include "conf/source.h"
#include "net/conn.h"
#include "net/resolver.h"
#include "proc/daemon.h"
#include "proc/master.h"
#include "proc/trial.h"
#include "proxy/access_log.h"
#include "ring/ring.h"
#include "script/examine.h"
#include "script/script.h"
#include "script/test.h"
#include "tls/client.h"
#include "tls/digest.h"
#include "tls/faults.h"
#include "tls/server.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <llhttp.h>
#include <nghttp2/nghttp2.h>
#include <luajit.h>

enum action { RUN, TEST, PRINT, DEFAULTS, MAN_LISTS, PRINT_VERSION, HELP, TEST_SCRIPTS, CHECK_SCRIPT };

enum { OPTION_ONLY = 256, OPTION_TIME_LIMIT };

static const char usage[] =
    "usage: moongate [-D] [-p PIDFILE] [-c FILE]    serve (-D: as a daemon)\n"
    "       moongate -t [-c FILE]                   test the configuration and its scripts\n"
    "       moongate -T [-c FILE]                   print the effective configuration\n"
    "       moongate --defaults                     print every directive, its default and documentation\n"
    "       moongate --test [-v] [-c FILE] [--only PATTERN] [--time-limit SECONDS] FILE_test.lua...\n"
    "                                               test scripts without a server: moongate-lua(7)\n"
    "       moongate --check-script [-j] SCRIPT [KEY=VALUE...]\n"
    "                                               load one script, tell what it is made of\n"
    "       moongate -V                             print version, libraries, io_uring's features\n"
    "       moongate -h                             print this\n"
    "FILE is " MOONGATE_SYSCONFDIR "/moongate.conf unless it is given. moongatectl(1) controls what runs.\n";

static int fail(const char *text) {
    fprintf(stderr, "%s\n", text);
    return 1;
}

// Without following links: relative paths in the file start at the folder as it is written.
static char *absolute(const char *path) {
    char *result = NULL;
    char *folder = path[0] == '/' ? NULL : getcwd(NULL, 0);
    if (path[0] == '/')
        result = strdup(path);
    else if (folder && asprintf(&result, "%s/%s", folder, strncmp(path, "./", 2) == 0 ? path + 2 : path) < 0)
        result = NULL;
    free(folder);
    if (!result) {
        fprintf(stderr, "moongate: cannot tell where \"%s\" is: %s\n", path, strerror(errno));
        exit(1);
    }
    return result;
}

static void print_item(void *to, const char *name, const char *doc) {
    fprintf(to, ".It Va %s\n%s.\n", name, doc);
}

// The lists of moongate.conf(5), from the tables that the program itself works by.
static void print_manual_lists(void) {
    static const struct {
        const char *name, *doc;
    } reasons[] = {
#define X(name, doc) { #name, doc },
        CLOSE_REASONS(X)
    }, counts[] = {
        COUNTERS(X)
#undef X
    };
    conf_print_man(stdout);
    puts(".Sh LOG VARIABLES\n"
         "A format of\n.Ic log_format\nmay use these, as\n.Va $name\nor\n.Va ${name}\n"
         "(the latter in single quotes only: elsewhere it names a variable\nof the environment).\n"
         "What is absent is written as a hyphen.\n.Bl -tag -width indent");
    access_log_print_variables(print_item, stdout);
    puts(".El\n.Sh TERMINATION REASONS\nWhat\n.Va $termination\nsays:\n.Bl -tag -width indent");
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        print_item(stdout, reasons[i].name, reasons[i].doc);
    puts(".El\n.Sh COUNTERS\nWhat\n.Ic moongatectl show stats\n"
         "prints for the workers together:\n.Bl -tag -width indent");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        print_item(stdout, counts[i].name, counts[i].doc);
    puts(".El");
}

static void print_feature(void *to, const char *line) {
    fprintf(to, "    %s\n", line);
}

static int print_version(void) {
    struct error error;
    printf("moongate %s\n", PACKAGE_VERSION);
    printf("built with: %s\n", MOONGATE_BUILD_OPTIONS);
    printf("libraries: liburing %s, %s, %s, llhttp %d.%d.%d, nghttp2 %s, OpenSSL %s\n", LIBURING_VERSION,
           resolver_library(), LUAJIT_VERSION, LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH,
           nghttp2_version(0)->version_str, libcrypto_version());
    printf("paths: configuration %s/moongate.conf, control socket %s, scripts %s/lua\n", MOONGATE_SYSCONFDIR,
           MOONGATE_CONTROL, MOONGATE_DATADIR);
    if (ring_probe(&error) < 0) {
        printf("io_uring: no\n    %s\n", error.text);
        return 0;
    }
    printf("io_uring:\n");
    ring_print_features(print_feature, stdout);
    return 0;
}

static int check_formats(const struct conf *conf, struct error *error) {
    for (const struct conf_log_format *format = conf->log_formats; format; format = format->next) {
        int code = access_log_check(format->text, error);
        if (code < 0) {
            struct error why = *error;
            return conf_error(conf, format->place, error, "log_format \"%s\": %s", format->name, why.text);
        }
    }
    return 0;
}

static int test_or_print(const char *file, enum action action) {
    struct error error;
    struct conf *conf = NULL;
    struct identity identity;
    struct source *source = source_new_disk();
    int code = source ? conf_load(file, source, &conf, &error) : error_set(&error, -ENOMEM, "memory is out");
    if (code == 0 && action == TEST) {
        code = check_formats(conf, &error);
        if (code == 0)
            code = identity_find(conf, &identity, &error);
        if (code == 0)
            code = tls_server_check(conf, &error);
        if (code == 0)
            code = tls_client_check(conf, &error);
        if (code == 0)
            code = script_check(conf, &error);
        if (code == 0)
            code = trial_run(conf, source, &identity, &error);
    }
    if (code < 0)
        fail(error.text);
    else if (action == TEST)
        printf("configuration %s is fine\n", file);
    else
        conf_print(conf, stdout);
    conf_free(conf);
    source_free(source);
    return code < 0;
}

static void ready(void *to) {
    (void)to;
    daemon_started(NULL);
}

static int run(const char *file, const char *pid_file, bool as_daemon) {
    struct error error;
    if (as_daemon && daemon_detach(&error) < 0)
        return fail(error.text);
    const struct master_options options = {
        .file = file,
        .pid_file = pid_file,
        .as_daemon = as_daemon,
        .ready = ready,
    };
    if (master_run(&options, &error) == 0)
        return 0;
    if (as_daemon)
        daemon_started(error.text);
    else
        fail(error.text);
    return 1;
}

static unsigned seconds_option(const char *text) {
    char *end;
    unsigned long seconds = strtoul(text, &end, 10);
    if (*end || end == text || seconds < 1 || seconds > 86400) {
        fprintf(stderr, "moongate: --time-limit \"%s\": expected seconds, 1 to 86400\n", text);
        exit(1);
    }
    return (unsigned)seconds;
}

static int test_scripts(struct test_options *tests, const char *conf) {
    if (tests->file_count == 0)
        return fail("moongate: --test needs files of tests, as in: moongate --test lua/firewall_test.lua");
    char *path = conf ? absolute(conf) : NULL;
    tests->conf = path;
    int status = test_run(tests);
    free(path);
    return status;
}

static int check_script(char *const *words, unsigned count, bool json, unsigned time_limit) {
    if (count == 0)
        return fail("moongate: --check-script needs a file, as in: moongate --check-script firewall.lua");
    const struct examine_options options = {
        .script = words[0],
        .settings = words + 1,
        .setting_count = count - 1,
        .json = json,
        .time_limit = time_limit,
    };
    return examine_run(&options);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        { "defaults", no_argument, NULL, 'd' },
        { "man-lists", no_argument, NULL, 'm' },
        { "version", no_argument, NULL, 'V' },
        { "help", no_argument, NULL, 'h' },
        { "test", no_argument, NULL, 'x' },
        { "check-script", no_argument, NULL, 'k' },
        { "only", required_argument, NULL, OPTION_ONLY },
        { "time-limit", required_argument, NULL, OPTION_TIME_LIMIT },
        { "verbose", no_argument, NULL, 'v' },
        { 0 },
    };
    const char *file = NULL, *pid_file = NULL;
    struct test_options tests = { .time_limit = 10 };
    enum action action = RUN;
    bool as_daemon = false, json = false;
    int option;
    tls_faults_begin();
    while ((option = getopt_long(argc, argv, "c:p:tTDVhvj", options, NULL)) >= 0)
        switch (option) {
        case 'c': file = optarg; break;
        case 'p': pid_file = optarg; break;
        case 't': action = TEST; break;
        case 'T': action = PRINT; break;
        case 'D': as_daemon = true; break;
        case 'd': action = DEFAULTS; break;
        case 'm': action = MAN_LISTS; break;
        case 'V': action = PRINT_VERSION; break;
        case 'h': action = HELP; break;
        case 'x': action = TEST_SCRIPTS; break;
        case 'k': action = CHECK_SCRIPT; break;
        case 'j': json = true; break;
        case 'v': tests.verbose = true; break;
        case OPTION_ONLY: tests.only = optarg; break;
        case OPTION_TIME_LIMIT: tests.time_limit = seconds_option(optarg); break;
        default: return fail("moongate: try moongate -h");
        }
    if (action == TEST_SCRIPTS) {
        tests.files = argv + optind;
        tests.file_count = (unsigned)(argc - optind);
        return test_scripts(&tests, file);
    }
    if (action == CHECK_SCRIPT)
        return check_script(argv + optind, (unsigned)(argc - optind), json, tests.time_limit);
    if (tests.only || tests.verbose)
        return fail("moongate: --only and -v are for --test");
    if (json)
        return fail("moongate: -j is for --check-script");
    if (optind < argc) {
        fprintf(stderr, "moongate: unexpected argument \"%s\"; the configuration is named with -c\n",
                argv[optind]);
        return 1;
    }
    char *path = absolute(file ? file : MOONGATE_SYSCONFDIR "/moongate.conf");
    char *pid_path = pid_file ? absolute(pid_file) : NULL;
    int status = 0;
    switch (action) {
    case RUN: status = run(path, pid_path, as_daemon); break;
    case TEST:
    case PRINT: status = test_or_print(path, action); break;
    case DEFAULTS: conf_print_defaults(stdout); break;
    case MAN_LISTS: print_manual_lists(); break;
    case PRINT_VERSION: status = print_version(); break;
    case HELP: fputs(usage, stdout); break;
    case TEST_SCRIPTS:
    case CHECK_SCRIPT: break;  // have returned above
    }
    free(path);
    free(pid_path);
    if (fflush(stdout) != 0)
        status = 1;
    return status;
}
