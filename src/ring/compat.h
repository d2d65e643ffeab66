// SPDX-License-Identifier: BSD-2-Clause
// What the kernel has and liburing 2.3's headers do not name. Values are the kernel's uapi
// (linux/io_uring.h); each goes away when the oldest supported liburing knows it.
#ifndef MOONGATE_RING_COMPAT_H
#define MOONGATE_RING_COMPAT_H

#include <liburing.h>

#ifndef IOU_PBUF_RING_INC
#define IOU_PBUF_RING_INC 2  // Linux 6.12: a buffer is used up piece by piece
#endif
#ifndef IORING_CQE_F_BUF_MORE
#define IORING_CQE_F_BUF_MORE (1U << 4)  // the kernel keeps the rest of the buffer
#endif

#endif
