/* SPDX-License-Identifier: MIT */
/*
 * What a virtio device is made of: a transport over PCI (virtio_pci.c), split virtqueues
 * (virtqueue.c) and this contract between them and the device.
 *
 * A device embeds struct virtio, describes itself by struct virtio_type and serves its queues when
 * type->serve() is called: in the event loop, never on a vCPU's thread. The machine lock is held in
 * every function and callback here.
 *
 * The driver is hostile: whatever it writes into rings and descriptors is checked by
 * virtqueue_pop(), which hands out host memory inside RAM only. What cannot be understood puts the
 * device into the broken state (DEVICE_NEEDS_RESET), in which nothing is served until the driver
 * resets it.
 *
 * Document: OASIS, Virtual I/O Device (VIRTIO) Version 1.2.
 */
#ifndef DEVICES_VIRTIO_H
#define DEVICES_VIRTIO_H

#include "core/doorbell.h"
#include "devices/msix.h"
#include "devices/pci.h"
#include "lib/clock.h"
#include "lib/loop.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
	VIRTIO_QUEUES_MAX = 96,
	VIRTQUEUE_SIZE_MAX = 1024,  /* of a ring, and descriptors of a chain */
	VIRTIO_CONFIG_MAX = 256,    /* bytes of device configuration */
	VIRTIO_SEGMENTS_MAX = 2048, /* pieces of host memory of a chain */
};

/* Device types: virtio 1.2, 5. */
enum virtio_id {
	VIRTIO_ID_NET = 1,
	VIRTIO_ID_BLOCK = 2,
	VIRTIO_ID_CONSOLE = 3,
	VIRTIO_ID_ENTROPY = 4,
	VIRTIO_ID_BALLOON = 5,
};

/* virtio 1.2, 2.1. */
enum virtio_status {
	VIRTIO_ACKNOWLEDGE = 1,
	VIRTIO_DRIVER = 2,
	VIRTIO_DRIVER_OK = 4,
	VIRTIO_FEATURES_OK = 8,
	VIRTIO_NEEDS_RESET = 64,
	VIRTIO_FAILED = 128,
};

/* virtio 1.2, 6: bits that belong to the transport and the rings. */
#define VIRTIO_F_ANY_LAYOUT    (UINT64_C(1) << 27)
#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX     (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1     (UINT64_C(1) << 32)
#define VIRTIO_F_RING_RESET    (UINT64_C(1) << 40)

struct virtio;

/* A descriptor of the split ring (2.7.5). */
struct vring_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

struct virtqueue {
	/* guest-visible */
	uint16_t size; /* entries, a power of two */
	uint16_t vector;
	bool enabled;
	uint64_t desc, avail, used; /* guest-physical */
	uint16_t last_avail;        /* the next entry of the available ring to take */
	uint16_t used_idx;          /* the next of the used ring to fill */
	uint16_t signalled;         /* used_idx when the driver was interrupted last */
	bool signalled_valid;

	struct virtio *virtio;
	uint16_t index;
	uint16_t max_size;   /* 0: there is no such queue */
	uint16_t filled;     /* used entries written behind used_idx */
	bool quiet;          /* the driver need not notify */
	unsigned taken;      /* chains handed out and not yet given back */
	unsigned generation; /* counts resets: chains of before are worth nothing */
	/* The rings in host memory while it is enabled. */
	struct vring_desc *host_desc;
	uint16_t *host_avail;
	uint8_t *host_used;
	/* The notification register as a doorbell of the engine: legacy, modern
	 * (virtio_notify.c). */
	struct virtqueue_bell {
		struct doorbell bell;
		bool on, refused;
	} bell[2];
	int bell_fd; /* 0: none */
	struct loop_fd *bell_watch;
	struct loop_call call; /* serve it */
	struct timer later;    /* serve it once the machine runs */
};

/* The buffers of one request: `out` pieces to read, behind them `in` pieces to write. The device
 * may change the entries of iov. Zero it once; virtio_chain_free() frees its arrays; it can be used
 * again and again. */
struct virtio_chain {
	struct virtqueue *queue;
	unsigned generation;
	uint16_t head;
	unsigned out, in;
	size_t out_len, in_len; /* bytes */
	struct iovec *iov;
	/* Where the writable pieces are in guest memory. */
	struct virtio_range {
		uint64_t gpa;
		size_t len;
	} * range;
	unsigned capacity;
};

struct virtio_type {
	const char *name; /* "virtio-blk" */
	enum virtio_id id;
	uint16_t pci_class;
	uint16_t legacy_device_id; /* PCI device id of the transitional device */
	unsigned config_size;
	/* Fills the device configuration. */
	void (*get_config)(struct virtio *v, uint8_t *config);
	/* The driver wrote [offset, offset + size) of it; `config` holds all of it. May be NULL. */
	void (*set_config)(struct virtio *v, const uint8_t *config, unsigned offset, unsigned size);
	/* Features have been agreed on (v->features). May be NULL. */
	void (*negotiated)(struct virtio *v);
	/* DRIVER_OK was set. May be NULL. */
	void (*started)(struct virtio *v);
	/* The device is about to be reset: end what is in flight, so that no memory of the guest is
	 * touched afterwards; then power-on state. May be NULL. */
	void (*reset)(struct virtio *v);
	/* Likewise for one queue (RING_RESET); NULL: reset() cannot be done for one alone. */
	void (*reset_queue)(struct virtqueue *q);
	/* The driver has put something into the queue. */
	void (*serve)(struct virtqueue *q);
};

struct virtio {
	/* guest-visible */
	uint8_t status;
	uint8_t isr;
	uint64_t features; /* the driver's choice */
	uint32_t device_select, driver_select;
	uint16_t queue_select;
	uint16_t config_vector;
	uint8_t generation; /* of the configuration */

	const struct virtio_type *type;
	const struct device_env *env;
	uint64_t offered;
	bool legacy, modern; /* which interfaces there are */
	bool broken;
	bool no_doorbells; /* ioeventfd=off */
	struct virtqueue *queue;
	unsigned queues;

	/* transport */
	struct pci_device pci;
	struct msix msix;
	unsigned cfg_access; /* where the PCI configuration access capability is */
	bool bus_master;
};

/* How the user wants the card; a zeroed one is QEMU's default but for vectors. */
struct virtio_pci_config {
	const char *name;
	int devfn;
	unsigned vectors; /* of MSI-X; 0: none */
	bool disable_legacy, disable_modern;
	bool no_indirect, no_event_idx; /* indirect_desc=off, event_idx=off */
	bool no_doorbells;              /* ioeventfd=off */
	bool no_any_layout, no_ring_reset;
};

/*
 * Puts the device onto the bus, with `offered` device features. `env` must outlive it. Then
 * virtio_add_queue() for each queue. Negative errno with an error.
 */
int virtio_init(struct virtio *v, const struct device_env *env, struct pci_bus *bus,
		const struct virtio_type *type, uint64_t offered,
		const struct virtio_pci_config *config, struct error *err);
/* The next queue; `size` a power of two up to VIRTQUEUE_SIZE_MAX. */
struct virtqueue *virtio_add_queue(struct virtio *v, unsigned size);
/* Resets it and takes it off the bus; safe on a zeroed struct. */
void virtio_fini(struct virtio *v);

static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
	return (v->features & feature) != 0;
}
/* Whether the driver runs and the device may work for it. */
bool virtio_running(const struct virtio *v);
/* The device configuration has changed: tells the driver. */
void virtio_config_changed(struct virtio *v);
/* The driver did what it must not: broken until it resets. */
void virtio_broken(struct virtio *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- queues (virtqueue.c) ---- */

/*
 * Takes the next request. 1 with `chain` filled; 0 if there is none; negative if the device is now
 * broken. Each chain taken goes back by virtqueue_push() or virtqueue_fill().
 */
int virtqueue_pop(struct virtqueue *q, struct virtio_chain *chain);
/* Gives back the last `count` chains taken as if they had never been taken. */
void virtqueue_unpop(struct virtqueue *q, unsigned count);
/* Whether the driver has put nothing (more) into the queue. */
bool virtqueue_empty(const struct virtqueue *q);
/* Returns a chain; `written` is how many bytes of its writable part were written, from its start.
 * Does nothing if the queue was reset since. The driver is not told yet. */
void virtqueue_push(struct virtqueue *q, struct virtio_chain *chain, size_t written);
/* The same in two steps, for several chains that must appear together. */
void virtqueue_fill(struct virtqueue *q, struct virtio_chain *chain, size_t written);
void virtqueue_flush(struct virtqueue *q);
/* Interrupts the driver unless it does not want that now. */
void virtqueue_signal(struct virtqueue *q);
/* Asks the driver not to notify while the queue is being looked at anyway, or to notify again.
 * After switching it on look once more whether the queue is empty. */
void virtqueue_want_notify(struct virtqueue *q, bool on);
/* Has the queue served soon, as if the driver had notified. */
void virtqueue_kick(struct virtqueue *q);
bool virtqueue_ready(const struct virtqueue *q);
/* How many chains may be taken in one turn of the loop, so that a busy driver does not keep others
 * from being served. */
static inline unsigned virtqueue_budget(const struct virtqueue *q)
{
	return q->size;
}

void virtio_chain_free(struct virtio_chain *chain);
/* Copies at most `len` bytes from the start of the chain's readable pieces, cuts them off the front
 * and returns how many. */
size_t virtio_chain_read(struct virtio_chain *chain, void *buf, size_t len);
/* Copies at most `len` bytes to the front of its writable pieces, cuts them off, returns how
 * many. */
size_t virtio_chain_write(struct virtio_chain *chain, const void *buf, size_t len);

/* Between transport and queues. */
void virtqueue_init(struct virtqueue *q, struct virtio *v, unsigned index, unsigned size);
void virtqueue_fini(struct virtqueue *q);
void virtqueue_reset(struct virtqueue *q);
/* Finds the rings in host memory; broken if they are not wholly in RAM. */
void virtqueue_enable(struct virtqueue *q);
/* Legacy interface: all three parts from the page the driver names. */
void virtqueue_set_legacy_address(struct virtqueue *q, uint64_t base);
/* Serves the queue now: in the loop. */
void virtqueue_serve(struct virtqueue *q);
/* virtio_notify.c: brings doorbells up to date after status, queues or BARs changed; all off. */
void virtio_update_doorbells(struct virtio *v);
void virtqueue_drop_doorbells(struct virtqueue *q);
/* virtio_pci.c: where the queue's notification register is now; false: nowhere. */
bool virtio_notify_register(const struct virtqueue *q, bool modern, struct doorbell *bell);
void virtio_interrupt_queue(struct virtio *v, const struct virtqueue *q);

#endif
