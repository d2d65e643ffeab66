// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for what a proxy does with header fields: lists taken apart, hop-by-hop fields removed, Forwarded and
// X-Forwarded-* written. The first byte chooses settings and addresses, each further line is a field "name:value" or,
// without a colon, an authority. What a client sends must never hide or move the element that is ours: it is the last
// one of its list, whatever stands before it.
#include "fuzz.h"
#include "http/rules.h"
#include "http/target.h"

// As many elements as a reader finds who knows nothing of quotes, and the last of them.
static struct slice last_between_commas(struct slice list) {
    for (size_t i = list.len; i-- > 0;)
        if (list.at[i] == ',')
            return slice_trim(slice_from(list, i + 1));
    return slice_trim(list);
}

static struct slice last_element(struct slice list) {
    struct slice element, last = slice_make(NULL, 0);
    while (slice_next_element(&list, &element)) {
        must(element.len > 0);
        must(element.at[0] != ' ' && element.at[0] != '\t');
        last = element;
    }
    return last;
}

static struct slice only_value(const struct headers *headers, struct slice name) {
    uint32_t position = 0;
    const struct header *header = headers_next(headers, name, &position);
    must(header);
    must(!headers_next(headers, name, &position));
    must(header_value_valid(header->value));
    return header->value;
}

static const struct addr *address(unsigned which) {
    static struct addr made[4];
    static const char *const texts[] = { "10.1.2.3", "2001:db8::1", "::ffff:1.2.3.4" };
    which %= 4;
    if (which < 3 && made[which].len == 0)
        must(addr_parse_ip(slice_of(texts[which]), 80, &made[which]) == 0);
    else if (which == 3)
        made[3] = (struct addr){ .un = { .sun_family = AF_UNIX }, .len = sizeof(sa_family_t) };
    return &made[which];
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    if (len == 0)
        return 0;
    struct conf_settings settings = {
        .forwarded = bytes[0] & 1,
        .x_forwarded = (enum conf_x_forwarded)((bytes[0] >> 1 & 3) % 3),
    };
    const struct addr *client = address(bytes[0] >> 3), *local = address(bytes[0] >> 5);
    struct slice rest = slice_make((const char *)bytes + 1, len - 1);
    struct request request = { .method = SLICE_LIT("GET"), .scheme = SLICE_LIT("http") };
    struct arena arena;
    arena_init(&arena);
    while (rest.len > 0) {
        struct slice line = fuzz_line(&rest);
        const char *colon = line.len > 0 ? memchr(line.at, ':', line.len) : NULL;
        struct slice name = slice_make(line.at, colon ? (size_t)(colon - line.at) : 0);
        struct slice value = colon ? slice_trim(slice_from(line, name.len + 1)) : line;
        if (!colon && authority_valid(line))
            request.authority = line;
        else if (colon && header_name_valid(name) && header_value_valid(value))
            must(headers_add(&request.headers, &arena, name, value) == 0);
    }
    rules_strip_hop_by_hop(&request.headers, bytes[0] & 0x80);
    must(!headers_find(&request.headers, HEADER_connection));
    must(!headers_find(&request.headers, HEADER_te) && !headers_find(&request.headers, HEADER_keep_alive));
    must(rules_add_forwarded(&request, &arena, &settings, client, local) == 0);
    char ip[ADDR_IP_MAX];
    addr_print_ip(client, ip);
    if (settings.x_forwarded != X_FORWARDED_OFF) {
        struct slice list = only_value(&request.headers, SLICE_LIT("X-Forwarded-For"));
        must(slice_eq(last_between_commas(list), slice_of(ip)));
        must(slice_eq(last_element(list), slice_of(ip)));
        if (settings.x_forwarded == X_FORWARDED_REPLACE)
            must(slice_eq(list, slice_of(ip)));
    }
    if (settings.forwarded) {
        struct slice element = last_element(only_value(&request.headers, SLICE_LIT("Forwarded")));
        bool v6 = strchr(ip, ':') != NULL;
        char start[ADDR_IP_MAX + 16];
        snprintf(start, sizeof start, v6 ? "for=\"[%s]\";by=" : "for=%s;by=",
                 addr_family(client) == AF_UNIX ? "unknown" : ip);
        must(slice_starts(element, slice_of(start)));
    }
    arena_release(&arena);
    return 0;
}
