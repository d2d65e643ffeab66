// SPDX-License-Identifier: BSD-2-Clause
// Public keys and authorities for scripts: made while they load, used in hooks. lua/moongate/crypto.lua and
// sockets.lua hold the pointers, so that no script has one.
#include "script/api_impl.h"

#include "conf/source.h"
#include "script/host.h"
#include "tls/client.h"
#include "tls/signature.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *mg_key_new(const char *pem, size_t len) {
    struct public_key *key;
    const char *why;
    if (public_key_new(slice_make(pem, len), &key, &why) == 0)
        return key;
    mg_error("%s", why);
    return NULL;
}

enum { FILE_MOST = 1 << 20 };

static int read_disk(const char *path, struct slice *ret_text) {
    static char *text;
    FILE *file = fopen(path, "re");
    free(text);
    text = file ? malloc(FILE_MOST + 1) : NULL;
    size_t len = text ? fread(text, 1, FILE_MOST + 1, file) : 0;
    int error = !text || ferror(file) ? -errno : len > FILE_MOST ? -EFBIG : 0;
    if (file)
        fclose(file);
    *ret_text = slice_make(text, len);
    return error;
}

// The text of a file, as the master gathered it, if it did; else from the disk, with the worker's rights. Valid
// until the next call. false: mg_error() was called.
static bool read_file(const char **path, struct slice *ret_text) {
    static char absolute[4096];
    const struct script_host *host = host_running;
    const char *main_file = host ? host->conf->file : NULL;
    const char *slash = main_file ? strrchr(main_file, '/') : NULL;
    struct error error;
    if ((*path)[0] != '/' && slash) {  // relative to the configuration
        snprintf(absolute, sizeof absolute, "%.*s/%s", (int)(slash - main_file), main_file, *path);
        *path = absolute;
    }
    if (!host || !host->source) {
        mg_error("files are read while a script loads");
        return false;
    }
    if (source_has(host->source, *path) && source_read(host->source, *path, ret_text, &error) == 0)
        return true;
    int rc = read_disk(*path, ret_text);
    if (rc < 0)
        mg_error("cannot read \"%s\": %s", *path, strerror(-rc));
    return rc == 0;
}

void *mg_key_load(const char *path) {
    struct public_key *key;
    const char *why;
    struct slice text;
    if (!read_file(&path, &text))
        return NULL;
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

// ---- whom sockets trust -----------------------------------------------------------------------------------

static void *make_trust(struct slice pem, const char *path) {
    struct tls_client *client;
    struct error error;
    if (!host_running) {
        mg_error("authorities are read while a script loads");
        return NULL;
    }
    if (tls_client_for_scripts(host_running->conf, pem, true, &client, &error) == 0)
        return client;
    mg_error("%s%s%s%s", path ? "\"" : "", path ? path : "", path ? "\": " : "", error.text);
    return NULL;
}

void *mg_trust_new(const char *pem, size_t len) {
    return make_trust(slice_make(pem, len), NULL);
}

void *mg_trust_load(const char *path) {
    struct slice text;
    return read_file(&path, &text) ? make_trust(text, path) : NULL;
}

// Connections hold their own references.
void mg_trust_free(void *trust) {
    tls_client_unref(trust);
}
