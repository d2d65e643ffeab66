// SPDX-License-Identifier: BSD-2-Clause
// Headers of the PROXY protocol: the specification's own lines and bytes, each cut at every place; what
// must be refused; what is written reads as the same.
#include "net/proxy_header.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

static const char sign[] = "\r\n\r\n\0\r\nQUIT\n";

static struct addr address(const char *text) {
    struct addr addr;
    struct error error = { "" };
    cr_assert(addr_parse(slice_of(text), &addr, &error) == 0, "%s: %s", text, error.text);
    return addr;
}

static void is(const struct addr *addr, const char *text) {
    char printed[ADDR_TEXT_MAX];
    addr_print(addr, printed);
    cr_expect_str_eq(printed, text);
}

// Reads what begins with `bytes`; every shorter part of it must ask for more.
static int read_all(struct slice bytes, struct proxy_header *header) {
    struct error error = { "" };
    size_t len = 0;
    for (size_t cut = 0; cut < bytes.len; cut++) {
        char *part = malloc(cut ? cut : 1);
        memcpy(part, bytes.at, cut);
        struct proxy_header none;
        int rc = proxy_header_read(slice_make(part, cut), &none, &len, &error);
        free(part);
        cr_assert(rc == -EAGAIN, "cut at %zu of %zu: %d, %s", cut, bytes.len, rc, error.text);
    }
    int rc = proxy_header_read(bytes, header, &len, &error);
    if (rc == 0)
        cr_assert_eq(len, bytes.len);
    else
        cr_assert(error.text[0]);
    return rc;
}

static int read_line(const char *line, struct proxy_header *header) {
    struct error error = { "" };
    size_t len;
    return proxy_header_read(slice_of(line), header, &len, &error);
}

#define READ(literal, header) read_all(SLICE_LIT(literal), header)

Test(proxy_header, lines_of_the_specification) {
    struct proxy_header header;
    cr_assert_eq(READ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", &header), 0);
    is(&header.source, "255.255.255.255:65535");
    is(&header.destination, "255.255.255.255:65535");
    cr_assert_eq(header.version, 1);
    cr_assert_eq(header.command, PROXY_PROXY);
    cr_assert_eq(
        READ("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
             "65535 65535\r\n",
             &header),
        0);
    is(&header.source, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
    cr_assert_eq(READ("PROXY UNKNOWN\r\n", &header), 0);
    cr_assert_eq(addr_family(&header.source), AF_UNSPEC);
    cr_assert_eq(
        READ("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
             "65535 65535\r\n",
             &header),
        0);
    cr_assert_eq(addr_family(&header.source), AF_UNSPEC);
    cr_assert_eq(READ("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", &header), 0);
    is(&header.source, "192.168.0.1:56324");
    is(&header.destination, "192.168.0.11:443");
}

Test(proxy_header, what_follows_is_left_alone) {
    struct proxy_header header;
    struct error error;
    size_t len;
    struct slice bytes = SLICE_LIT("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET / HTTP/1.1\r\n");
    cr_assert_eq(proxy_header_read(bytes, &header, &len, &error), 0);
    cr_assert_eq(len, sizeof "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n" - 1);
}

Test(proxy_header, lines_that_are_refused) {
    static const char *const lines[] = {
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP6 ::1%lo ::1 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN fffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        "65535 65535\r\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct proxy_header header;
        cr_expect_eq(read_line(lines[i], &header), -EPROTO, "%s", lines[i]);
    }
}

// Version 2, of which the length is filled in.
static struct slice v2(char *to, uint8_t command, uint8_t family, struct slice rest) {
    memcpy(to, sign, 12);
    to[12] = (char)command;
    to[13] = (char)family;
    to[14] = (char)(rest.len >> 8);
    to[15] = (char)rest.len;
    memcpy(to + 16, rest.at, rest.len);
    return slice_make(to, 16 + rest.len);
}

#define V2(command, family, rest) v2((char[PROXY_HEADER_MAX + 64]){ 0 }, command, family, SLICE_LIT(rest))
#define V4                        "\1\2\3\4\5\6\7\10\x04\xd2\0\x50"

Test(proxy_header, version_2_of_each_family) {
    struct proxy_header header;
    cr_assert_eq(read_all(V2(0x21, 0x11, V4), &header), 0);
    is(&header.source, "1.2.3.4:1234");
    is(&header.destination, "5.6.7.8:80");
    cr_assert_eq(header.version, 2);
    cr_assert_eq(header.tlvs.len, 0);
    cr_assert_eq(read_all(V2(0x21, 0x21,
                             "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"
                             "\x04\xd2\0\x50"),
                          &header),
                 0);
    is(&header.source, "[2001:db8::1]:1234");
    is(&header.destination, "[::1]:80");
    char paths[216] = "/run/client";
    memcpy(paths + 108, "\0abstract", 9);
    cr_assert_eq(read_all(v2((char[300]){ 0 }, 0x21, 0x31, slice_make(paths, 216)), &header), 0);
    is(&header.source, "unix:/run/client");
    is(&header.destination, "unix:@abstract");
    memset(paths, 'x', sizeof paths);  // no NUL at all
    cr_assert_eq(read_all(v2((char[300]){ 0 }, 0x21, 0x31, slice_make(paths, 216)), &header), 0);
    cr_assert_eq(addr_family(&header.source), AF_UNIX);
    cr_assert_eq(read_all(V2(0x21, 0x00, ""), &header), 0);
    cr_assert_eq(addr_family(&header.source), AF_UNSPEC);
}

Test(proxy_header, local_says_nothing_of_addresses) {
    struct proxy_header header;
    cr_assert_eq(read_all(V2(0x20, 0x00, ""), &header), 0);
    cr_assert_eq(header.command, PROXY_LOCAL);
    cr_assert_eq(read_all(V2(0x20, 0x11, V4 "\x05\0\1x"), &header), 0);
    cr_assert_eq(addr_family(&header.source), AF_UNSPEC);
    cr_assert_eq(header.tlvs.len, 0);
    cr_assert_eq(read_all(V2(0x20, 0xff, "whatever"), &header), 0);
}

Test(proxy_header, version_2_that_is_refused) {
    struct proxy_header header;
    struct error error;
    size_t len;
    cr_expect_eq(read_all(V2(0x21, 0x11, V4 "\x05\0\2x"), &header), -EPROTO, "a TLV too long");
    cr_expect_eq(read_all(V2(0x21, 0x11, V4 "\x05\0"), &header), -EPROTO, "half a TLV");
    cr_expect_eq(read_all(V2(0x21, 0x11, V4 "\x02\0\1a\x02\0\1b"), &header), -EPROTO, "twice");
    cr_expect_eq(read_all(V2(0x21, 0x11, V4 "\x03\0\2ab"), &header), -EPROTO, "a short sum");
    cr_expect_eq(read_all(V2(0x21, 0x11, V4 "\x03\0\4abcd"), &header), -EBADMSG, "a wrong sum");
    cr_expect_eq(read_all(V2(0x21, 0x11, V4 "\x20\0\4\1\0\0\0"), &header), -EPROTO, "short TLS");
    cr_expect_eq(read_all(V2(0x21, 0x11, V4 "\x20\0\6\1\0\0\0\0!"), &header), -EPROTO, "half a TLV in TLS");
    cr_expect_eq(read_all(V2(0x21, 0x11, "\1\2\3\4\5\6\7\10\x04\xd2\0"), &header), -EPROTO,
                 "short addresses");
    cr_expect_eq(read_all(V2(0x21, 0x21, V4), &header), -EPROTO, "short addresses");
    static const uint8_t bad[][2] = { { 0x11, 0x11 }, { 0x31, 0x11 }, { 0x22, 0x11 }, { 0x21, 0x12 },
                                      { 0x21, 0x41 }, { 0x21, 0x10 }, { 0x21, 0x01 } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(proxy_header_read(V2(bad[i][0], bad[i][1], V4), &header, &len, &error), -EPROTO, "%zu",
                     i);
    struct slice wrong = V2(0x21, 0x11, V4);
    ((char *)wrong.at)[11] = 'x';
    cr_expect_eq(proxy_header_read(wrong, &header, &len, &error), -EPROTO);
}

Test(proxy_header, a_longer_one_is_refused_before_it_has_come) {
    struct proxy_header header;
    struct error error;
    size_t len;
    char bytes[16];
    memcpy(bytes, sign, 12);
    memcpy(bytes + 12, "\x21\x11\x0f\xf1", 4);
    cr_assert_eq(proxy_header_read(slice_make(bytes, 16), &header, &len, &error), -EMSGSIZE);
    bytes[15] = (char)0xf0;
    cr_assert_eq(proxy_header_read(slice_make(bytes, 16), &header, &len, &error), -EAGAIN);
}

static void written_v1(const char *from, const char *to, const char *line) {
    struct addr source = address(from), destination = address(to);
    char text[PROXY_V1_MAX + 1];
    size_t len = proxy_v1_write(text, &source, &destination);
    cr_expect_str_eq(text, line);
    cr_expect_eq(len, strlen(line));
}

Test(proxy_header, version_1_is_written) {
    written_v1("192.168.0.1:56324", "192.168.0.11:443", "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    written_v1("[2001:db8::1]:1", "[::1]:2", "PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    written_v1("[::ffff:1.2.3.4]:1", "[::ffff:5.6.7.8]:2", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n");
    written_v1("1.2.3.4:1", "[::1]:2", "PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n");
    written_v1("unix:/a", "unix:/b", "PROXY UNKNOWN\r\n");
    written_v1("unix:/a", "1.2.3.4:5", "PROXY UNKNOWN\r\n");
    written_v1("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
               "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
               "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
               "65535 65535\r\n");
}

static void same_again(const char *from, const char *to, const char *read_from, const char *read_to) {
    struct addr source = address(from), destination = address(to);
    struct proxy_writer writer;
    struct proxy_header header;
    struct slice value;
    proxy_v2_begin(&writer, PROXY_PROXY, &source, &destination);
    proxy_v2_tlv(&writer, PROXY_TLV_authority, SLICE_LIT("example.com"));
    proxy_v2_ssl(&writer,
                 &(struct proxy_ssl){
                     .client = PROXY_CLIENT_SSL, .verify = 0x01020304, .version = SLICE_LIT("TLSv1.3") });
    proxy_v2_tlv(&writer, 0xe5, SLICE_LIT("own\0own"));
    proxy_v2_tlv(&writer, PROXY_TLV_unique_id, SLICE_LIT(""));
    cr_assert_eq(proxy_v2_end(&writer, true), 0);
    cr_assert_eq(read_all(slice_make((char *)writer.at, writer.len), &header), 0);
    is(&header.source, read_from);
    is(&header.destination, read_to);
    cr_assert(proxy_tlv_find(header.tlvs, PROXY_TLV_authority, &value) &&
              slice_eq(value, SLICE_LIT("example.com")));
    cr_assert(proxy_tlv_find(header.tlvs, 0xe5, &value) && slice_eq(value, SLICE_LIT("own\0own")));
    cr_assert(proxy_tlv_find(header.tlvs, PROXY_TLV_unique_id, &value) && value.len == 0);
    cr_assert(!proxy_tlv_find(header.tlvs, PROXY_TLV_alpn, &value));
    struct proxy_ssl ssl;
    cr_assert(proxy_tlv_find(header.tlvs, PROXY_TLV_ssl, &value));
    cr_assert_eq(proxy_ssl_read(value, &ssl), 0);
    cr_assert_eq(ssl.verify, 0x01020304);
    cr_assert(slice_eq(ssl.version, SLICE_LIT("TLSv1.3")) && ssl.cn.len == 0);
    writer.at[writer.len - 20] ^= 1;
    struct error error;
    size_t len;
    cr_assert_lt(proxy_header_read(slice_make((char *)writer.at, writer.len), &header, &len, &error), 0);
}

Test(proxy_header, what_is_written_reads_as_the_same) {
    same_again("1.2.3.4:5", "6.7.8.9:10", "1.2.3.4:5", "6.7.8.9:10");
    same_again("[::1]:5", "[2001:db8::1]:10", "[::1]:5", "[2001:db8::1]:10");
    same_again("1.2.3.4:5", "[2001:db8::1]:10", "1.2.3.4:5", "[2001:db8::1]:10");
    same_again("[::ffff:1.2.3.4]:5", "[::ffff:1.2.3.5]:10", "1.2.3.4:5", "1.2.3.5:10");
    same_again("unix:/run/a", "unix:@b", "unix:/run/a", "unix:@b");
    same_again("unix:/run/a", "1.2.3.4:5", "-", "-");
}

// The header of the specification's example, with the sum that RFC 3720's polynomial has over it.
Test(proxy_header, version_2_byte_for_byte) {
    struct addr source = address("1.2.3.4:1234"), destination = address("5.6.7.8:80");
    struct proxy_writer writer;
    proxy_v2_begin(&writer, PROXY_PROXY, &source, &destination);
    cr_assert_eq(proxy_v2_end(&writer, true), 0);
    cr_assert_eq(writer.len, 35);
    cr_assert_arr_eq(writer.at,
                     "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13" V4 "\3\0\4"
                     "\xad\x04\xf6\x84",
                     35);
    proxy_v2_begin(&writer, PROXY_LOCAL, NULL, NULL);
    cr_assert_eq(proxy_v2_end(&writer, false), 0);
    cr_assert_eq(writer.len, 16);
    cr_assert_arr_eq(writer.at, "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 16);
}

Test(proxy_header, what_does_not_fit_is_told) {
    static char much[PROXY_HEADER_MAX];
    struct proxy_writer writer;
    proxy_v2_begin(&writer, PROXY_LOCAL, NULL, NULL);
    proxy_v2_tlv(&writer, 0xe0, slice_make(much, PROXY_HEADER_MAX - 16 - 3));
    cr_assert_eq(proxy_v2_end(&writer, false), 0);
    cr_assert_eq(writer.len, PROXY_HEADER_MAX);
    proxy_v2_begin(&writer, PROXY_LOCAL, NULL, NULL);
    proxy_v2_tlv(&writer, 0xe0, slice_make(much, PROXY_HEADER_MAX - 16 - 2));
    cr_assert_eq(proxy_v2_end(&writer, false), -EMSGSIZE);
    proxy_v2_begin(&writer, PROXY_LOCAL, NULL, NULL);
    proxy_v2_tlv(&writer, 0xe0, slice_make(much, PROXY_HEADER_MAX - 16 - 3 - 6));
    proxy_v2_ssl(&writer, &(struct proxy_ssl){ 0 });
    cr_assert_eq(proxy_v2_end(&writer, true), -EMSGSIZE);
}
