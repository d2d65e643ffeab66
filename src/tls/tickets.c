// SPDX-License-Identifier: BSD-2-Clause
// Tickets of tickets.h: AES-256-CBC under HMAC-SHA256, as RFC 5077 recommends. The shared keys are read under a
// version number that is odd while the master writes.
#include "tls/tickets.h"

#include "base/log.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

enum { READ_TRIES = 1000 };

struct shared_keys {
    _Atomic uint32_t version;
    uint32_t count;
    struct ticket_key keys[TICKET_KEYS];
};

static struct shared_keys *shared;
static int ring_index = -1;     // of the ring in a context
static EVP_CIPHER *cipher_256;  // found once, it costs more to find than to use

// ---- the shared keys --------------------------------------------------------------------------------------

int tickets_share(struct error *error) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        shared = NULL;
        return error_set(error, -errno, "no memory for the keys of session tickets: %s", strerror(errno));
    }
    (void)madvise(shared, sizeof *shared, MADV_DONTDUMP);
    tickets_rotate();
    return 0;
}

void tickets_rotate(void) {
    struct ticket_key key;
    if (!shared || RAND_bytes((unsigned char *)&key, sizeof key) != 1) {
        log_error("no random bytes for a new key of session tickets: the old one goes on");
        return;
    }
    atomic_fetch_add(&shared->version, 1);
    memmove(shared->keys + 1, shared->keys, (TICKET_KEYS - 1) * sizeof key);
    shared->keys[0] = key;
    if (shared->count < TICKET_KEYS)
        shared->count++;
    atomic_fetch_add(&shared->version, 1);
    OPENSSL_cleanse(&key, sizeof key);
}

void tickets_seal(void) {
    if (shared && mprotect(shared, sizeof *shared, PROT_READ) < 0)
        log_warn("the keys of session tickets stay writable: %s", strerror(errno));
}

// A consistent copy; without keys when the master died while it wrote.
static struct shared_keys snapshot(void) {
    struct shared_keys copy = { 0 };
    for (int tries = 0; shared && tries < READ_TRIES; tries++) {
        uint32_t version = atomic_load(&shared->version);
        memcpy(copy.keys, shared->keys, sizeof copy.keys);
        copy.count = shared->count;
        atomic_thread_fence(memory_order_seq_cst);
        if (version % 2 == 0 && atomic_load(&shared->version) == version)
            return copy;
    }
    copy.count = 0;
    return copy;
}

// ---- in OpenSSL's hands -----------------------------------------------------------------------------------

static bool set_keys(const struct ticket_key *key, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, bool encrypt) {
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->mac, sizeof key->mac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)(uintptr_t) "SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params) &&
        EVP_CipherInit_ex(cipher, cipher_256, NULL, key->cipher, iv, encrypt);
}

// 1 goes on, 2 goes on and sends a new ticket, 0 knows no such key, -1 fails: as OpenSSL has it. `renew` is for TLS
// 1.3, where a ticket is good for one connection (RFC 8446, C.4).
static int with_keys(const struct ticket_key *keys, unsigned count, unsigned char *name, unsigned char *iv,
                     EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool encrypt, bool renew) {
    if (encrypt) {
        if (count == 0)
            return 0;
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(cipher_256)) != 1)
            return -1;
        memcpy(name, keys[0].name, sizeof keys[0].name);
        return set_keys(&keys[0], iv, cipher, mac, true) ? 1 : -1;
    }
    for (unsigned i = 0; i < count; i++)
        if (memcmp(name, keys[i].name, sizeof keys[i].name) == 0)
            return set_keys(&keys[i], iv, cipher, mac, false) ? (i == 0 && !renew ? 1 : 2) : -1;
    return 0;
}

static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int encrypt) {
    const struct ticket_ring *ring = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), ring_index);
    bool renew = SSL_version(ssl) >= TLS1_3_VERSION;
    if (ring && ring->count > 0)
        return with_keys(ring->keys, ring->count, name, iv, cipher, mac, encrypt, renew);
    struct shared_keys copy = snapshot();
    int rc = with_keys(copy.keys, copy.count, name, iv, cipher, mac, encrypt, renew);
    OPENSSL_cleanse(&copy, sizeof copy);
    return rc;
}

struct ticket_key ticket_key_of(struct slice bytes) {
    struct ticket_key key;
    memcpy(&key, bytes.at, sizeof key);
    return key;
}
_Static_assert(sizeof(struct ticket_key) == TICKET_FILE_BYTES, "the file has the parts of a key in order");

void tickets_use(struct ssl_ctx_st *ctx, const struct ticket_ring *ring) {
    if (!cipher_256)
        cipher_256 = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (ring_index < 0)
        ring_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    SSL_CTX_set_ex_data(ctx, ring_index, (void *)(uintptr_t)ring);
    if (cipher_256 && (shared || (ring && ring->count > 0)))
        SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket);
}
