// SPDX-License-Identifier: BSD-2-Clause
// Sets of networks (base/cidr.h) and shared dictionaries (base/dict.h) for scripts. Sets are made while a
// script loads; their files come from the generation's source if the master gathered them, else from the
// disk.
#include "script/api_impl.h"

#include "base/cidr.h"
#include "base/clock.h"
#include "base/dict.h"
#include "conf/source.h"
#include "script/host.h"

#include <errno.h>
#include <stdio.h>

enum { CIDR_LIMIT = 8 << 20 };

static struct error shared_error;

void *mg_cidr_new(void) {
    return cidr_new(CIDR_LIMIT);
}

void mg_cidr_free(void *set) {
    cidr_free(set);
}

int mg_cidr_add(void *set, const char *at, size_t len, uint32_t value) {
    return cidr_add(set, slice_make(at, len), value, &shared_error) < 0 ? mg_error("%s", shared_error.text)
                                                                        : MG_OK;
}

// The same rules as cidr_load_file: one network a line, # begins a comment.
static int load_text(struct cidr *cidr, const char *path, struct slice text, uint32_t value) {
    for (unsigned number = 1; text.len > 0; number++) {
        const char *end = memchr(text.at, '\n', text.len);
        struct slice line = slice_make(text.at, end ? (size_t)(end - text.at) : text.len);
        text = slice_from(text, line.len + 1);
        if (number == 1 && slice_starts(line, SLICE_LIT("\xef\xbb\xbf")))
            line = slice_from(line, 3);
        const char *comment = line.len > 0 ? memchr(line.at, '#', line.len) : NULL;
        if (comment)
            line.len = (size_t)(comment - line.at);
        if (line.len > 0 && line.at[line.len - 1] == '\r')
            line.len--;
        struct slice network = slice_trim(line);
        if (network.len > 0 && cidr_add(cidr, network, value, &shared_error) < 0)
            return mg_error("%s:%u:%d: %s", path, number, (int)(network.at - line.at) + 1, shared_error.text);
    }
    return MG_OK;
}

int mg_cidr_load(void *set, const char *path, uint32_t value) {
    char absolute[4096];
    const struct script_host *host = host_running;
    const char *main_file = host ? host->conf->file : NULL;
    const char *slash = main_file ? strrchr(main_file, '/') : NULL;
    if (path[0] != '/' && slash) {  // relative to the configuration
        snprintf(absolute, sizeof absolute, "%.*s/%s", (int)(slash - main_file), main_file, path);
        path = absolute;
    }
    struct slice text;
    if (host && host->source && source_has(host->source, path) &&
        source_read(host->source, path, &text, &shared_error) == 0)
        return load_text(set, path, text, value);
    return cidr_load_file(set, path, value, &shared_error) < 0 ? mg_error("%s", shared_error.text) : MG_OK;
}

int mg_cidr_build(void *set) {
    return cidr_build(set) < 0 ? mg_error("memory is out") : MG_OK;
}

// A script that tampers with its set or dictionary has no pointer here, and must not bring the worker down.
double mg_cidr_find(const void *set, const char *ip, size_t len) {
    uint32_t value;
    if (!set)
        return MG_NONE;
    return cidr_lookup_text(set, slice_make(ip, len), &value) < 0 ? (double)MG_NONE : (double)value;
}

double mg_cidr_count(const void *set) {
    return set ? cidr_count(set) : 0;
}

int mg_ip_network(const char *ip, size_t len, int bits4, int bits6, struct mg_text *ret_text) {
    static char text[ADDR_IP_MAX + 4];
    struct addr addr;
    if (bits4 < 0 || bits4 > 32 || bits6 < 0 || bits6 > 128)
        return mg_error("a prefix of IPv4 has 0 to 32 bits, one of IPv6 0 to 128");
    if (addr_parse_ip(slice_make(ip, len), 0, &addr) < 0)
        return MG_NONE;
    bool v4 = addr_family(&addr) == AF_INET;
    uint8_t *bytes = v4 ? (uint8_t *)&addr.in4.sin_addr : (uint8_t *)&addr.in6.sin6_addr;
    int bits = v4 ? bits4 : bits6;
    for (int i = 0; i < (v4 ? 4 : 16); i++, bits -= 8)
        bytes[i] &= bits >= 8 ? 0xff : bits <= 0 ? 0 : (uint8_t)(0xff << (8 - bits));
    size_t n = addr_print_ip(&addr, text);
    n += (size_t)snprintf(text + n, sizeof text - n, "/%d", v4 ? bits4 : bits6);
    mg_text_set(ret_text, slice_make(text, n));
    return MG_OK;
}

double mg_hash(const char *at, size_t len) {
    return (double)(slice_hash(slice_make(at, len), 0) >> 32);
}

// ---- dictionaries -----------------------------------------------------------------------------------------

void *mg_dict_find(const char *name) {
    const struct script_host *host = host_running;
    for (unsigned i = 0; host && i < host->dict_count; i++)
        if (strcmp(host->dicts[i].name, name) == 0)
            return host->dicts[i].dict;
    if (host && host->observer && host->observer->dict)
        return host->observer->dict(host->observer->owner, name);
    return NULL;
}

// Of what was read last.
static char value_buffer[DICT_VALUE_MAX];

static int dict_failed(int err, struct slice key) {
    switch (err) {
    case -EINVAL:
        return key.len == 0 ? mg_error("a key has at least one byte")
                            : mg_error("the key has a value of another type");
    case -ENAMETOOLONG:
        return mg_error("the key has %zu bytes, at most %d fit", key.len, DICT_KEY_MAX);
    case -E2BIG:
        return mg_error("the value is too long for the dictionary");
    case -EIO:
        return mg_error("the dictionary is broken");
    }
    return mg_error("the dictionary answered %d", err);
}

static int no_dict(void) {
    return mg_error("that is no dictionary");
}

static void give_value(const struct dict_value *value, struct mg_value *ret_value) {
    switch (value->kind) {
    case DICT_number:
        ret_value->type = MG_NUMBER;
        ret_value->number = value->number;
        break;
    case DICT_boolean:
        ret_value->type = MG_BOOLEAN;
        ret_value->number = value->boolean;
        break;
    default:
        ret_value->type = MG_STRING;
        mg_text_set(&ret_value->text, value->text);
    }
}

int mg_dict_get(void *dict, const char *key_at, size_t len, struct mg_value *ret_value) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    struct dict_value value;
    int err = dict_get(dict, key, clock_ms(), &value, value_buffer, sizeof value_buffer);
    if (err == -ENOENT)
        return MG_NONE;
    if (err < 0)
        return dict_failed(err, key);
    give_value(&value, ret_value);
    return MG_OK;
}

// Of seconds; what is above is for ever, what is not a time is 0 too (Lua's half has checked it).
static uint64_t ttl_ms(double seconds) {
    return seconds > 0 && seconds < 1e9 ? (uint64_t)(seconds * 1000 + 0.999) : 0;
}

static struct dict_value value_of(int type, double number, const char *text, size_t text_len) {
    if (type == MG_NUMBER)
        return (struct dict_value){ .kind = DICT_number, .number = number };
    if (type == MG_BOOLEAN)
        return (struct dict_value){ .kind = DICT_boolean, .boolean = number != 0 };
    return (struct dict_value){ .kind = DICT_text, .text = slice_make(text, text_len) };
}

int mg_dict_set(void *dict, const char *key_at, size_t len, int type, double number, const char *text,
                size_t text_len, double ttl, int when) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    struct dict_value value = value_of(type, number, text, text_len);
    int err = when == MG_ADD ? dict_add(dict, key, &value, ttl_ms(ttl), clock_ms())
        : when == MG_REPLACE ? dict_replace(dict, key, &value, ttl_ms(ttl), clock_ms())
                             : dict_set(dict, key, &value, ttl_ms(ttl), clock_ms());
    if (err == -EEXIST || err == -ENOENT)
        return MG_NONE;
    return err < 0 ? dict_failed(err, key) : MG_OK;
}

int mg_dict_cas(void *dict, const char *key_at, size_t len, const struct mg_value *expected,
                const struct mg_value *value, double ttl) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    struct dict_value old =
        value_of(expected->type, expected->number, expected->text.at, (size_t)expected->text.len);
    struct dict_value new = value_of(value->type, value->number, value->text.at, (size_t)value->text.len);
    int err = dict_compare_and_set(dict, key, expected->type == MG_NIL ? NULL : &old,
                                   value->type == MG_NIL ? NULL : &new, ttl_ms(ttl), clock_ms());
    if (err == -EAGAIN)
        return MG_NONE;
    return err < 0 ? dict_failed(err, key) : MG_OK;
}

int mg_dict_expire(void *dict, const char *key_at, size_t len, double ttl) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    int err = dict_expire(dict, key, ttl_ms(ttl), clock_ms());
    if (err == -ENOENT)
        return MG_NONE;
    return err < 0 ? dict_failed(err, key) : MG_OK;
}

int mg_dict_ttl(void *dict, const char *key_at, size_t len, double *ret_seconds) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    uint64_t left_ms = 0;
    int err = dict_ttl(dict, key, clock_ms(), &left_ms);
    if (err == -ENOENT)
        return MG_NONE;
    *ret_seconds = (double)left_ms / 1000;
    return err < 0 ? dict_failed(err, key) : MG_OK;
}

int mg_dict_keys(void *dict, const char *prefix, size_t len, uint32_t most, struct mg_text *ret_keys,
                 double *ret_more) {
    if (!dict)
        return no_dict();
    char *keys = most <= MG_KEYS_MAX ? mg_scratch((size_t)most * (1 + DICT_KEY_MAX)) : NULL;
    bool more = false;
    if (!keys)
        return mg_error("memory is out");
    int count = dict_keys(dict, slice_make(prefix, len), most, clock_ms(), keys, &more);
    if (count < 0)
        return dict_failed(count, slice_make(prefix, len));
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += 1 + (size_t)(unsigned char)keys[bytes];
    mg_text_set(ret_keys, slice_make(keys, bytes));
    *ret_more = more;
    return MG_OK;
}

int mg_dict_push(void *dict, const char *key_at, size_t len, int right, const struct mg_value *value,
                 double *ret_count) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    struct dict_value pushed = value_of(value->type, value->number, value->text.at, (size_t)value->text.len);
    uint64_t count = 0;
    int err = dict_push(dict, key, right ? DICT_RIGHT : DICT_LEFT, &pushed, clock_ms(), &count);
    if (err == -E2BIG)
        return MG_NONE;
    *ret_count = (double)count;
    return err < 0 ? dict_failed(err, key) : MG_OK;
}

int mg_dict_pop(void *dict, const char *key_at, size_t len, int right, struct mg_value *ret_value) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    struct dict_value value;
    int err = dict_pop(dict, key, right ? DICT_RIGHT : DICT_LEFT, clock_ms(), &value, value_buffer);
    if (err == -ENOENT)
        return MG_NONE;
    if (err < 0)
        return dict_failed(err, key);
    give_value(&value, ret_value);
    return MG_OK;
}

int mg_dict_length(void *dict, const char *key_at, size_t len, double *ret_count) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    uint64_t count = 0;
    int err = dict_length(dict, key, clock_ms(), &count);
    *ret_count = (double)count;
    return err < 0 ? dict_failed(err, key) : MG_OK;
}

int mg_dict_flush(void *dict) {
    if (!dict)
        return no_dict();
    int err = dict_flush(dict);
    return err < 0 ? dict_failed(err, slice_make("", 0)) : MG_OK;
}

int mg_dict_incr(void *dict, const char *key_at, size_t len, double by, double initial, double ttl,
                 double *ret_number) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    int err = dict_incr(dict, key, by, initial, ttl_ms(ttl), clock_ms(), ret_number);
    if (err == -ENOENT)
        return MG_NONE;
    return err < 0 ? dict_failed(err, key) : MG_OK;
}

int mg_dict_take(void *dict, const char *key_at, size_t len, double rate, double burst, double cost,
                 double *ret_wait) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    bool allowed;
    if (!(rate > 0) || !(burst > 0) || !(cost >= 0) || !isfinite(rate) || !isfinite(burst) || !isfinite(cost))
        return mg_error("take: rate and burst must be above 0, cost not below 0");
    int err = dict_take(dict, key, rate, burst, cost, clock_ms(), &allowed, ret_wait);
    if (err < 0)
        return dict_failed(err, key);
    return allowed ? MG_OK : MG_NONE;
}

int mg_dict_delete(void *dict, const char *key_at, size_t len) {
    if (!dict)
        return no_dict();
    struct slice key = slice_make(key_at, len);
    int err = dict_delete(dict, key, clock_ms());
    if (err == -ENOENT)
        return MG_NONE;
    return err < 0 ? dict_failed(err, key) : MG_OK;
}

int mg_dict_stats(void *dict, struct mg_dict_stats *ret_stats) {
    struct dict_stats stats;
    if (!dict)
        return no_dict();
    int err = dict_get_stats(dict, &stats);
    if (err < 0)
        return dict_failed(err, slice_make("", 0));
#define X(name, doc) ret_stats->name = (double)stats.name;
    DICT_STATS(X)
#undef X
    return MG_OK;
}
