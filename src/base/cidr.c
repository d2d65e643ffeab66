// SPDX-License-Identifier: BSD-2-Clause
// A trie per family with 64 children a node, which are found by counting the bits of a map: a node is 24
// bytes however many children it has, so the upper levels stay in the cache. Addresses are 128-bit numbers
// whose first bit is the highest; IPv4 uses the upper 32.
#include "base/cidr.h"

#include "base/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef unsigned __int128 u128;

enum { STRIDE = 6, FANOUT = 1 << STRIDE };

struct entry {
    u128 key;
    uint32_t value, order;  // order: of two equal networks the later one counts
    uint8_t len;
};

struct entries {
    struct entry *at;
    size_t count, room;
};

// For each of the 64 values of the next six bits there is a child node (bit in `children`) or a leaf. Leaves
// are stored once a run: bit i of `runs` says that the leaf at i begins a new one.
struct node {
    uint64_t children, runs;
    uint32_t first_child, first_leaf;
};

struct trie {
    struct node *nodes;
    uint32_t *leaves;
    size_t node_count, node_room, leaf_count, leaf_room;
};

struct cidr {
    struct entries entries[2];  // given back by cidr_build
    struct trie tries[2];       // IPv4, IPv6
    uint32_t limit, count;
    bool built;
};

struct cidr *cidr_new(uint32_t limit) {
    struct cidr *cidr = calloc(1, sizeof *cidr);
    if (cidr)
        cidr->limit = limit;
    return cidr;
}

static void trie_release(struct trie *trie) {
    free(trie->nodes);
    free(trie->leaves);
    *trie = (struct trie){ 0 };
}

void cidr_free(struct cidr *cidr) {
    if (!cidr)
        return;
    for (int family = 0; family < 2; family++) {
        free(cidr->entries[family].at);
        trie_release(&cidr->tries[family]);
    }
    free(cidr);
}

// Room for `more` objects behind the first `count`.
static int grow(void **at, size_t *room, size_t count, size_t more, size_t size) {
    if (*room - count >= more)
        return 0;
    size_t want = *room < 16 ? 16 : *room + *room / 2;
    if (want < count + more)
        want = count + more;
    void *moved = want > UINT32_MAX ? NULL : realloc(*at, want * size);
    if (!moved)
        return -ENOMEM;
    *at = moved;
    *room = want;
    return 0;
}

#define GROW(array, room, count, more) grow((void **)&(array), &(room), (count), (more), sizeof *(array))

// Family 0 (IPv4) or 1, or -1 for a unix socket.
static int key_of(const struct addr *addr, u128 *ret_key) {
    uint8_t bytes[16];
    if (!addr_key(addr, bytes))
        return -1;
    uint64_t high, low;
    memcpy(&high, bytes, 8);
    memcpy(&low, bytes + 8, 8);
    high = __builtin_bswap64(high);
    low = __builtin_bswap64(low);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    high = __builtin_bswap64(high);
    low = __builtin_bswap64(low);
#endif
    if (high == 0 && low >> 32 == 0xffff) {
        *ret_key = (u128)(uint32_t)low << 96;
        return 0;
    }
    *ret_key = (u128)high << 64 | low;
    return 1;
}

static u128 mask_of(unsigned len) {
    return len == 0 ? 0 : ~(u128)0 << (128 - len);
}

// The network that was meant when host bits are set.
static void print_masked(const struct addr *given, unsigned bits, char text[ADDR_IP_MAX]) {
    struct addr addr = *given;
    uint8_t *bytes =
        addr.sa.sa_family == AF_INET ? (uint8_t *)&addr.in4.sin_addr : addr.in6.sin6_addr.s6_addr;
    unsigned width = addr.sa.sa_family == AF_INET ? 32 : 128;
    for (unsigned bit = bits; bit < width; bit++)
        bytes[bit / 8] &= (uint8_t)~(0x80u >> bit % 8);
    addr_print_ip(&addr, text);
}

int cidr_add(struct cidr *cidr, struct slice network, uint32_t value, struct error *error) {
    if (!check_soft(!cidr->built) || !check_soft(value < UINT32_MAX))
        return error_set(error, -EINVAL, "the set is closed or its value is out of range");
    struct slice host = network, digits = { 0 };
    const char *slash = network.len ? memchr(network.at, '/', network.len) : NULL;
    if (slash) {
        host.len = (size_t)(slash - network.at);
        digits = slice_from(network, host.len + 1);
    }
    struct addr addr;
    if (addr_parse_ip(host, 0, &addr) < 0)
        return error_set(error, -EINVAL,
                         "\"%.*s\" is not a network: expected IPV4/0-32, IPV6/0-128 or an address",
                         SLICE_ARG(network));
    unsigned width = addr.sa.sa_family == AF_INET ? 32 : 128;
    uint64_t bits = width;
    if (slash && (slice_to_u64(digits, &bits) < 0 || bits > width || digits.len > 3 ||
                  (digits.len > 1 && digits.at[0] == '0')))
        return error_set(error, -EINVAL, "\"%.*s\" has a bad prefix length \"%.*s\": expected 0 to %u",
                         SLICE_ARG(network), SLICE_ARG(digits), width);
    u128 key;
    int family = key_of(&addr, &key);
    // An IPv4-mapped network goes to IPv4; a shorter one would cut through the prefix that makes it mapped.
    bool mapped = family == 0 && width == 128, cut = mapped && bits < 96;
    unsigned len = (unsigned)(mapped && !cut ? bits - 96 : bits);
    if (cut || (key & ~mask_of(len)) != 0) {
        char right[ADDR_IP_MAX];
        print_masked(&addr, (unsigned)bits, right);
        return error_set(error, -EINVAL, "\"%.*s\" has bits set behind its prefix: expected \"%s/%u\"",
                         SLICE_ARG(network), right, len);
    }
    if (cidr->count >= cidr->limit)
        return error_set(error, -E2BIG, "more than %u networks in one set", cidr->limit);
    struct entries *entries = &cidr->entries[family];
    if (GROW(entries->at, entries->room, entries->count, 1) < 0)
        return error_set(error, -ENOMEM, "no memory for %u networks", cidr->count + 1);
    entries->at[entries->count++] =
        (struct entry){ .key = key, .len = (uint8_t)len, .value = value, .order = cidr->count++ };
    return 0;
}

// Takes one line without its end; an empty one is fine. *ret_column says where the error is.
static int add_line(struct cidr *cidr, struct slice line, uint32_t value, size_t *ret_column,
                    struct error *error) {
    const char *hash = line.len ? memchr(line.at, '#', line.len) : NULL;
    struct slice text = hash ? slice_make(line.at, (size_t)(hash - line.at)) : line;
    if (text.len > 0 && text.at[text.len - 1] == '\r')
        text.len--;
    text = slice_trim(text);
    if (text.len == 0)
        return 0;
    size_t end = 0;
    while (end < text.len && text.at[end] != ' ' && text.at[end] != '\t')
        end++;
    *ret_column = (size_t)(text.at - line.at) + 1;
    int rc = cidr_add(cidr, slice_make(text.at, end), value, error);
    if (rc < 0 || end == text.len)
        return rc;
    struct slice rest = slice_trim(slice_from(text, end));
    *ret_column = (size_t)(rest.at - line.at) + 1;
    return error_set(error, -EINVAL, "\"%.*s\" follows the network: expected the line's end or a # comment",
                     SLICE_ARG(rest));
}

int cidr_load_file(struct cidr *cidr, const char *path, uint32_t value, struct error *error) {
    FILE *file = fopen(path, "re");
    if (!file) {
        int failed = -errno;
        return error_set(error, failed, "cannot open \"%s\": %s", path, strerror(-failed));
    }
    char line[1024];
    size_t len = 0, number = 1, column = 1;
    int rc = 0, code = 0;
    for (int c = 0; rc == 0 && c != EOF;) {
        c = getc_unlocked(file);
        if (c == EOF && ferror(file))
            code = -errno;
        if (c != EOF && c != '\n') {
            if (len < sizeof line) {
                line[len++] = (char)c;
                continue;
            }
            column = sizeof line;
            rc = error_set(error, -EINVAL, "line is too long: expected at most %zu bytes", sizeof line);
            break;
        }
        if (number == 1 && len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0)
            memset(line, ' ', 3);  // the byte order mark that some editors write
        rc = add_line(cidr, slice_make(line, len), value, &column, error);
        if (rc == 0) {
            number++;
            len = 0;
        }
    }
    if (rc < 0)
        rc = error_prefix(error, rc, "%s:%zu:%zu", path, number, column);
    else if (code < 0)
        rc = error_set(error, code, "cannot read \"%s\": %s", path, strerror(-code));
    fclose(file);
    return rc;
}

static int compare(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

// Sorted, a network stands right before those inside it.
static size_t sort_unique(struct entries *entries) {
    if (entries->count == 0)
        return 0;
    qsort(entries->at, entries->count, sizeof *entries->at, compare);
    size_t kept = 0;
    for (size_t i = 0; i < entries->count; i++) {
        if (kept > 0 && entries->at[kept - 1].key == entries->at[i].key &&
            entries->at[kept - 1].len == entries->at[i].len)
            kept--;
        entries->at[kept++] = entries->at[i];
    }
    return kept;
}

static unsigned chunk_of(u128 key, unsigned depth) {
    return (unsigned)((key << depth) >> (128 - STRIDE));
}

// Fills nodes[index], whose path has `depth` bits, from entries[from, to): all inside this node and longer
// than its path. `inherited` is what holds where none of them does.
static int build_node(struct trie *trie, const struct entry *entries, size_t from, size_t to, unsigned depth,
                      uint32_t inherited, size_t index) {
    uint32_t leaf[FANOUT];
    size_t child_from[FANOUT], child_to[FANOUT];
    uint64_t children = 0, runs = 0;
    for (int i = 0; i < FANOUT; i++)
        leaf[i] = inherited;
    for (size_t e = from; e < to; e++) {
        unsigned chunk = chunk_of(entries[e].key, depth);
        if (entries[e].len > depth + STRIDE) {
            if (!(children >> chunk & 1))
                child_from[chunk] = e;
            child_to[chunk] = e + 1;
            children |= 1ull << chunk;
        } else {
            unsigned span = 1u << (depth + STRIDE - entries[e].len);
            for (unsigned i = 0; i < span; i++)
                leaf[chunk + i] = entries[e].value;
        }
    }

    size_t child_count = (size_t)__builtin_popcountll(children);
    if (GROW(trie->nodes, trie->node_room, trie->node_count, child_count) < 0 ||
        GROW(trie->leaves, trie->leaf_room, trie->leaf_count, FANOUT) < 0)
        return -ENOMEM;
    size_t first_child = trie->node_count, first_leaf = trie->leaf_count;
    trie->node_count += child_count;
    for (unsigned i = 0; i < FANOUT; i++) {
        if (children >> i & 1)
            continue;
        if (trie->leaf_count > first_leaf && trie->leaves[trie->leaf_count - 1] == leaf[i])
            continue;
        runs |= 1ull << i;
        trie->leaves[trie->leaf_count++] = leaf[i];
    }
    trie->nodes[index] = (struct node){ children, runs, (uint32_t)first_child, (uint32_t)first_leaf };

    for (unsigned i = 0, child = 0; i < FANOUT; i++) {
        if (!(children >> i & 1))
            continue;
        int rc = build_node(trie, entries, child_from[i], child_to[i], depth + STRIDE, leaf[i],
                            first_child + child++);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void trim(void **at, size_t *room, size_t count, size_t size) {
    void *moved = count ? realloc(*at, count * size) : NULL;
    if (!moved)
        return;
    *at = moved;
    *room = count;
}

static int build_trie(struct trie *trie, const struct entries *entries) {
    if (entries->count == 0)
        return 0;
    // A network of length 0 is what holds where nothing else does.
    size_t from = entries->at[0].len == 0;
    uint32_t whole = from ? entries->at[0].value : UINT32_MAX;
    int rc = GROW(trie->nodes, trie->node_room, trie->node_count, 1);
    if (rc == 0) {
        trie->node_count = 1;
        rc = build_node(trie, entries->at, from, entries->count, 0, whole, 0);
    }
    if (rc < 0) {
        trie_release(trie);
        return rc;
    }
    trim((void **)&trie->nodes, &trie->node_room, trie->node_count, sizeof *trie->nodes);
    trim((void **)&trie->leaves, &trie->leaf_room, trie->leaf_count, sizeof *trie->leaves);
    return 0;
}

int cidr_build(struct cidr *cidr) {
    if (cidr->built)
        return 0;
    for (int family = 0; family < 2; family++) {
        struct entries *entries = &cidr->entries[family];
        size_t kept = sort_unique(entries);
        cidr->count -= (uint32_t)(entries->count - kept);
        entries->count = kept;
        int rc = build_trie(&cidr->tries[family], entries);
        if (rc < 0) {
            trie_release(&cidr->tries[0]);
            return rc;
        }
    }
    for (int family = 0; family < 2; family++) {
        free(cidr->entries[family].at);
        cidr->entries[family] = (struct entries){ 0 };
    }
    cidr->built = true;
    return 0;
}

int cidr_lookup(const struct cidr *cidr, const struct addr *addr, uint32_t *ret_value) {
    u128 key;
    int family = key_of(addr, &key);
    if (family < 0 || cidr->tries[family].node_count == 0)
        return -ENOENT;
    const struct trie *trie = &cidr->tries[family];
    const struct node *node = trie->nodes;
    // No longer than the trie is deep: a node at depth 126 has leaves alone.
    for (;;) {
        unsigned chunk = (unsigned)(key >> (128 - STRIDE));
        key <<= STRIDE;
        if (node->children >> chunk & 1) {
            uint64_t before = node->children & ((1ull << chunk) - 1);
            node = trie->nodes + node->first_child + __builtin_popcountll(before);
            continue;
        }
        uint64_t upto = node->runs & (~0ull >> (FANOUT - 1 - chunk));
        uint32_t value = trie->leaves[node->first_leaf + (unsigned)__builtin_popcountll(upto) - 1];
        if (value == UINT32_MAX)
            return -ENOENT;
        *ret_value = value;
        return 0;
    }
}

int cidr_lookup_text(const struct cidr *cidr, struct slice ip, uint32_t *ret_value) {
    struct addr addr;
    int rc = addr_parse_ip(ip, 0, &addr);
    return rc < 0 ? rc : cidr_lookup(cidr, &addr, ret_value);
}

uint32_t cidr_count(const struct cidr *cidr) {
    return cidr->count;
}

size_t cidr_bytes(const struct cidr *cidr) {
    size_t bytes = sizeof *cidr;
    for (int family = 0; family < 2; family++)
        bytes += cidr->entries[family].room * sizeof(struct entry) +
                 cidr->tries[family].node_room * sizeof(struct node) +
                 cidr->tries[family].leaf_room * sizeof(uint32_t);
    return bytes;
}
