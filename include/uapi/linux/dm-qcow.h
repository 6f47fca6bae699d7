/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * The contract between dm-qcow.ko and its helper, qcowd.
 *
 * Generic netlink family "dm-qcow". The kernel moves data and knows no image
 * format; the helper owns the format and answers the kernel's questions, the
 * upcalls. All integers are in host byte order, all offsets and lengths are in
 * bytes unless a name says otherwise, all strings end with a NUL.
 *
 * Two kinds of socket
 * -------------------
 * One *supervisor* socket for the whole system is told which targets want a
 * worker. One *worker* socket per target answers that target's upcalls. Each
 * socket is held by exactly one process: when it closes, for whatever reason,
 * its owner is dead for the kernel.
 *
 * A message from a worker is believed if its network namespace and port id are
 * those of the target's latest ATTACH and its EPOCH is the one that ATTACH
 * returned; no capability is needed after ATTACH, so a worker drops them all.
 *
 * Message directions
 * ------------------
 *   helper -> kernel, requests:      ATTACH, LIST
 *   kernel -> supervisor, notices:   START, HUNG
 *   kernel -> worker, notice:        GONE
 *   kernel -> worker, upcalls:       PROBE, OPEN, LOAD, FETCH, PROPOSE, GRANT,
 *                                    COMMIT, FREE, CLOSE
 *   worker -> kernel, answers:       the command of the upcall
 *
 * The kernel sends no acknowledgment for an answer. It does send NLMSG_ERROR
 * when it refuses one; the helper logs that and goes on:
 *   EPERM   the sender had no CAP_SYS_ADMIN when it opened its socket
 *   ESTALE  the sender is not the target's worker (another attached since)
 *   ENOENT  no such target, or no upcall with that cookie: it timed out or was
 *           answered already. Harmless.
 *   EPROTO  a required attribute is missing or has the wrong size. (Generic netlink
 *           itself says EINVAL or ERANGE to some wrong sizes and to attributes it does
 *           not know.) The upcall stays unanswered
 *   EINVAL  the content breaks a rule given below. The upcall fails with EIO,
 *           so that a confused helper cannot make anybody wait
 *   EFAULT  FETCH: ADDR cannot be read. The upcall fails with EIO
 *
 * Every upcall carries COOKIE, unique in the life of the module, and stays with
 * the kernel until it is answered, timed out (table option helper_timeout), or
 * its target is gone. When a worker dies its unanswered upcalls are sent again,
 * with the same cookies, to the worker that attaches next. All but FREE may be
 * carried out twice without harm; whoever answers first wins. A FREE in doubt is
 * dropped: lowering a shared refcount twice would destroy data, not lowering it
 * leaks a cluster.
 *
 * At most one of PROPOSE, GRANT, COMMIT, FREE, CLOSE of a target is at work in the
 * worker at a time: it serialises them, in any order. So the kernel may send PROPOSE or
 * GRANT while a COMMIT or FREE is unanswered, and the other way round, but no COMMIT,
 * FREE or CLOSE before the last one of these is answered.
 *
 * An answer carries TARGET, EPOCH, COOKIE, and either ERROR (with ERROR_TEXT)
 * or the attributes listed for its command. The errors that the kernel uses itself
 * (ETIMEDOUT, ERESTART, EINTR, EAGAIN) are taken for EIO.
 *
 * ATTACH, helper -> kernel, CAP_SYS_ADMIN
 * ---------------------------------------
 *   in:  VERSION, and TARGET for a worker; no TARGET for the supervisor
 *   out: EPOCH; for a worker also TARGET, STATE, PATH, OPTIONS, FLAGS, DEVICE,
 *        TIMEOUT and, if STATE is DM_QCOW_STATE_OPEN, LAYERS and, if the image is open
 *        for writing, LEASES
 *   Each LAYERS entry's fd is a new descriptor, close-on-exec, installed in the
 *   calling process: the very open file description the OPEN answer of an
 *   earlier worker gave, with the file locks it carries. The caller owns the
 *   descriptors. The kernel keeps its own references.
 *   LEASES: what an earlier worker proposed that is not granted yet, and the
 *   DM_QCOW_LEASE_TABLE extents granted since OPEN, the newest if there is no room for
 *   all. Before it answers anything, the worker makes durable what its predecessor may
 *   have written.
 *   errors: EPERM; EPROTO if VERSION is not DM_QCOW_VERSION; ENOENT if there is no
 *   such target; EBUSY while an earlier socket of that role is open (kill and
 *   reap its owner first); EMFILE if the descriptors do not fit.
 *   If the sender dies right after: its socket closes, so the target is without a
 *   worker again, and the descriptors died with the process.
 *
 * LIST, helper -> kernel, dump, CAP_SYS_ADMIN
 * -------------------------------------------
 *   out, one message per target: TARGET, STATE, PATH, OPTIONS, FLAGS, DEVICE,
 *   ATTACHED. A new supervisor calls it after ATTACH, and starts a worker for
 *   each target with ATTACHED 0.
 *
 * START, kernel -> supervisor
 * ---------------------------
 *   TARGET, PATH, OPTIONS, FLAGS, DEVICE: this target has no worker and wants one.
 *   Sent when a target is made and when its worker's socket closes. May come for
 *   a target that has a worker by now or is gone: the worker's ATTACH says so.
 *   Lost if nobody listens; LIST makes up for it.
 *
 * HUNG, kernel -> supervisor
 * --------------------------
 *   TARGET: an upcall of an attached worker timed out. Kill and reap the worker,
 *   then start another.
 *
 * GONE, kernel -> worker and supervisor
 * -------------------------------------
 *   TARGET: the target is gone; exit (reap). If it is lost, the next message a
 *   worker sends is refused with ENOENT, which means the same.
 *
 * PROBE, from the constructor (table load)
 * ----------------------------------------
 *   asks: does this image exist, and what shape has it?
 *   answer: SHAPE; DEVICES, one entry for each layer that is a block device,
 *   whatever its depth (none: leave the attribute out).
 *   The helper takes no lock, but reports one that would make OPEN fail (ERROR
 *   EBUSY). It may keep the files open and use them for OPEN.
 *
 * OPEN, from the first resume and each resume after a clean suspend
 * ----------------------------------------------------------------
 *   asks: open and lock the image for use. FLAGS as in PROBE.
 *   answer: SHAPE, afresh; LAYERS, index = layer number, 0 the image itself. The
 *   kernel takes its own reference to each fd before the answer's sendmsg(2)
 *   returns. It checks them: a regular file must do direct I/O; a block device
 *   must be one that PROBE named; at most DM_QCOW_MAX_LAYERS; only the data layer may
 *   be DM_QCOW_LAYER_WRITABLE, and its fd must be open for writing. SHAPE must fit what
 *   PROBE said, else the resume fails. For writing also TABLES and ROOM, as in GRANT.
 *   Autoclear bits that nobody here maintains have been cleared, durably.
 *
 * LOAD
 * ----
 *   asks: PAGE, SEQ: the DM_QCOW_PAGE_BLOCKS map entries from block
 *   PAGE * DM_QCOW_PAGE_BLOCKS on.
 *   answer: PAGE, SEQ (echoed), RUNS: an array of struct dm_qcow_run in guest
 *   order, without holes, covering the whole page. Blocks past the image's end
 *   are DM_QCOW_RUN_ZERO. A block the helper cannot resolve (a corrupt table) is
 *   DM_QCOW_RUN_FETCH, and its FETCH answers the error: one bad entry must not
 *   take its 511 neighbours down. A block that the image has on its own metadata is
 *   also DM_QCOW_RUN_BROKEN: the kernel takes the device to mode RO.
 *
 * FETCH
 * -----
 *   asks: OFFSET, LENGTH: the guest's bytes of one block (cut at the image's end).
 *   answer: OFFSET, LENGTH (echoed), ADDR: where the bytes are in the sender's
 *   memory. The kernel has copied them when the answer's sendmsg(2) returns; the
 *   buffer remains the helper's.
 *
 * PROPOSE, image open for writing; one at a time, also with GRANT
 * -------------------------------------------------------------
 *   asks: BYTES, TABLES: clusters for this much data, and for this many metadata
 *   tables.
 *   answer: LEASES, at most DM_QCOW_MAX_LEASES: clusters that nothing uses, none of them
 *   twice. Nothing is written for it. Not more than asked for; fewer will do; none at all
 *   is a right answer only if none of what was asked for is ever needed (all tables exist;
 *   identity allocation), else it is no space.
 *   ERROR ENOSPC: nothing is free.
 *   The kernel records the answer before it sends GRANT. If the sender dies, the
 *   next worker learns of it from ATTACH, or is asked anew.
 *
 * GRANT
 * -----
 *   asks: LEASES, exactly as proposed: make them ours. Said twice it is the same GRANT.
 *   answer: LEASES, the same extents in the same order, DM_QCOW_LEASE_ZERO set where
 *   all of an extent durably reads as zeros; TABLES. Their refcounts are durably 1;
 *   tables have space behind them, so that a COMMIT never needs any.
 *   ROOM, if it is known: how many bytes can still be allocated, of a device those in
 *   its free clusters, of a file those that its file system has. For people: the kernel
 *   shows it, and raises an event when it is little.
 *   TABLES: in how many more L2 tables deltas may lie before another PROPOSE;
 *   DM_QCOW_TABLES_ENOUGH if none will ever be missing.
 *   ERROR, ENOSPC too: nothing of it is leased, and the kernel forgets the proposal. After
 *   ENOSPC it proposes less, or the same later.
 *
 * COMMIT
 * ------
 *   asks: GENERATION, FLAGS, DELTAS: in guest order, not overlapping, at most
 *   DM_QCOW_MAX_DELTAS; make the map on disk say so. The data is durable already, except
 *   with DM_QCOW_COMMIT_UNFLUSHED: then one flush of the image, after the tables are
 *   written, must cover both. A generation with more deltas comes in several COMMITs.
 *   answer: TABLES, as in GRANT, and ROOM, about once a second; LOST: how many clusters
 *   that the guest did not own alone (shared with a snapshot, compressed) lost their last
 *   pointer from the map. The worker remembers them until FREE; what it cannot remember
 *   it leaks, and counts in LOST all the same. The pointers are durable, and all threads of
 *   the worker resolve by the new ones. No refcount has gone down.
 *   A cluster that the guest owned alone (its entry was writable) is the kernel's
 *   once its pointer is gone: it goes back to the pool of leased clusters.
 *   A COMMIT of an older generation than the last one is late: it timed out, was said
 *   again, and is not carried out any more.
 *   ERROR EROFS or EIO: nothing can be written any more, mode RO.
 *   ERROR ENOSPC: may be said again.
 *
 * FREE
 * ----
 *   asks: GENERATION, the last one sealed, and LEASES, which may be empty: lower by
 *   one the refcounts of what earlier COMMITs counted in LOST; nobody can read the old
 *   places any more. And take these leased, unused clusters back. One that is late, as
 *   there, does nothing.
 *   answer: nothing more. Need not be durable.
 *   If the worker dies before it answered, this FREE is not said again.
 *
 * CLOSE, on a clean suspend and on removal
 * ----------------------------------------
 *   asks: GENERATION, the last one sealed: make the image complete on disk, unlock it,
 *   close the files. Leases were given back with FREE; tables not used are the worker's
 *   to release. After the next OPEN generations count on: a COMMIT or FREE up to this one
 *   is late.
 *   answer: nothing more. The kernel drops its references when it has the answer.
 *   ERROR: the image is not complete; it stays open and locked, and can be read.
 */
#ifndef _UAPI_LINUX_DM_QCOW_H
#define _UAPI_LINUX_DM_QCOW_H

#include <linux/types.h>

#define DM_QCOW_GENL_NAME	"dm-qcow"
#define DM_QCOW_VERSION		1

/* Blocks in a map page: what one LOAD asks for. */
#define DM_QCOW_PAGE_BLOCKS	512
/* Layers of an image: itself, its backing chain, an external data file. */
#define DM_QCOW_MAX_LAYERS	256
/* Block sizes; a block is the image's cluster or subcluster. Powers of two. */
#define DM_QCOW_MIN_BLOCK_SIZE	512
#define DM_QCOW_MAX_BLOCK_SIZE	(2U << 20)
/* A cluster has one block or so many: it never reaches into another page of the map. */
#define DM_QCOW_SUBCLUSTERS	32
/* Extents in one PROPOSE, GRANT, FREE or ATTACH; deltas in one COMMIT. */
#define DM_QCOW_MAX_LEASES	1024
#define DM_QCOW_MAX_DELTAS	1024
/* TABLES: none will be missing. */
#define DM_QCOW_TABLES_ENOUGH	0xffffffffU
/* Longest ERROR_TEXT, its NUL included; the kernel cuts what is longer. */
#define DM_QCOW_MAX_TEXT	512

enum dm_qcow_cmd {
	DM_QCOW_CMD_UNSPEC,
	DM_QCOW_CMD_ATTACH,
	DM_QCOW_CMD_LIST,
	DM_QCOW_CMD_START,
	DM_QCOW_CMD_HUNG,
	DM_QCOW_CMD_GONE,
	DM_QCOW_CMD_PROBE,
	DM_QCOW_CMD_OPEN,
	DM_QCOW_CMD_LOAD,
	DM_QCOW_CMD_FETCH,
	DM_QCOW_CMD_CLOSE,
	DM_QCOW_CMD_PROPOSE,
	DM_QCOW_CMD_GRANT,
	DM_QCOW_CMD_COMMIT,
	DM_QCOW_CMD_FREE,

	__DM_QCOW_CMD_MAX,
	DM_QCOW_CMD_MAX = __DM_QCOW_CMD_MAX - 1
};

enum dm_qcow_attr {
	DM_QCOW_ATTR_UNSPEC,
	DM_QCOW_ATTR_PAD,
	DM_QCOW_ATTR_VERSION,		/* u32: DM_QCOW_VERSION */
	DM_QCOW_ATTR_TARGET,		/* u32: never reused in the module's life */
	DM_QCOW_ATTR_EPOCH,		/* u32: counts the attaches of a target */
	DM_QCOW_ATTR_COOKIE,		/* u64 */
	DM_QCOW_ATTR_ERROR,		/* u32: errno, positive */
	DM_QCOW_ATTR_ERROR_TEXT,	/* string: one line for the user */
	DM_QCOW_ATTR_PATH,		/* string: the image path of the table line */
	DM_QCOW_ATTR_OPTIONS,		/* binary: the table's options, each with its NUL */
	DM_QCOW_ATTR_FLAGS,		/* u32: DM_QCOW_FLAG_* */
	DM_QCOW_ATTR_STATE,		/* u32: enum dm_qcow_state */
	DM_QCOW_ATTR_ATTACHED,		/* u32: 1 if the target has a worker */
	DM_QCOW_ATTR_DEVICE,		/* struct dm_qcow_device: the target's own dm device */
	DM_QCOW_ATTR_TIMEOUT,		/* u32: helper_timeout, seconds */
	DM_QCOW_ATTR_SHAPE,		/* struct dm_qcow_shape */
	DM_QCOW_ATTR_DEVICES,		/* struct dm_qcow_device [] */
	DM_QCOW_ATTR_LAYERS,		/* struct dm_qcow_layer [] */
	DM_QCOW_ATTR_PAGE,		/* u64: number of a map page */
	DM_QCOW_ATTR_SEQ,		/* u64: opaque, to be echoed */
	DM_QCOW_ATTR_RUNS,		/* struct dm_qcow_run [] */
	DM_QCOW_ATTR_OFFSET,		/* u64: guest offset */
	DM_QCOW_ATTR_LENGTH,		/* u32 */
	DM_QCOW_ATTR_ADDR,		/* u64: user address in the sender's memory */
	DM_QCOW_ATTR_BYTES,		/* u64 */
	DM_QCOW_ATTR_TABLES,		/* u32 */
	DM_QCOW_ATTR_LEASES,		/* struct dm_qcow_lease [] */
	DM_QCOW_ATTR_GENERATION,	/* u64 */
	DM_QCOW_ATTR_DELTAS,		/* struct dm_qcow_delta [] */
	DM_QCOW_ATTR_LOST,		/* u64: clusters */
	DM_QCOW_ATTR_ROOM,		/* u64: bytes that can still be allocated below */

	__DM_QCOW_ATTR_MAX,
	DM_QCOW_ATTR_MAX = __DM_QCOW_ATTR_MAX - 1
};

/* The table was loaded read-only: lock and open as a reader. */
#define DM_QCOW_FLAG_READ_ONLY	(1U << 0)

/* COMMIT: the data is not flushed; see there. */
#define DM_QCOW_COMMIT_UNFLUSHED	(1U << 0)

/* SHAPE: delta ZERO can be expressed: a v3 image, or no backing file; no raw data file. */
#define DM_QCOW_SHAPE_ZEROES	(1U << 0)
/* SHAPE: ZERO_KEEP too: a v3 image. Without it, give the clusters up with ZERO. */
#define DM_QCOW_SHAPE_KEEP	(1U << 1)

enum dm_qcow_state {
	DM_QCOW_STATE_NEW,		/* PROBE not answered yet */
	DM_QCOW_STATE_CLOSED,		/* the kernel holds no file of the image */
	DM_QCOW_STATE_OPEN,		/* the image is open and locked */
};

/*
 * struct dm_qcow_shape - what the table needs to know of an image
 * @virtual_size: bytes of the guest's disk, a multiple of 512
 * @identity: two opaque words that differ between two image files; OPEN's must
 *	equal PROBE's (st_dev and st_ino, say)
 * @cluster_size: allocation unit of the image: at most DM_QCOW_SUBCLUSTERS blocks
 * @block_size: unit of the map: the cluster or subcluster size
 * @logical_block_size: 512 .. 4096: the smallest direct I/O all layers can do
 * @dma_alignment: mask that a buffer's address must be clear of for direct I/O
 * @nr_layers: 1 .. DM_QCOW_MAX_LAYERS
 * @flags: DM_QCOW_SHAPE_*
 */
struct dm_qcow_shape {
	__u64 virtual_size;
	__u64 identity[2];
	__u32 cluster_size;
	__u32 block_size;
	__u32 logical_block_size;
	__u32 dma_alignment;
	__u32 nr_layers;
	__u32 flags;
};

/* struct dm_qcow_device - a block device */
struct dm_qcow_device {
	__u32 major;
	__u32 minor;
};

/* The data layer of an image opened read-write; at most one layer has it. */
#define DM_QCOW_LAYER_WRITABLE	(1U << 0)

/*
 * struct dm_qcow_layer - one file or device that data can come from
 * @fd: an open descriptor of the process that sends or receives the message,
 *	opened O_DIRECT, for reading or (WRITABLE) reading and writing
 * @flags: DM_QCOW_LAYER_*
 * @tag: the helper's own note on the layer; the kernel hands it back on ATTACH
 */
struct dm_qcow_layer {
	__s32 fd;
	__u32 flags;
	__u64 tag;
};

enum dm_qcow_run_type {
	DM_QCOW_RUN_ZERO,		/* reads as zeros; no layer is involved */
	DM_QCOW_RUN_DATA,		/* layer, host_off; contiguous */
	DM_QCOW_RUN_FETCH,		/* ask for the bytes, block by block */
};

/*
 * DATA: may be written in place. The layer must be DM_QCOW_LAYER_WRITABLE, and host_off
 * as far into its cluster as the block is into the guest's.
 */
#define DM_QCOW_RUN_WRITABLE	(1U << 0)
/* Not WRITABLE: the blocks have a place of their own in the data layer to be written to. */
#define DM_QCOW_RUN_RESERVED	(1U << 1)
/* FETCH: the image is damaged so that writing to it is dangerous. */
#define DM_QCOW_RUN_BROKEN	(1U << 2)

/*
 * struct dm_qcow_run - consecutive blocks of one kind
 * @host_off: DATA: where the first block is in the layer, a multiple of the
 *	shape's logical_block_size, below 2^56. A block of a regular file may lie past
 *	its end (it reads as zeros); of a block device it may not
 * @nr_blocks: at least 1
 * @layer: DATA: the layer's number
 * @type: enum dm_qcow_run_type
 * @flags: DM_QCOW_RUN_*
 * @reserved_off: RESERVED: where the first block goes in the data layer when it is
 *	written; as host_off where WRITABLE. Nothing is known of what is there now
 */
struct dm_qcow_run {
	__u64 host_off;
	__u32 nr_blocks;
	__u16 layer;
	__u8 type;
	__u8 flags;
	__u64 reserved_off;
};

/* For the worker's tables, not for data; the kernel only keeps it for ATTACH. */
#define DM_QCOW_LEASE_TABLE	(1U << 0)
/* Durably reads as zeros. */
#define DM_QCOW_LEASE_ZERO	(1U << 1)

/*
 * struct dm_qcow_lease - consecutive clusters of the data layer (TABLE: of the image)
 * @host_off: a multiple of the cluster size
 * @nr_clusters: at least 1
 * @flags: DM_QCOW_LEASE_*
 */
struct dm_qcow_lease {
	__u64 host_off;
	__u32 nr_clusters;
	__u32 flags;
};

enum dm_qcow_delta_type {
	DM_QCOW_DELTA_DATA,		/* host_off in the data layer; contiguous */
	DM_QCOW_DELTA_ZERO,		/* zeros; a cluster without any data left is given up */
	DM_QCOW_DELTA_ZERO_KEEP,	/* zeros; the blocks keep their place */
};

/*
 * struct dm_qcow_delta - a change of the map that is to be made durable
 * @guest_off: a multiple of the block size
 * @host_off: of the first block; the same distance into its cluster as guest_off.
 *	ZERO_KEEP: the place that is kept; 0 is the one on disk, which must be the blocks'
 *	own. ZERO: ignored
 * @nr_blocks: at least 1; past the image's end at most to the end of its last cluster
 * @type: enum dm_qcow_delta_type
 */
struct dm_qcow_delta {
	__u64 guest_off;
	__u64 host_off;
	__u32 nr_blocks;
	__u32 type;
};

#endif
