// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for request targets: whatever is taken has a path below the root, without dot segments, double slashes or
// NUL, and normalising it again changes nothing, whether it is encoded anew or (where nothing in it needs encoding) as
// it is. The first byte chooses the method.
#include "fuzz.h"
#include "http/target.h"

// Each reading begins with '/', fits and is none that was refused; the first is the normalised path.
static void check_readings(const struct request *request) {
    char *to = malloc(request->raw_path.len + 1);
    unsigned count = path_reading_count(request->doubts);
    must(to && count >= 1 && count <= 12);
    for (unsigned n = 0; n < count; n++) {
        struct slice reading = path_reading(request->raw_path, request->doubts, n, to);
        must(reading.len > 0 && reading.len <= request->raw_path.len + 1 && reading.at[0] == '/');
        must(n > 0 || slice_eq(reading, request->path));
        must(!memchr(reading.at, 0, reading.len));
    }
    free(to);
}

static void check_path(struct slice path) {
    must(path.len > 0 && path.at[0] == '/');
    for (size_t i = 0; i < path.len; i++) {
        struct slice tail = slice_from(path, i);
        must(path.at[i] != 0);
        must(!slice_starts(tail, SLICE_LIT("//")));
        must(!slice_starts(tail, SLICE_LIT("/./")) && !slice_starts(tail, SLICE_LIT("/../")));
        must(!slice_eq(tail, SLICE_LIT("/.")) && !slice_eq(tail, SLICE_LIT("/..")));
    }
}

// Every byte but '/' encoded; the plain one only when nothing in it would read differently.
static void check_again(struct slice path, struct arena *arena) {
    char *encoded = malloc(path.len * 3 + 1);
    size_t n = 0;
    bool plain = true;
    struct slice again;
    must(encoded);
    for (size_t i = 0; i < path.len; i++) {
        unsigned char c = (unsigned char)path.at[i];
        n += (size_t)sprintf(encoded + n, c == '/' ? "/" : "%%%02x", c);
        plain &= c > 0x20 && c < 0x7f && !strchr("%#?\"<>\\{}`", c);
    }
    must(path_normalise(slice_make(encoded, n), arena, &again) == 0 && slice_eq(again, path));
    if (plain)
        must(path_normalise(path, arena, &again) == 0 && slice_eq(again, path));
    free(encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) {
    static const struct slice methods[] = { SLICE_LIT("GET"), SLICE_LIT("OPTIONS"), SLICE_LIT("CONNECT") };
    struct arena arena;
    const char *why = NULL;
    if (len == 0)
        return 0;
    arena_init(&arena);
    char *copy = fuzz_copy(bytes + 1, len - 1);
    struct request request = { .method = methods[bytes[0] % 3], .target = slice_make(copy, len - 1) };
    if (target_parse(&request, &arena, &why) < 0) {
        must(why && *why);
    } else if (bytes[0] % 3 == 2) {
        must(request.target.len > 0 && authority_valid(request.authority));
    } else if (!slice_eq(request.path, SLICE_LIT("*"))) {
        check_path(request.path);
        must(request.authority.len == 0 || authority_valid(request.authority));
        check_again(request.path, &arena);
        check_readings(&request);
    }
    free(copy);
    arena_release(&arena);
    return 0;
}
