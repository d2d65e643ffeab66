// SPDX-License-Identifier: BSD-2-Clause
// The reader of service_record.h. Names are unpacked by c-ares, which follows their pointers within the
// message and never in circles; aliases are followed for a bounded number of steps.
#include "net/service_record.h"

#include "base/host_name.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <stdlib.h>
#include <string.h>

enum { ALIASES_MAX = 16, HEADER_LEN = 12 };

struct message {
    const uint8_t *at;
    size_t len;
    size_t records_at;  // where the answers begin
    unsigned records;
};

struct name {
    size_t len;
    char at[DNS_NAME_MAX + 1];  // in lower case
};

struct record {
    struct name owner;
    unsigned type, class;
    uint32_t ttl_s;
    size_t data_at, data_len;
};

static unsigned number16(const uint8_t *at) {
    return (unsigned)at[0] << 8 | at[1];
}

// One that is too long for a name is no one's. False: it does not end within the message.
static bool read_name(const struct message *message, size_t *at, struct name *ret_name) {
    char *text;
    long used;
    if (*at >= message->len ||
        ares_expand_name(message->at + *at, message->at, (int)message->len, &text, &used) != ARES_SUCCESS)
        return false;
    *at += (size_t)used;
    size_t len = strlen(text);
    *ret_name = (struct name){ .len = len <= DNS_NAME_MAX ? len : 0 };
    for (size_t i = 0; i < ret_name->len; i++)
        ret_name->at[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
    ares_free_string(text);
    return true;
}

static bool same_name(const struct name *a, const struct name *b) {
    return a->len > 0 && a->len == b->len && memcmp(a->at, b->at, a->len) == 0;
}

static bool read_record(const struct message *message, size_t *at, struct record *ret_record) {
    if (!read_name(message, at, &ret_record->owner) || message->len - *at < 10)
        return false;
    const uint8_t *fixed = message->at + *at;
    uint32_t ttl_s = (uint32_t)number16(fixed + 4) << 16 | number16(fixed + 6);
    ret_record->type = number16(fixed);
    ret_record->class = number16(fixed + 2);
    ret_record->ttl_s = ttl_s <= INT32_MAX ? ttl_s : 0;  // RFC 2181, 8
    ret_record->data_len = number16(fixed + 8);
    ret_record->data_at = *at + 10;
    if (message->len - ret_record->data_at < ret_record->data_len)
        return false;
    *at = ret_record->data_at + ret_record->data_len;
    return true;
}

// A name in a record's data, up to its end.
static bool read_target(const struct message *message, const struct record *record, size_t skip,
                        struct name *ret_name) {
    size_t at = record->data_at + skip;
    return record->data_len > skip && read_name(message, &at, ret_name) &&
        at == record->data_at + record->data_len;
}

// By priority, target, port: servers may give their records in another order each time, and the same ones
// are to be kept.
static int compare(const struct dns_service *a, const struct dns_service *b) {
    if (a->priority != b->priority)
        return a->priority < b->priority ? -1 : 1;
    int order = strcmp(a->target, b->target);
    return order ? order : (a->port > b->port) - (a->port < b->port);
}

static void keep(struct dns_service *services, unsigned *count, const struct dns_service *one) {
    unsigned at = *count;
    while (at > 0 && compare(&services[at - 1], one) > 0)
        at--;
    if (at == DNS_SERVICES_MAX || (at > 0 && compare(&services[at - 1], one) == 0))
        return;
    unsigned behind = (*count < DNS_SERVICES_MAX ? *count : DNS_SERVICES_MAX - 1) - at;
    memmove(&services[at + 1], &services[at], behind * sizeof *services);
    services[at] = *one;
    *count += *count < DNS_SERVICES_MAX;
}

static bool take_service(const struct message *message, const struct record *record,
                         struct dns_service *services, unsigned *count) {
    struct name target;
    if (!read_target(message, record, 6, &target))
        return false;
    const uint8_t *data = message->at + record->data_at;
    struct dns_service one = { number16(data), number16(data + 2), number16(data + 4), (uint8_t)target.len,
                               "" };
    // The root says that there is no such service; what is no host name cannot be connected to.
    if (one.port == 0 || !host_name_valid(slice_make(target.at, target.len)))
        return true;
    memcpy(one.target, target.at, target.len);
    keep(services, count, &one);
    return true;
}

static bool begin(struct message *message, struct name *ret_asked) {
    if (message->len < HEADER_LEN || message->len > UINT16_MAX || number16(message->at + 4) != 1)
        return false;
    size_t at = HEADER_LEN;
    if (!read_name(message, &at, ret_asked) || message->len - at < 4)
        return false;
    message->records_at = at + 4;
    message->records = number16(message->at + 6);
    return true;
}

// Goes through the answers once: services of `name`, or where it is an alias, of what. False: nonsense.
static bool go_through(const struct message *message, struct name *name, bool *ret_alias,
                       struct dns_service *services, unsigned *count, uint32_t *ttl_s) {
    struct name alias = { 0 };
    size_t at = message->records_at;
    *ret_alias = false;
    for (unsigned i = 0; i < message->records; i++) {
        struct record record;
        if (!read_record(message, &at, &record))
            return false;
        if (record.class != ns_c_in || !same_name(&record.owner, name))
            continue;
        if (record.type == ns_t_srv && !take_service(message, &record, services, count))
            return false;
        if (record.type == ns_t_cname && !*ret_alias) {
            if (!read_target(message, &record, 0, &alias))
                return false;
            *ret_alias = true;
        }
        if ((record.type == ns_t_srv || record.type == ns_t_cname) && record.ttl_s < *ttl_s)
            *ttl_s = record.ttl_s;
    }
    if (*ret_alias)
        *name = alias;
    return true;
}

enum dns_failure dns_read_services(const uint8_t *bytes, size_t len, struct dns_service *services,
                                   unsigned *ret_count, uint32_t *ret_ttl_s) {
    struct message message = { .at = bytes, .len = len };
    struct name name;
    unsigned count = 0;
    uint32_t ttl_s = UINT32_MAX;
    bool alias = true;
    if (!begin(&message, &name))
        return DNS_bad_answer;
    for (unsigned step = 0; alias && count == 0; step++)
        if (step > ALIASES_MAX || !go_through(&message, &name, &alias, services, &count, &ttl_s))
            return DNS_bad_answer;
    if (count == 0)
        return DNS_no_service;
    *ret_count = count;
    *ret_ttl_s = ttl_s;
    return DNS_none;
}
