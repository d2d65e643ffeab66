// SPDX-License-Identifier: BSD-2-Clause
// Broken configurations, each with the exact place and message that it must be refused with. The line and the
// caret below the message are checked for all of them alike.
#include "conf/conf.h"
#include "conf/source.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef MOONGATE_DATADIR
#define MOONGATE_DATADIR "/usr/share/moongate"
#endif
#define DATADIR MOONGATE_DATADIR
#define UP      "upstream app { server 127.0.0.1:9000; }\n"
#define WEB     "frontend web { listen 127.0.0.1:8080; route / app; }\n"

struct broken {
    const char *text;
    const char *expected;  // line:column: message
};

// clang-format off
static const struct broken table[] = {
    // Words and blocks
    { "", "1:1: no frontend, expected at least one: nothing would be served" },
    { "# nothing\n", "1:1: no frontend, expected at least one: nothing would be served" },
    { "workers 2\nuser nobody;\n", "1:10: \"workers\" not ended, expected \";\" here" },
    { "workers 2", "1:10: \"workers\" not ended, expected \";\" here" },
    { "frontend web {\n  listen 127.0.0.1:80\n}\n", "2:22: \"listen\" not ended, expected \";\" here" },
    { "frontend web\n  listen 127.0.0.1:80;\n", "1:13: \"frontend\" not ended, expected \"{\" here" },
    { "frontend web;\n", "1:13: \"frontend\" without its block, expected \"{\"" },
    { UP "frontend web {\n  route / app;\n",
      "2:14: block of \"frontend web\" not closed, expected \"}\" before the end of the file" },
    { "workers 2;\n}\n", "2:1: unexpected \"}\", expected a directive: no block of this file is open here" },
    { ";", "1:1: unexpected \";\", expected a directive" },
    { "{ }", "1:1: unexpected \"{\", expected a directive" },
    { "workers 2 {\n}\n", "1:11: \"workers\" takes no block, expected \";\"" },
    { "user \"nobody;\n", "1:6: quote not closed, expected \" before the end of the line" },
    { "user a\x01;\n", "1:7: control character 0x01, expected text" },
    // Directives
    { "wrokers 2;\n", "1:1: unknown directive \"wrokers\", did you mean \"workers\"?" },
    { "server_name x;\n", "1:1: unknown directive \"server_name\", expected one that may stand in top level" },
    { "frontend web {\n    lisen 127.0.0.1:80;\n}\n", "2:5: unknown directive \"lisen\", did you mean \"listen\"?" },
    { "listn 127.0.0.1:80;\n",
      "1:1: unknown directive \"listn\" in top level, did you mean \"listen\" (which stands in frontend)?" },
    { "frontend web {\n\tserver 127.0.0.1:80;\n}\n", "2:2: \"server\" may not stand in frontend, expected in upstream" },
    { UP "frontend web { route / app { header_timeout 1s; } }\n",
      "2:30: \"header_timeout\" may not stand in route, expected in top level or frontend" },
    { "frontend web { listen 127.0.0.1:80;\n" UP,
      "2:1: \"upstream\" may not stand in frontend, expected in top level (is a \"}\" missing before it?)" },
    { "workers 2;\nworkers 3;\n",
      "2:1: repeated directive \"workers\", expected once in top level: it stands at /t/c.conf:1:1 already" },
    { "frontend web {\n  max_body 1m;\n  max_body 2m;\n}\n",
      "3:3: repeated directive \"max_body\", expected once in frontend: it stands at /t/c.conf:2:3 already" },
    { "max_body;\n", "1:1: \"max_body\" without a value, expected a size from 1 to 1024g, or 0" },
    { "workers;\n", "1:1: \"workers\" with too few arguments, expected: workers auto | NUMBER" },
    { "max_body 1m 2m;\n", "1:13: unexpected \"2m\", expected \";\" after the value of \"max_body\"" },
    { "user a b c;\n", "1:10: unexpected \"c\", expected: user NAME [GROUP]" },
    // Values
    { "workers many;\n", "1:9: bad value \"many\" for \"workers\", expected auto or a number from 1 to 1024" },
    { "workers 0;\n", "1:9: bad value \"0\" for \"workers\", expected auto or a number from 1 to 1024" },
    { "watchdog 10x;\n",
      "1:10: bad value \"10x\" for \"watchdog\", expected a time from 100ms to 1h, or 0, such as 10s (units ms, s, m, h, d)" },
    { "watchdog 1d;\n", "1:10: value out of bounds: \"1d\" for \"watchdog\", expected a time from 100ms to 1h, or 0" },
    { "max_head 100;\n", "1:10: value out of bounds: \"100\" for \"max_head\", expected a size from 512 to 1m" },
    { "max_head 16kb;\n",
      "1:10: bad value \"16kb\" for \"max_head\", expected a size from 512 to 1m, such as 16m (units k, m, g)" },
    { "max_headers 99999999999999999999;\n",
      "1:13: value out of bounds: \"99999999999999999999\" for \"max_headers\", expected a number from 1 to 10000" },
    { "forwarded yes;\n", "1:11: bad value \"yes\" for \"forwarded\", expected on or off" },
    { "x_forwarded on;\n", "1:13: bad value \"on\" for \"x_forwarded\", expected off, append or replace" },
    { "control '';\n", "1:9: empty path for \"control\", expected a path" },
    { "error_log stderr loud;\n",
      "1:18: unknown level \"loud\" for \"error_log\", expected crit, error, warn, notice, info or debug" },
    { "user ${MOON_NONE};\n",
      "1:6: environment variable \"MOON_NONE\" is not set, expected it in the environment or ${MOON_NONE:-text}" },
    { "buffer_high 32k;\n" UP WEB, "1:1: buffer_low is 64k here and buffer_high 32k, expected buffer_low to be below "
      "buffer_high" },
    { UP "frontend web {\n  listen 127.0.0.1:80;\n  route / app {\n    buffer_low 1m;\n  }\n}\n",
      "5:5: buffer_low is 1m here and buffer_high 256k, expected buffer_low to be below buffer_high" },
    // Names
    { "frontend 1st { }\n", "1:10: bad name \"1st\" for \"frontend\", expected a letter, then letters, digits, \".\", \"-\" "
      "or \"_\", at most 64 in all" },
    { UP UP, "2:10: upstream \"app\" exists already, expected another name: it stands at /t/c.conf:1:10" },
    { UP WEB WEB, "3:10: frontend \"web\" exists already, expected another name: it stands at /t/c.conf:2:10" },
    { "shared a 1m;\nshared a 2m;\n",
      "2:8: shared dictionary \"a\" exists already, expected another name: it stands at /t/c.conf:1:1" },
    { "shared a 1k;\n", "1:10: value out of bounds: \"1k\" for \"shared\", expected a size from 64k to 1024g" },
    { "log_format a x;\nlog_format a y;\n",
      "2:12: log format \"a\" exists already, expected another name: it stands at /t/c.conf:1:14" },
    { "log_format json x;\n", "1:12: log format \"json\" is built in, expected another name" },
    { "access_log stderr brief;\n" UP WEB,
      "1:19: unknown log format \"brief\", expected combined, json or the name of a log_format" },
    { "access_log off json;\n", "1:16: unexpected \"json\", expected: access_log off | stderr | PATH [combined | json | "
      "FORMAT]" },
    // Upstreams
    { "upstream app { }\n" WEB, "1:10: upstream \"app\" has no server, expected at least one" },
    { UP "upstream old {\n  server 127.0.0.1:1;\n}\n" WEB,
      "2:10: upstream \"old\" is not used, expected a route to it (or a script)" },
    { "upstream app { server 10.0.0.300:9000; }\n",
      "1:23: bad address for \"server\": \"10.0.0.300\" is not an IP address: expected IP:PORT such as 127.0.0.1:80, "
      "[IPV6]:PORT, *:PORT, unix:/PATH or unix:@NAME" },
    { "upstream app { server 127.0.0.1; }\n",
      "1:23: bad address for \"server\": \"127.0.0.1\" has no port: expected \"127.0.0.1:PORT\"" },
    { "upstream app { server 127.0.0.1:0; }\n",
      "1:23: bad address \"127.0.0.1:0\" for \"server\", expected a port from 1 to 65535" },
    { "upstream app { server 127.0.0.1:1 weight=0; }\n",
      "1:42: value out of bounds: \"0\" for \"server\", expected a number from 1 to 256" },
    { "upstream app { server 127.0.0.1:1 heavy; }\n",
      "1:35: unexpected \"heavy\", expected: server ADDRESS | NAME:PORT [weight=NUMBER] [backup]; server NAME service [backup]" },
    { "upstream app { keepalive 64 idle=x; }\n", "1:34: bad value \"x\" for \"keepalive\", expected a time from 1ms to 1d, "
      "such as 10s (units ms, s, m, h, d)" },
    { "upstream app { balance hash; }\n", "1:24: \"balance hash\" of nothing known, expected client, header NAME, cookie "
      "NAME, path, uri or key" },
    { "upstream app { balance hash cookie; }\n", "1:29: \"balance hash cookie\" without a name, expected: cookie NAME" },
    { "upstream app { balance hash header a:b; }\n",
      "1:36: bad name \"a:b\" of a header, expected letters, digits and some of !#$%&'*+-.^_`|~" },
    { "upstream app { balance hash uri load=125; }\n",
      "1:33: bad value \"load=125\", expected a percentage such as load=125%" },
    { "upstream app { balance hash uri load=100%; }\n",
      "1:38: value out of bounds: \"100\" for \"balance\", expected a number from 105 to 10000" },
    { "upstream app { sticky header x; }\n", "1:23: bad value \"header\" for \"sticky\", expected: cookie NAME" },
    { "upstream app { sticky cookie a 'path=/;b'; }\n", "1:32: bad value \"path=/;b\", expected at most 255 printable "
      "characters without space, \",\" and \";\"" },
    { "upstream app { sticky cookie a key=short; }\n",
      "1:32: bad length of the key, expected from 16 to 256 characters" },
    { "upstream app { sticky cookie a samesite=none; }\n",
      "1:16: samesite=none alone, expected secure with it: browsers do not take it otherwise" },
    { "upstream app { balance fair; }\n", "1:24: bad value \"fair\" for \"balance\", expected "
      "round_robin, least_conn, random2 or hash" },
    // Frontends
    { UP "frontend web { route / app; }\n", "2:10: frontend \"web\" has no listen, expected at least one" },
    { "frontend web { listen 127.0.0.1:80; }\n",
      "1:10: frontend \"web\" has no route and no script, expected at least one of them" },
    { UP "frontend web {\n  listen 127.0.0.1:80;\n  route / ap;\n}\n",
      "4:11: unknown upstream \"ap\", expected the name of an upstream block" },
    { UP "frontend a { listen *:80; route / app; }\nfrontend b { listen 0.0.0.0:80; route / app; }\n",
      "3:21: address \"0.0.0.0:80\" is listened on already, expected another: it stands at /t/c.conf:2:14 in frontend \"a\"" },
    { UP "frontend web { listen 127.0.0.1:80; route / app;\n route / app; }\n",
      "3:8: route \"/\" exists already in this frontend, expected another prefix: it stands at /t/c.conf:2:37" },
    { UP "frontend web { listen 127.0.0.1:80; route static app; }\n",
      "2:43: bad prefix \"static\" for \"route\", expected the begin of a path: \"/\" first, no space, \"?\" or \"#\"" },
    { "frontend web { listen 127.0.0.1:80 backlog=0; }\n",
      "1:44: value out of bounds: \"0\" for \"listen\", expected a number from 1 to 65535" },
    // Files
    { "scripts /t/lua lib;\nfrontend web { listen 127.0.0.1:80; script no.lua; }\n",
      "2:44: no script \"no.lua\", expected a file in one of the folders of \"scripts\": /t/lua, /t/lib, " DATADIR "/lua" },
    { "frontend web { listen 127.0.0.1:80; script /t/no.lua; }\n", "1:44: no script \"/t/no.lua\", expected a file" },
    { "frontend web { script a.lua b; }\n", "1:29: bad setting \"b\" for \"script\", expected KEY=VALUE" },
    { "frontend web { script a.lua b=1 b=2; }\n", "1:33: repeated setting \"b\", expected each key once" },
    { "include none.conf;\n", "1:9: no file \"/t/none.conf\", expected one to include" },
};
// clang-format on

static char *nth_line(const char *text, int n) {
    for (; n > 1; n--)
        text = strchr(text, '\n') + 1;
    return strndup(text, strcspn(text, "\n"));
}

static void check_broken(const struct broken *broken) {
    struct source *source = source_new_disk();
    struct conf *conf;
    struct error error;
    cr_assert_eq(source_put(source, "/t/c.conf", slice_of(broken->text)), 0);
    int err = conf_load("/t/c.conf", source, &conf, &error);
    source_free(source);
    cr_assert_eq(err, -EINVAL, "was taken:\n%s", broken->text);

    char *expected, *head = nth_line(error.text, 1);
    cr_assert(asprintf(&expected, "/t/c.conf:%s", broken->expected) > 0);
    cr_assert_str_eq(head, expected);
    free(expected);
    free(head);
    if (!*broken->text)
        return;
    int line = 0, column = 0;
    cr_assert_eq(sscanf(broken->expected, "%d:%d", &line, &column), 2);
    char *wrong = nth_line(broken->text, line), *shown = nth_line(error.text, 2),
         *caret = nth_line(error.text, 3);
    for (char *c = wrong; *c; c++) {
        if ((unsigned char)*c < ' ' && *c != '\t')
            *c = '?';
    }
    cr_assert_str_eq(shown, wrong);
    cr_assert_eq((int)strlen(caret), column, "%s: caret at %zu", broken->expected, strlen(caret));
    cr_assert_eq(caret[column - 1], '^');
    free(wrong);
    free(shown);
    free(caret);
}

Test(conf_errors, each_names_its_place_and_what_was_expected) {
    unsetenv("MOON_NONE");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        check_broken(&table[i]);
}

Test(conf_errors, every_message_says_what_to_do) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        cr_assert(strstr(table[i].expected, "expected") || strstr(table[i].expected, "did you mean"), "%s",
                  table[i].expected);
}

// A file that is cut anywhere is refused or read, never more; the sanitizers watch the memory.
Test(conf_errors, a_file_cut_anywhere_does_no_harm) {
    static const char text[] =
        "log_format brief '$status' \"$a\\\\\";\n" UP "frontend web {\n listen [::1]:80 backlog=5;\n"
        " access_log stderr brief;\n route /a app { max_body ${X:-1m}; }\n route / app;\n}\n";
    for (size_t len = 0; len < sizeof text; len++) {
        struct source *source = source_new_disk();
        struct conf *conf;
        struct error error;
        cr_assert_eq(source_put(source, "/t/c.conf", slice_make(text, len)), 0);
        int err = conf_load("/t/c.conf", source, &conf, &error);
        if (!err)
            conf_free(conf);
        cr_assert_eq(!err, len >= sizeof text - 2, "at %zu: %s", len, error.text);
        source_free(source);
    }
}
