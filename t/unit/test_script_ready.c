// SPDX-License-Identifier: BSD-2-Clause
// The ready-made scripts of lua/: what they let through, refuse and choose, and that wrong settings are
// refused at load.
#include "script_rig.h"

static struct rig rig;
static char *text;

static const char *read_script(const char *name) {
    const char *folder = getenv("srcdir");
    char path[4096];
    snprintf(path, sizeof path, "%s/lua/%s", folder ? folder : ".", name);
    FILE *file = fopen(path, "r");
    cr_assert(file, "cannot open %s", path);
    free(text);
    text = calloc(1, 65536);
    cr_assert(fread(text, 1, 65535, file) > 0);
    fclose(file);
    return text;
}

// Settings as "key", "value", ..., NULL
static int try_ready(const char *name, const char *const *settings) {
    rig_init(&rig);
    for (; *settings; settings += 2)
        rig_setting(&rig, settings[0], settings[1]);
    rig_script(&rig, name, read_script(name));
    return rig_try(&rig);
}
#define READY(name, ...)                                                                             \
    cr_assert_eq(try_ready(name, (const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL }), 0, "%s", \
                 rig.error.text)
#define REFUSED(name, expected, ...)                                                        \
    do {                                                                                    \
        cr_assert_eq(try_ready(name, (const char *const[]){ __VA_ARGS__, NULL }), -EINVAL); \
        cr_expect(strstr(rig.error.text, expected), "%s", rig.error.text);                  \
        rig.host = NULL;                                                                    \
        done();                                                                             \
    } while (0)

static void done(void) {
    rig_release(&rig);
    free(text);
    text = NULL;
}

static bool connects(const char *ip) {
    bool reject = false;
    struct conn_script *script = rig.conn_script;
    rig.conn_script = NULL;
    if (script)
        script->gone(script);
    rig.conn.handle = 0;
    cr_assert_eq(addr_parse_ip(slice_of(ip), 1, &rig.remote), 0);
    cr_assert_eq(script_connect(rig.chain, &rig.conn, &reject, NULL, NULL), STEP_MORE);
    return !reject;
}

// The status that the request hook gave, 0 when it let the request through.
static unsigned asks(const char *method, const char *target, const char *const *fields) {
    struct exchange *x = rig_exchange(&rig, method, target, fields);
    rig.status = 0;
    cr_assert(rig_request(&rig, x));
    cr_expect_eq(rig.fails, 0);
    rig_end(&rig, x);
    return rig.status;
}

static const char *routes(const char *target, const char *const *fields) {
    static char choice[64];
    struct exchange *x = rig_exchange(&rig, "GET", target, fields);
    x->step = EXCHANGE_route;
    cr_assert_eq(rig.hooks->route(rig.chain, x), STEP_MORE);
    cr_expect_eq(rig.fails, 0);
    snprintf(choice, sizeof choice, "%.*s", SLICE_ARG(x->route_choice));
    rig_end(&rig, x);
    return choice;
}

#define FIELDS(...) ((const char *const[]){ __VA_ARGS__, NULL })
static const char *const host[] = { "Host: www.example.org", NULL };

Test(script_ready, firewall_closes_by_network) {
    READY("firewall.lua", "deny", "192.0.2.0/24 2001:db8::/32");
    cr_assert(!connects("192.0.2.1") && !connects("2001:db8::1") && connects("198.51.100.1"));
    cr_assert(!rig.hooks->has_request);
    done();
    READY("firewall.lua", "allow", "192.0.2.0/24", "deny", "192.0.2.9");
    cr_assert(connects("192.0.2.1") && !connects("192.0.2.9") && !connects("198.51.100.1"));
    done();
    READY("firewall.lua", "deny", "192.0.2.7", "drop", "off");
    cr_assert(!script_chain_has_connect(rig.chain));
    cr_assert_eq(asks("GET", "/", host), 403);
    done();
}

Test(script_ready, firewall_looks_at_methods_paths_and_fields) {
    READY("firewall.lua", "methods", "GET post", "deny_paths", "/admin/ %.php$", "allow_paths", "/admin/ok",
          "deny_headers", "user-agent: sqlmap|x; x-bad: .");
    cr_assert_eq(asks("GET", "/", host), 0);
    cr_assert_eq(asks("POST", "/", host), 0);
    cr_assert_eq(asks("DELETE", "/", host), 405);
    cr_assert_eq(asks("GET", "/admin/x", host), 403);
    cr_assert_eq(asks("GET", "/%61dmin/x", host), 403);
    cr_assert_eq(asks("GET", "/a/..//admin/x", host), 403);
    cr_assert_eq(asks("GET", "/admin/ok", host), 0);
    // One reading that is denied is enough, and each must be allowed.
    cr_assert_eq(asks("GET", "/x%2f/admin/", host), 0);
    cr_assert_eq(asks("GET", "/admin%2fx", host), 403);
    cr_assert_eq(asks("GET", "/admin/../x", host), 403);
    cr_assert_eq(asks("GET", "/admin/ok//x", host), 0);
    cr_assert_eq(asks("GET", "/admin//ok", host), 403);
    cr_assert_eq(asks("GET", "/admin/x/../ok", host), 403);
    cr_assert_eq(asks("GET", "/x.php?y", host), 403);
    cr_assert_eq(asks("GET", "/", FIELDS("User-Agent: SQLMAP|X")), 403);
    cr_assert_eq(asks("GET", "/", FIELDS("X-Bad: ", "x-bad: 1")), 403);
    done();
    REFUSED("firewall.lua", "unknown setting \"dennied\"", "dennied", "x");
    REFUSED("firewall.lua", "cannot open", "denied", "/nowhere/denied.txt");
    REFUSED("firewall.lua", "bad pattern", "deny_paths", "%");
}

Test(script_ready, ratelimit_counts_by_network) {
    READY("ratelimit.lua", "rate", "1", "burst", "2", "prefix4", "24");
    cr_assert_eq(asks("GET", "/", host), 0);
    cr_assert_eq(asks("GET", "/", host), 0);
    cr_assert_eq(asks("GET", "/", host), 429);
    cr_assert(connects("192.0.2.99") || true);
    cr_assert_eq(asks("GET", "/", host), 429);
    done();
    READY("ratelimit.lua", "rate", "1", "by", "header:x-key", "paths", "/api/", "except", "198.51.100.0/24");
    cr_assert_eq(asks("GET", "/api/", FIELDS("X-Key: a")), 0);
    cr_assert_eq(asks("GET", "/api/", FIELDS("X-Key: a")), 429);
    cr_assert_eq(asks("GET", "/api/", FIELDS("X-Key: b")), 0);
    cr_assert_eq(asks("GET", "/", FIELDS("X-Key: a")), 0);
    done();
    REFUSED("ratelimit.lua", "rate=NUMBER", "burst", "5");
    REFUSED("ratelimit.lua", "expected a number", "rate", "x");
    REFUSED("ratelimit.lua", "no dictionary \"other\"", "rate", "1", "dict", "other");
    REFUSED("ratelimit.lua", "0 to 32", "rate", "1", "prefix4", "33");
}

Test(script_ready, router_chooses_by_rules) {
    READY("router.lua", "rules",
          "host=api.example.org -> api; host=*.shop.org path=/s/ -> shop; header=x-beta:1 -> beta;"
          " header=x-any -> 127.0.0.1:9000");
    cr_assert_str_eq(routes("/", FIELDS("Host: API.example.org:80")), "api");
    cr_assert_str_eq(routes("/s/x", FIELDS("Host: a.shop.org")), "shop");
    cr_assert_str_eq(routes("/x", FIELDS("Host: a.shop.org")), "");
    cr_assert_str_eq(routes("/s/x", FIELDS("Host: shop.org")), "");
    cr_assert_str_eq(routes("/", FIELDS("X-Beta: 1")), "beta");
    cr_assert_str_eq(routes("/", FIELDS("X-Beta: 2")), "");
    cr_assert_str_eq(routes("/", FIELDS("X-Any: 2")), "127.0.0.1:9000");
    done();
    REFUSED("router.lua", "bad rule", "rules", "host=x");
    REFUSED("router.lua", "bad condition", "rules", "hots=x -> y");
    REFUSED("router.lua", "needs weight", "canary", "x");
}

Test(script_ready, router_gives_a_stable_share_to_the_canary) {
    READY("router.lua", "canary", "next", "weight", "20", "by", "cookie:session", "force", "x-side");
    int chosen = 0;
    for (int i = 0; i < 1000; i++) {
        char field[64];
        snprintf(field, sizeof field, "Cookie: a=b; session=s%d", i);
        bool first = strcmp(routes("/", FIELDS(field)), "next") == 0;
        cr_assert_eq(first, strcmp(routes("/", FIELDS(field)), "next") == 0);
        chosen += first;
    }
    cr_assert(chosen > 120 && chosen < 280, "%d of 1000", chosen);
    cr_assert_str_eq(routes("/", FIELDS("x-side: canary")), "next");
    cr_assert_str_eq(routes("/", FIELDS("x-side: stable")), "");
    done();
}

Test(script_ready, redirect_https_keeps_path_and_query) {
    READY("redirect_https.lua", "port", "8443", "except", "/.well-known/");
    struct exchange *x = rig_exchange(&rig, "GET", "/a%20b?c=d", host);
    cr_assert(rig_request(&rig, x));
    cr_assert_eq(rig.status, 308);
    cr_assert_str_eq(rig_value(&rig, &rig.reply, "location"), "https://www.example.org:8443/a%20b?c=d");
    rig_end(&rig, x);
    cr_assert_eq(asks("GET", "/.well-known/x", host), 0);
    cr_assert_eq(asks("GET", "/", NULL), 400);
    done();
}

Test(script_ready, demo_answers) {
    READY("demo.lua");
    cr_assert_eq(asks("GET", "/", host), 200);
    cr_assert_eq(asks("GET", "/headers", FIELDS("Accept: application/json", "X: a\"b")), 200);
    cr_assert_eq(asks("GET", "/status/404", host), 404);
    cr_assert_eq(asks("GET", "/status/204", host), 204);
    cr_assert_eq(asks("GET", "/other", host), 404);
    struct exchange *x = rig_exchange(&rig, "GET", "/slow?seconds=0.002", host);
    cr_assert(!rig_request(&rig, x));
    rig_pass(6);
    cr_assert_eq(rig.runs, 1);
    cr_assert_eq(rig.status, 200);
    rig_end(&rig, x);
    done();
}
