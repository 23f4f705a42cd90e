/* SPDX-License-Identifier: MIT */
/*
 * The NBD protocol's numbers (NetworkBlockDevice/nbd, doc/proto.md, "Values"), for both ends. All
 * integers on the wire are big-endian: load_be...() and store_be...() of lib/bytes.h.
 *
 * Handshake, fixed newstyle:
 *   server  u64 NBD_MAGIC, u64 NBD_OPTS_MAGIC, u16 handshake flags
 *   client  u32 client flags
 *   client  u64 NBD_OPTS_MAGIC, u32 option, u32 length, data              an option, repeated
 *   server  u64 NBD_REP_MAGIC, u32 option, u32 reply type, u32 length, data
 *   server  u64 size, u16 transmission flags, 124 zero bytes            after EXPORT_NAME; the
 *                                                        zeroes not under NBD_FLAG_NO_ZEROES
 * Handshake, oldstyle:
 *   server  u64 NBD_MAGIC, u64 NBD_OLDSTYLE_MAGIC, u64 size, u16 0, u16 flags, 124 zero bytes
 * Transmission:
 *   client  u32 NBD_REQUEST_MAGIC, u16 command flags, u16 type, u64 cookie, u64 offset, u32 length,
 *           data of a write
 *   server  u32 NBD_SIMPLE_REPLY_MAGIC, u32 error, u64 cookie, data of a read
 *   server  u32 NBD_STRUCTURED_REPLY_MAGIC, u16 flags, u16 type, u64 cookie, u32 length, payload
 */
#ifndef BLOCK_NBD_PROTO_H
#define BLOCK_NBD_PROTO_H

#include <errno.h>
#include <stdint.h>

#define NBD_MAGIC                  UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTS_MAGIC             UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OLDSTYLE_MAGIC         UINT64_C(0x0000420281861253)
#define NBD_REP_MAGIC              UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC          UINT32_C(0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC     UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)

enum nbd_limits {
	NBD_PORT = 10809,
	NBD_MAX_STRING = 4096,              /* of names, descriptions, error messages */
	NBD_MAX_PAYLOAD = 32 * 1024 * 1024, /* what both ends may expect of each other */
	NBD_EXPORT_ZEROES = 124,            /* behind the reply to EXPORT_NAME */
	NBD_GREETING_SIZE = 18,             /* magics and handshake flags */
	NBD_OPTION_SIZE = 16,               /* header of an option */
	NBD_OPTION_REPLY_SIZE = 20,         /* header of its reply */
	NBD_REQUEST_SIZE = 28,
	NBD_SIMPLE_REPLY_SIZE = 16,
	NBD_STRUCTURED_REPLY_SIZE = 20,
};

/* Handshake flags, of the server and (same numbers) of the client. */
enum nbd_handshake_flags {
	NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_NO_ZEROES = 1 << 1,
	NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0,
	NBD_FLAG_C_NO_ZEROES = 1 << 1,
};

enum nbd_transmission_flags {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_SEND_FLUSH = 1 << 2,
	NBD_FLAG_SEND_FUA = 1 << 3,
	NBD_FLAG_ROTATIONAL = 1 << 4,
	NBD_FLAG_SEND_TRIM = 1 << 5,
	NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_SEND_DF = 1 << 7,
	NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
	NBD_FLAG_SEND_RESIZE = 1 << 9,
	NBD_FLAG_SEND_CACHE = 1 << 10,
	NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
	NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12,
};

enum nbd_option {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_PEEK_EXPORT = 4, /* withdrawn */
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_FLAG_ERROR UINT32_C(0x80000000)

enum nbd_option_reply {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,       /* u32 name length, name, description */
	NBD_REP_INFO = 3,         /* u16 enum nbd_info, its data */
	NBD_REP_META_CONTEXT = 4, /* u32 context id, name */
};
#define NBD_REP_ERR_UNSUP           (NBD_REP_FLAG_ERROR | 1)
#define NBD_REP_ERR_POLICY          (NBD_REP_FLAG_ERROR | 2)
#define NBD_REP_ERR_INVALID         (NBD_REP_FLAG_ERROR | 3)
#define NBD_REP_ERR_PLATFORM        (NBD_REP_FLAG_ERROR | 4)
#define NBD_REP_ERR_TLS_REQD        (NBD_REP_FLAG_ERROR | 5)
#define NBD_REP_ERR_UNKNOWN         (NBD_REP_FLAG_ERROR | 6)
#define NBD_REP_ERR_SHUTDOWN        (NBD_REP_FLAG_ERROR | 7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_FLAG_ERROR | 8)
#define NBD_REP_ERR_TOO_BIG         (NBD_REP_FLAG_ERROR | 9)
#define NBD_REP_ERR_EXT_HEADER_REQD (NBD_REP_FLAG_ERROR | 10)

enum nbd_info {
	NBD_INFO_EXPORT = 0,      /* u64 size, u16 transmission flags */
	NBD_INFO_NAME = 1,        /* string */
	NBD_INFO_DESCRIPTION = 2, /* string */
	NBD_INFO_BLOCK_SIZE = 3,  /* u32 minimum, u32 preferred, u32 maximum payload */
};

enum nbd_command {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
	NBD_CMD_RESIZE = 8,
};

enum nbd_command_flags {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
	NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

enum nbd_reply_flags { NBD_REPLY_FLAG_DONE = 1 << 0 };

enum nbd_reply_type {
	NBD_REPLY_TYPE_NONE = 0,
	NBD_REPLY_TYPE_OFFSET_DATA = 1,      /* u64 offset, data */
	NBD_REPLY_TYPE_OFFSET_HOLE = 2,      /* u64 offset, u32 length */
	NBD_REPLY_TYPE_BLOCK_STATUS = 5,     /* u32 context id, then u32 length, u32 flags each */
	NBD_REPLY_TYPE_ERROR = 32769,        /* u32 error, u16 message length, message */
	NBD_REPLY_TYPE_ERROR_OFFSET = 32770, /* the same, then u64 offset */
};
#define NBD_REPLY_TYPE_IS_ERROR(type) ((type)&0x8000)

/* Status flags of the context base:allocation. */
enum nbd_base_allocation { NBD_STATE_HOLE = 1 << 0, NBD_STATE_ZERO = 1 << 1 };
#define NBD_META_BASE_ALLOCATION "base:allocation"
/* Namespaces of QEMU (docs/interop/nbd.txt): qemu:dirty-bitmap:NAME with 1 for dirty, and
 * qemu:allocation-depth with the layer's number, 0 for unallocated. */
#define NBD_META_DIRTY_BITMAP     "qemu:dirty-bitmap:"
#define NBD_META_ALLOCATION_DEPTH "qemu:allocation-depth"
enum nbd_dirty_bitmap { NBD_STATE_DIRTY = 1 << 0 };

/* Error numbers on the wire. */
enum nbd_error {
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* The host's errno of an error on the wire; EINVAL for unknown ones, as the protocol has it. */
static inline int nbd_errno(uint32_t error)
{
	switch (error) {
	case 0: return 0;
	case NBD_EPERM: return EPERM;
	case NBD_EIO: return EIO;
	case NBD_ENOMEM: return ENOMEM;
	case NBD_ENOSPC: return ENOSPC;
	case NBD_EOVERFLOW: return EOVERFLOW;
	case NBD_ENOTSUP: return ENOTSUP;
	case NBD_ESHUTDOWN: return ESHUTDOWN;
	default: return EINVAL;
	}
}

/* The wire's number for a positive errno; 0 for 0. */
static inline uint32_t nbd_error_of(int code)
{
	switch (code) {
	case 0: return 0;
	case EPERM:
	case EACCES:
	case EROFS: return NBD_EPERM;
	case ENOMEM: return NBD_ENOMEM;
	case EINVAL: return NBD_EINVAL;
	case EDQUOT:
	case EFBIG:
	case ENOSPC: return NBD_ENOSPC;
	case EOVERFLOW: return NBD_EOVERFLOW;
	case ENOTSUP: return NBD_ENOTSUP;
	case ESHUTDOWN: return NBD_ESHUTDOWN;
	default: return NBD_EIO;
	}
}

#endif
