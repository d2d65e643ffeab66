// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for PROXY headers, which come before anything else on a connection. However the bytes are
// cut, the answer is the same, nothing behind the header matters, and what was read of version 2 can be
// written and read again.
#include "fuzz.h"
#include "net/proxy_header.h"

#include <errno.h>

static int read_copy(const void *at, size_t len, struct proxy_header *ret_header, size_t *ret_len, char **ret_copy) {
    struct error error = { "" };
    char *copy = fuzz_copy(at, len);
    int rc = proxy_header_read(slice_make(copy, len), ret_header, ret_len, &error);
    must(rc == 0 || rc == -EAGAIN || rc == -EPROTO || rc == -EBADMSG || rc == -EMSGSIZE);
    must(rc == 0 || rc == -EAGAIN || error.text[0]);
    if (ret_copy)
        *ret_copy = copy;
    else
        free(copy);
    return rc;
}

static bool same(const struct addr *a, const struct addr *b) {
    return addr_family(a) == AF_INET6 || addr_eq(a, b);  // a mapped pair is written as IPv4
}

static void write_again(const struct proxy_header *header) {
    struct proxy_writer writer;
    struct proxy_header again;
    struct slice rest = header->tlvs, value;
    size_t len;
    uint8_t type;
    proxy_v2_begin(&writer, header->command, &header->source, &header->destination);
    while (proxy_tlv_next(&rest, &type, &value)) {
        struct proxy_ssl ssl;
        if (type == PROXY_TLV_ssl) {
            must(proxy_ssl_read(value, &ssl) == 0);
            proxy_v2_ssl(&writer, &ssl);
        } else if (type != PROXY_TLV_crc32c) {
            proxy_v2_tlv(&writer, type, value);
        }
    }
    must(rest.len == 0);
    if (proxy_v2_end(&writer, true) < 0)
        return;  // no room for a sum
    must(read_copy(writer.at, writer.len, &again, &len, NULL) == 0);
    must(len == writer.len && again.command == header->command);
    must(addr_family(&again.source) == AF_UNSPEC || addr_family(&header->source) != AF_UNSPEC);
    must(same(&header->source, &again.source) && same(&header->destination, &again.destination));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    struct proxy_header header, part;
    char *copy;
    size_t used = 0, used_part;
    int rc = read_copy(bytes, len, &header, &used, &copy);
    size_t end = rc == 0 ? used : len < 600 ? len : 600;
    must(rc != 0 || (used > 0 && used <= len && used <= PROXY_HEADER_MAX));
    must(rc != -EAGAIN || len < PROXY_HEADER_MAX);
    for (size_t cut = 0; cut < end; cut += 1 + cut / 16) {
        int early = read_copy(bytes, cut, &part, &used_part, NULL);
        must(early == -EAGAIN || (early == rc && rc < 0));
    }
    if (rc == 0) {
        must(read_copy(bytes, used, &part, &used_part, NULL) == 0 && used_part == used);
        must(header.version == 2 || used <= PROXY_V1_MAX);
        must(header.tlvs.len == 0 || header.tlvs.at + header.tlvs.len == copy + used);
        write_again(&header);
    }
    free(copy);
    return 0;
}
