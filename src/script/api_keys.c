// SPDX-License-Identifier: BSD-2-Clause
// Public keys for scripts: made while they load, asked in hooks. lua/moongate/crypto.lua holds the pointers, so
// that no script has one.
#include "script/api_impl.h"

#include "conf/source.h"
#include "script/host.h"
#include "tls/signature.h"

#include <stdio.h>

void *mg_key_new(const char *pem, size_t len) {
    struct public_key *key;
    const char *why;
    if (public_key_new(slice_make(pem, len), &key, &why) == 0)
        return key;
    mg_error("%s", why);
    return NULL;
}

void *mg_key_load(const char *path) {
    char absolute[4096];
    const struct script_host *host = host_running;
    const char *main_file = host ? host->conf->file : NULL;
    const char *slash = main_file ? strrchr(main_file, '/') : NULL;
    struct error error;
    struct slice text;
    if (path[0] != '/' && slash) {  // relative to the configuration
        snprintf(absolute, sizeof absolute, "%.*s/%s", (int)(slash - main_file), main_file, path);
        path = absolute;
    }
    if (!host || !host->source) {
        mg_error("keys are read while a script loads");
        return NULL;
    }
    if (source_read(host->source, path, &text, &error) < 0) {
        mg_error("%s", error.text);
        return NULL;
    }
    struct public_key *key;
    const char *why;
    if (public_key_new(text, &key, &why) == 0)
        return key;
    mg_error("\"%s\": %s", path, why);
    return NULL;
}

void mg_key_free(void *key) {
    public_key_free(key);
}

int mg_key_verify(const void *key, int kind, const char *at, size_t len, const char *signature,
                  size_t signature_len) {
    if (!key || kind < 0 || kind >= DIGEST_COUNT)
        return mg_error("there is no such key or digest");
    return public_key_verify(key, (enum digest_kind)kind, slice_make(at, len),
                             slice_make(signature, signature_len));
}
