// SPDX-License-Identifier: BSD-2-Clause
// OpenSSL's own memory, in builds with --enable-faults (base/fault.h): it runs out with ours when MOONGATE_FAULTS says
// alloc_openssl=1. Called by main() before anything else of OpenSSL.
#ifndef MOONGATE_TLS_FAULTS_H
#define MOONGATE_TLS_FAULTS_H

#ifdef MOONGATE_FAULTS
void tls_faults_begin(void);
#else
static inline void tls_faults_begin(void) {
}
#endif

#endif
