// SPDX-License-Identifier: BSD-2-Clause
// The bytes of the PROXY protocol for proxy_header.h. Reading is strict, for who sends it is another proxy
// and what it says is believed: numbers have one form, lengths fit exactly, a checksum is looked at.
#include "net/proxy_header.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

enum { SIGNATURE = 12, TLV_HEAD = 3, SSL_HEAD = 5, UNIX_PATH = 108 };
enum { FAMILY_UNSPEC = 0, FAMILY_INET = 1, FAMILY_INET6 = 2, FAMILY_UNIX = 3, STREAM = 1 };
enum { IN4_BYTES = 12, IN6_BYTES = 36, UNIX_BYTES = 2 * UNIX_PATH };

static const char signature[SIGNATURE] = "\r\n\r\n\0\r\nQUIT\n";
static const struct slice v1_begin = SLICE_LIT("PROXY ");

// CRC-32C (RFC 3720, B.4), four bits at a time: headers are short.
static uint32_t crc32c(uint32_t crc, const uint8_t *at, size_t len) {
    static const uint32_t table[16] = { 0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                        0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75 };
    crc = ~crc;
    for (size_t i = 0; i < len; i++) {
        crc = (crc >> 4) ^ table[(crc ^ at[i]) & 15];
        crc = (crc >> 4) ^ table[(crc ^ (at[i] >> 4)) & 15];
    }
    return ~crc;
}

static unsigned read16(const uint8_t *at) {
    return (unsigned)at[0] << 8 | at[1];
}

static uint32_t read32(const uint8_t *at) {
    return (uint32_t)read16(at) << 16 | read16(at + 2);
}

static void write16(uint8_t *at, size_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void write32(uint8_t *at, uint32_t value) {
    write16(at, value >> 16);
    write16(at + 2, value & 0xffff);
}

// ---- version 1
// --------------------------------------------------------------------------------------------

// The next word of the line, up to one space or the end.
static struct slice word(struct slice *rest) {
    const char *space = rest->len ? memchr(rest->at, ' ', rest->len) : NULL;
    struct slice found = slice_make(rest->at, space ? (size_t)(space - rest->at) : rest->len);
    *rest = slice_from(*rest, found.len + 1);
    return found;
}

static bool read_port(struct slice text, uint16_t *ret_port) {
    uint64_t value;
    if (text.len > 5 || (text.len > 1 && text.at[0] == '0') || slice_to_u64(text, &value) < 0 ||
        value > 65535)
        return false;
    *ret_port = (uint16_t)value;
    return true;
}

static bool read_ip(struct slice text, int family, struct addr *ret_addr) {
    return addr_parse_ip(text, 0, ret_addr) == 0 && addr_family(ret_addr) == family;
}

static int read_line(struct slice line, struct proxy_header *header, struct error *error) {
    struct slice rest = slice_from(line, v1_begin.len);
    struct slice protocol = word(&rest);
    if (slice_eq(protocol, SLICE_LIT("UNKNOWN")))
        return 0;  // whatever follows
    int family = slice_eq(protocol, SLICE_LIT("TCP4")) ? AF_INET : AF_INET6;
    if (family == AF_INET6 && !slice_eq(protocol, SLICE_LIT("TCP6")))
        return error_set(error, -EPROTO, "PROXY header: neither TCP4, TCP6 nor UNKNOWN");
    uint16_t port, to_port;
    if (!read_ip(word(&rest), family, &header->source) || !read_ip(word(&rest), family, &header->destination))
        return error_set(error, -EPROTO, "PROXY header: bad address");
    // The last word is the end of the line, with no space behind it.
    bool from = read_port(word(&rest), &port);
    bool more = memchr(rest.at, ' ', rest.len) != NULL;
    if (!from || more || !read_port(rest, &to_port))
        return error_set(error, -EPROTO, "PROXY header: bad port");
    addr_set_port(&header->source, port);
    addr_set_port(&header->destination, to_port);
    return 0;
}

static int read_v1(struct slice bytes, struct proxy_header *header, size_t *ret_len, struct error *error) {
    size_t look = bytes.len < PROXY_V1_MAX ? bytes.len : PROXY_V1_MAX;
    const char *end = memchr(bytes.at, '\r', look);
    size_t len = end ? (size_t)(end - bytes.at) : look;
    if (memchr(bytes.at, '\n', len) || (end && len + 1 < bytes.len && end[1] != '\n'))
        return error_set(error, -EPROTO, "PROXY header: the line does not end with CRLF");
    if (len + (end ? 2 : 1) > PROXY_V1_MAX)
        return error_set(error, -EPROTO, "PROXY header: longer than %d bytes", PROXY_V1_MAX);
    if (!end || len + 2 > bytes.len)
        return -EAGAIN;
    header->version = 1;
    header->command = PROXY_PROXY;
    *ret_len = len + 2;
    return read_line(slice_make(bytes.at, len), header, error);
}

// ---- version 2
// --------------------------------------------------------------------------------------------

bool proxy_tlv_next(struct slice *rest, uint8_t *ret_type, struct slice *ret_value) {
    if (rest->len < TLV_HEAD)
        return false;
    const uint8_t *at = (const uint8_t *)rest->at;
    size_t len = read16(at + 1);
    if (len > rest->len - TLV_HEAD)
        return false;
    *ret_type = at[0];
    *ret_value = slice_make(rest->at + TLV_HEAD, len);
    *rest = slice_make(rest->at + TLV_HEAD + len, rest->len - TLV_HEAD - len);
    return true;
}

bool proxy_tlv_find(struct slice tlvs, uint8_t type, struct slice *ret_value) {
    uint8_t found;
    struct slice value;
    while (proxy_tlv_next(&tlvs, &found, &value))
        if (found == type) {
            *ret_value = value;
            return true;
        }
    return false;
}

int proxy_ssl_read(struct slice value, struct proxy_ssl *ret_ssl) {
    const uint8_t *at = (const uint8_t *)value.at;
    if (value.len < SSL_HEAD)
        return -EPROTO;
    struct proxy_ssl ssl = { .client = at[0], .verify = read32(at + 1) };
    struct slice rest = slice_from(value, SSL_HEAD), sub;
    uint8_t type;
    while (proxy_tlv_next(&rest, &type, &sub)) {
        switch (type) {
#define X(name, number, doc) \
    case PROXY_SSL_##name:   \
        if (ssl.name.at)     \
            return -EPROTO;  \
        ssl.name = sub;      \
        break;
            PROXY_SSL_TLVS(X)
#undef X
        default:
            break;
        }
    }
    if (rest.len > 0)
        return -EPROTO;
    *ret_ssl = ssl;
    return 0;
}

// The sum is over the header with the sum's own bytes as zeros.
static bool sum_is_good(struct slice bytes, struct slice sum) {
    static const uint8_t zeros[4];
    const uint8_t *at = (const uint8_t *)bytes.at;
    size_t before = (size_t)(sum.at - bytes.at);
    uint32_t crc = crc32c(0, at, before);
    crc = crc32c(crc, zeros, sizeof zeros);
    crc = crc32c(crc, at + before + sizeof zeros, bytes.len - before - sizeof zeros);
    return crc == read32(at + before);
}

// What is repeated could be read in two ways.
static bool seen_before(uint8_t type, unsigned *seen) {
    static const uint8_t once[] = { PROXY_TLV_alpn, PROXY_TLV_authority, PROXY_TLV_crc32c,
                                    PROXY_TLV_unique_id, PROXY_TLV_ssl };
    for (unsigned i = 0; i < sizeof once; i++) {
        if (once[i] != type)
            continue;
        bool before = *seen & 1u << i;
        *seen |= 1u << i;
        return before;
    }
    return false;
}

static int check_tlvs(struct slice bytes, struct slice tlvs, struct error *error) {
    struct slice value;
    struct proxy_ssl ssl;
    unsigned seen = 0;
    uint8_t type;
    while (proxy_tlv_next(&tlvs, &type, &value)) {
        if (seen_before(type, &seen))
            return error_set(error, -EPROTO, "PROXY header: TLV 0x%02x is repeated", type);
        if (type == PROXY_TLV_crc32c && value.len != 4)
            return error_set(error, -EPROTO, "PROXY header: a checksum of %zu bytes", value.len);
        if (type == PROXY_TLV_crc32c && !sum_is_good(bytes, value))
            return error_set(error, -EBADMSG, "PROXY header: wrong checksum");
        if (type == PROXY_TLV_unique_id && value.len > PROXY_UNIQUE_ID_MAX)
            return error_set(error, -EPROTO, "PROXY header: a unique id of %zu bytes", value.len);
        if (type == PROXY_TLV_ssl && proxy_ssl_read(value, &ssl) < 0)
            return error_set(error, -EPROTO, "PROXY header: what it says of TLS is broken");
    }
    if (tlvs.len > 0)
        return error_set(error, -EPROTO, "PROXY header: a TLV that does not fit");
    return 0;
}

static void take_in4(struct addr *addr, const uint8_t *ip, const uint8_t *port) {
    addr->in4.sin_family = AF_INET;
    memcpy(&addr->in4.sin_addr, ip, 4);
    memcpy(&addr->in4.sin_port, port, 2);
    addr->len = sizeof addr->in4;
}

static void take_in6(struct addr *addr, const uint8_t *ip, const uint8_t *port) {
    addr->in6.sin6_family = AF_INET6;
    memcpy(&addr->in6.sin6_addr, ip, 16);
    memcpy(&addr->in6.sin6_port, port, 2);
    addr->len = sizeof addr->in6;
}

// An abstract name begins with NUL and ends with the field's last byte that is not NUL.
static void take_unix(struct addr *addr, const uint8_t *path) {
    size_t len = path[0] ? strnlen((const char *)path, UNIX_PATH) : UNIX_PATH;
    while (len > 0 && !path[len - 1])
        len--;
    addr->un.sun_family = AF_UNIX;
    memcpy(addr->un.sun_path, path, len);
    bool ends = path[0] && len < UNIX_PATH;
    addr->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + ends);
}

// Returns how many bytes the addresses have, negative when there are not so many.
static int take_addresses(struct proxy_header *header, unsigned family, const uint8_t *at, size_t room) {
    static const uint16_t bytes[] = { 0, IN4_BYTES, IN6_BYTES, UNIX_BYTES };
    if (room < bytes[family])
        return -EPROTO;
    switch (family) {
    case FAMILY_INET:
        take_in4(&header->source, at, at + 8);
        take_in4(&header->destination, at + 4, at + 10);
        break;
    case FAMILY_INET6:
        take_in6(&header->source, at, at + 32);
        take_in6(&header->destination, at + 16, at + 34);
        break;
    case FAMILY_UNIX:
        take_unix(&header->source, at);
        take_unix(&header->destination, at + UNIX_PATH);
        break;
    default:
        break;
    }
    return bytes[family];
}

static int read_v2(struct slice bytes, struct proxy_header *header, size_t *ret_len, struct error *error) {
    const uint8_t *at = (const uint8_t *)bytes.at;
    if (bytes.len < PROXY_V2_FIXED)
        return -EAGAIN;
    unsigned family = at[13] >> 4, transport = at[13] & 15;
    size_t len = read16(at + 14);
    if (at[12] >> 4 != 2 || (at[12] & 15) > PROXY_PROXY)
        return error_set(error, -EPROTO, "PROXY header: unknown version or command 0x%02x", at[12]);
    if (PROXY_V2_FIXED + len > PROXY_HEADER_MAX)
        return error_set(error, -EMSGSIZE, "PROXY header: %zu bytes, more than %d", PROXY_V2_FIXED + len,
                         PROXY_HEADER_MAX);
    header->version = 2;
    header->command = at[12] & 15;
    bool proxied = header->command == PROXY_PROXY;
    // Of LOCAL nothing is looked at but the length, as the protocol demands.
    if (proxied &&
        (family > FAMILY_UNIX || transport > STREAM || (family == FAMILY_UNSPEC) != (transport == 0)))
        return error_set(error, -EPROTO, "PROXY header: family 0x%02x is no stream's", at[13]);
    if (bytes.len < PROXY_V2_FIXED + len)
        return -EAGAIN;
    *ret_len = PROXY_V2_FIXED + len;
    if (!proxied)
        return 0;
    int used = take_addresses(header, family, at + PROXY_V2_FIXED, len);
    if (used < 0)
        return error_set(error, -EPROTO, "PROXY header: %zu bytes are too few for its addresses", len);
    header->tlvs = slice_make(bytes.at + PROXY_V2_FIXED + used, len - (size_t)used);
    return check_tlvs(slice_make(bytes.at, *ret_len), header->tlvs, error);
}

static bool begins(struct slice bytes, const char *with, size_t len) {
    return memcmp(bytes.at, with, bytes.len < len ? bytes.len : len) == 0;
}

int proxy_header_read(struct slice bytes, struct proxy_header *ret_header, size_t *ret_len,
                      struct error *error) {
    struct proxy_header header = { 0 };
    int rc;
    if (bytes.len == 0)
        return -EAGAIN;
    if (begins(bytes, signature, SIGNATURE))
        rc = read_v2(bytes, &header, ret_len, error);
    else if (!begins(bytes, v1_begin.at, v1_begin.len))
        rc = error_set(error, -EPROTO, "no PROXY header");
    else
        rc = bytes.len < v1_begin.len ? -EAGAIN : read_v1(bytes, &header, ret_len, error);
    if (rc == 0)
        *ret_header = header;
    return rc;
}

// ---- writing
// ----------------------------------------------------------------------------------------------

static bool is_ip(const struct addr *addr) {
    return addr_family(addr) == AF_INET || addr_family(addr) == AF_INET6;
}

// The family that holds both addresses.
static unsigned family_of(const struct addr *a, const struct addr *b) {
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    uint8_t key_a[16], key_b[16];
    if (addr_family(a) == AF_UNIX && addr_family(b) == AF_UNIX)
        return FAMILY_UNIX;
    if (!is_ip(a) || !is_ip(b) || !addr_key(a, key_a) || !addr_key(b, key_b))
        return FAMILY_UNSPEC;
    bool both_v4 = memcmp(key_a, mapped, sizeof mapped) == 0 && memcmp(key_b, mapped, sizeof mapped) == 0;
    return both_v4 ? FAMILY_INET : FAMILY_INET6;
}

size_t proxy_v1_write(char to[PROXY_V1_MAX + 1], const struct addr *source, const struct addr *destination) {
    unsigned family = family_of(source, destination);
    uint8_t from_key[16], to_key[16];
    char from_ip[INET6_ADDRSTRLEN], to_ip[INET6_ADDRSTRLEN];
    if (family != FAMILY_INET && family != FAMILY_INET6)
        return (size_t)snprintf(to, PROXY_V1_MAX + 1, "PROXY UNKNOWN\r\n");
    (void)addr_key(source, from_key);
    (void)addr_key(destination, to_key);
    bool v4 = family == FAMILY_INET;
    inet_ntop(v4 ? AF_INET : AF_INET6, from_key + (v4 ? 12 : 0), from_ip, sizeof from_ip);
    inet_ntop(v4 ? AF_INET : AF_INET6, to_key + (v4 ? 12 : 0), to_ip, sizeof to_ip);
    return (size_t)snprintf(to, PROXY_V1_MAX + 1, "PROXY TCP%c %s %s %u %u\r\n", v4 ? '4' : '6', from_ip,
                            to_ip, addr_port(source), addr_port(destination));
}

static void put(struct proxy_writer *writer, const void *at, size_t len) {
    if (writer->full || len > sizeof writer->at - writer->len) {
        writer->full = true;
        return;
    }
    if (len > 0)
        memcpy(writer->at + writer->len, at, len);
    writer->len += len;
}

static void put_ip(struct proxy_writer *writer, unsigned family, const struct addr *addr) {
    uint8_t key[16];
    (void)addr_key(addr, key);
    if (family == FAMILY_INET)
        put(writer, key + 12, 4);
    else
        put(writer, key, 16);
}

static void put_port(struct proxy_writer *writer, const struct addr *addr) {
    uint8_t port[2];
    write16(port, addr_port(addr));
    put(writer, port, sizeof port);
}

static void put_unix(struct proxy_writer *writer, const struct addr *addr) {
    char path[UNIX_PATH] = { 0 };
    size_t before = offsetof(struct sockaddr_un, sun_path);
    if (addr->len > before)
        memcpy(path, addr->un.sun_path, addr->len - before);
    put(writer, path, sizeof path);
}

void proxy_v2_begin(struct proxy_writer *writer, enum proxy_command command, const struct addr *source,
                    const struct addr *destination) {
    unsigned family = command == PROXY_LOCAL ? FAMILY_UNSPEC : family_of(source, destination);
    uint8_t head[4] = { (uint8_t)(0x20 | command), (uint8_t)(family ? family << 4 | STREAM : 0) };
    writer->len = 0;
    writer->full = false;
    put(writer, signature, SIGNATURE);
    put(writer, head, sizeof head);
    if (family == FAMILY_UNIX) {
        put_unix(writer, source);
        put_unix(writer, destination);
    } else if (family != FAMILY_UNSPEC) {
        put_ip(writer, family, source);
        put_ip(writer, family, destination);
        put_port(writer, source);
        put_port(writer, destination);
    }
}

void proxy_v2_tlv(struct proxy_writer *writer, uint8_t type, struct slice value) {
    uint8_t head[TLV_HEAD] = { type };
    if (value.len > sizeof writer->at) {
        writer->full = true;
        return;
    }
    write16(head + 1, value.len);
    put(writer, head, sizeof head);
    put(writer, value.at, value.len);
}

void proxy_v2_ssl(struct proxy_writer *writer, const struct proxy_ssl *ssl) {
    uint8_t head[SSL_HEAD] = { ssl->client };
    size_t at = writer->len;
    proxy_v2_tlv(writer, PROXY_TLV_ssl, slice_make(NULL, 0));
    write32(head + 1, ssl->verify);
    put(writer, head, sizeof head);
#define X(name, type, doc) \
    if (ssl->name.len > 0) \
        proxy_v2_tlv(writer, type, ssl->name);
    PROXY_SSL_TLVS(X)
#undef X
    if (!writer->full)
        write16(writer->at + at + 1, writer->len - at - TLV_HEAD);
}

int proxy_v2_end(struct proxy_writer *writer, bool checksum) {
    static const char zeros[4];
    if (checksum)
        proxy_v2_tlv(writer, PROXY_TLV_crc32c, slice_make(zeros, sizeof zeros));
    if (writer->full)
        return -EMSGSIZE;
    write16(writer->at + 14, writer->len - PROXY_V2_FIXED);
    if (checksum)
        write32(writer->at + writer->len - sizeof zeros, crc32c(0, writer->at, writer->len));
    return 0;
}
