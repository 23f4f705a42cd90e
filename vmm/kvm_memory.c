/* SPDX-License-Identifier: MIT */
/*
 * Guest memory for KVM: the flat view as memory slots, dirty logs, coalesced MMIO.
 *
 * A range whose reads come from RAM or ROM becomes a slot; it is read-only if writes go elsewhere
 * (ROM, or nothing, or shadow RAM behind ROM), and then each write is an MMIO exit that the memory
 * bus decides. Everything else has no slot, so all of it is MMIO exits.
 *
 * A slot cannot be moved or cut: it is deleted and made anew. When the view changes, slots that
 * stay as they are are not touched; RAM is cut at 1 MiB and 2 MiB, so that what the guest switches
 * in its life (PAM, the VGA window, A20) leaves the RAM above alone. Between deletion and creation
 * the memory is missing. A data access then becomes an MMIO exit that waits for the machine lock
 * and finds the new view; a code fetch or a page walk has no such way out, so the other CPUs are
 * kept out of KVM_RUN meanwhile. While all CPUs stand still (construction, reset) changes are only
 * noted.
 *
 * A20: KVM cannot mask an address line. With the gate closed the second megabyte shows the first
 * one's slots, which is what programs for real mode rely on; higher odd megabytes are not folded.
 *
 * Documents: Linux, Documentation/virt/kvm/api.rst: 4.35 KVM_SET_USER_MEMORY_REGION (slots do not
 * overlap; flags alone may change in place), 4.8 KVM_GET_DIRTY_LOG (reads and clears), 4.116
 * KVM_(UN)REGISTER_COALESCED_MMIO.
 */
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include "vmm/kvm_internal.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static bool slot_same_place(const struct kvm_slot *a, const struct kvm_slot *b)
{
	return a->gpa == b->gpa && a->size == b->size && a->host == b->host &&
	       !((a->flags ^ b->flags) & KVM_MEM_READONLY);
}

static int set_slot(struct kvm_engine *k, unsigned n, const struct kvm_slot *s)
{
	struct kvm_userspace_memory_region r = {
		.slot = n,
		.flags = s->flags,
		.guest_phys_addr = s->gpa,
		.memory_size = s->size,
		.userspace_addr = (uintptr_t)s->host,
	};

	trace(TRACE_KVM, "slot %u: %#llx, %#llx bytes, flags %#x", n, (unsigned long long)s->gpa,
	      (unsigned long long)s->size, s->flags);
	return kvm_ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &r);
}

static void slot_failed(struct kvm_engine *k, int rc, const struct kvm_slot *s)
{
	if (k->slot_error_told)
		return;
	k->slot_error_told = true;
	warn("KVM refuses guest memory at %#llx (%llu KiB): %s", (unsigned long long)s->gpa,
	     (unsigned long long)(s->size / KIB), strerror(-rc));
}

/* Slots end where A20 and PAM switch memory. */
static bool is_cut(uint64_t gpa)
{
	return gpa == MIB || gpa == 2 * MIB;
}

/* Appends a piece to the wanted slots, or to the last of them where it goes on. */
static unsigned add_wanted(struct kvm_engine *k, struct kvm_slot *want, unsigned n,
			   const struct kvm_slot *piece)
{
	struct kvm_slot *last = n ? &want[n - 1] : NULL;

	if (last && !is_cut(piece->gpa) && last->gpa + last->size == piece->gpa &&
	    last->region == piece->region && last->offset + last->size == piece->offset &&
	    last->flags == piece->flags) {
		last->size += piece->size;
		return n;
	}
	if (n == KVM_SLOTS_MAX) {
		slot_failed(k, -ENOSPC, piece);
		return n;
	}
	want[n++] = *piece;
	return n;
}

/* The whole pages of [start, end), which lies in the range, as a slot; `start` is to be at `gpa`.
 */
static bool piece_of(const struct mem_range *r, uint64_t start, uint64_t end, uint64_t gpa,
		     struct kvm_slot *s)
{
	bool writable =
		r->wr == r->rd && r->wr_offset == r->rd_offset && r->rd && r->rd->kind == MEM_RAM;

	if (!r->rd || !r->rd->host)
		return false;
	uint64_t from = start;
	start = round_up(start, GUEST_PAGE_SIZE);
	end = round_down(end, GUEST_PAGE_SIZE);
	if (start >= end)
		return false;
	*s = (struct kvm_slot){
		.gpa = gpa + (start - from),
		.size = end - start,
		.region = r->rd,
		.offset = r->rd_offset + (start - r->start),
		.flags = writable ? 0 : KVM_MEM_READONLY,
	};
	s->host = r->rd->host + s->offset;
	if (r->rd->log_dirty)
		s->flags |= KVM_MEM_LOG_DIRTY_PAGES;
	return true;
}

/* The parts of [from, to) in the view, as slots `shift` bytes further up. */
static unsigned wanted_between(struct kvm_engine *k, uint64_t from, uint64_t to, uint64_t shift,
			       struct kvm_slot *want, unsigned n)
{
	size_t count;
	const struct mem_range *view = memory_view(k->base.config.mem, &count);

	for (size_t i = 0; i < count && view[i].start < to; i++) {
		uint64_t start = view[i].start > from ? view[i].start : from;
		uint64_t end = view[i].end < to ? view[i].end : to;
		struct kvm_slot piece;
		if (start < end && piece_of(&view[i], start, end, start + shift, &piece))
			n = add_wanted(k, want, n, &piece);
	}
	return n;
}

static unsigned wanted_slots(struct kvm_engine *k, struct kvm_slot *want)
{
	unsigned n = wanted_between(k, 0, MIB, 0, want, 0);

	if (memory_a20(k->base.config.mem))
		n = wanted_between(k, MIB, 2 * MIB, 0, want, n);
	else
		n = wanted_between(k, 0, MIB, MIB, want, n);
	return wanted_between(k, 2 * MIB, UINT64_MAX, 0, want, n);
}

/* Adds a slot's dirty log to its region's bits; the kernel clears the log as it is read. */
static void fetch_log(struct kvm_engine *k, unsigned n)
{
	const struct kvm_slot *s = &k->slot[n];
	uint64_t pages = s->size / GUEST_PAGE_SIZE, words = div_round_up(pages, 64);
	uint64_t *bits = xcalloc(words, sizeof(*bits));
	struct kvm_dirty_log log = {.slot = n, .dirty_bitmap = bits};

	if (kvm_ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
		words = 0;
	for (uint64_t w = 0; w < words; w++) {
		for (uint64_t left = bits[w]; left; left &= left - 1) {
			uint64_t page = 64 * w + (unsigned)__builtin_ctzll(left);
			mem_dirty_mark(s->region, s->offset + page * GUEST_PAGE_SIZE,
				       GUEST_PAGE_SIZE);
		}
	}
	free(bits);
}

static void delete_slot(struct kvm_engine *k, unsigned n)
{
	struct kvm_slot *s = &k->slot[n];

	if (s->flags & KVM_MEM_LOG_DIRTY_PAGES)
		fetch_log(k, n);
	s->size = 0;
	set_slot(k, n, s);
}

static void create_slot(struct kvm_engine *k, const struct kvm_slot *s)
{
	unsigned n = 0;
	int rc;

	while (n < KVM_SLOTS_MAX && k->slot[n].size)
		n++;
	rc = n < KVM_SLOTS_MAX ? set_slot(k, n, s) : -ENOSPC;
	if (rc < 0)
		slot_failed(k, rc, s);
	else
		k->slot[n] = *s;
}

/* A slot that stays in its place: at most its dirty log goes on or off. False: KVM wants it made
 * anew. */
static bool keep_slot(struct kvm_engine *k, unsigned n, const struct kvm_slot *want)
{
	struct kvm_slot *s = &k->slot[n];

	if (s->flags == want->flags)
		return true;
	if (s->flags & KVM_MEM_LOG_DIRTY_PAGES)
		fetch_log(k, n);
	if (set_slot(k, n, want) < 0)
		return false;
	*s = *want;
	return true;
}

static void update_slots(struct kvm_engine *k)
{
	struct kvm_slot want[KVM_SLOTS_MAX];
	bool have[KVM_SLOTS_MAX] = {false}, held = false;
	unsigned n = wanted_slots(k, want);

	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
		unsigned w = 0;
		if (!k->slot[i].size)
			continue;
		while (w < n && !slot_same_place(&k->slot[i], &want[w]))
			w++;
		if (w < n && keep_slot(k, i, &want[w])) {
			have[w] = true;
			continue;
		}
		if (!held)
			kvm_hold_vcpus(k);
		held = true;
		delete_slot(k, i);
	}
	for (unsigned w = 0; w < n; w++)
		if (!have[w])
			create_slot(k, &want[w]);
	if (held)
		kvm_release_vcpus(k);
}

static void zone_ioctl(struct kvm_engine *k, unsigned long request, const struct kvm_coalesced *z)
{
	struct kvm_coalesced_mmio_zone zone = {.addr = z->gpa, .size = (uint32_t)z->size};

	kvm_ioctl(k->vm_fd, request, &zone);
}

/* Ranges whose writes a device allows to be queued. */
static void update_zones(struct kvm_engine *k)
{
	struct kvm_coalesced want[KVM_SLOTS_MAX];
	unsigned n = 0;
	size_t count;
	const struct mem_range *view = memory_view(k->base.config.mem, &count);

	if (!k->ring_page)
		return;
	for (size_t i = 0; i < count && n < KVM_SLOTS_MAX; i++) {
		const struct mem_region *w = view[i].wr;
		uint64_t size = view[i].end - view[i].start;
		if (w && !w->host && w->ops->coalesce && size <= UINT32_MAX)
			want[n++] = (struct kvm_coalesced){view[i].start, size};
	}
	if (n == k->zones && !memcmp(want, k->zone, n * sizeof(want[0])))
		return;
	kvm_flush_coalesced(k);
	for (unsigned i = 0; i < k->zones; i++)
		zone_ioctl(k, KVM_UNREGISTER_COALESCED_MMIO, &k->zone[i]);
	for (unsigned i = 0; i < n; i++)
		zone_ioctl(k, KVM_REGISTER_COALESCED_MMIO, &want[i]);
	memcpy(k->zone, want, n * sizeof(want[0]));
	k->zones = n;
}

/* The memory bus as KVM's exits use it; lengths of a split access may be odd. */
static void bus_write(struct memory *mem, uint64_t gpa, const uint8_t *data, unsigned len)
{
	if (is_power_of_2(len) && len <= 8)
		mem_mmio_write(mem, gpa, len, load_le(data, len));
	else
		mem_write(mem, gpa, data, len);
}

void kvm_flush_coalesced(struct kvm_engine *k)
{
	struct kvm_coalesced_mmio_ring *ring = k->ring;
	uint32_t entries = (uint32_t)((4096 - sizeof(*ring)) / sizeof(ring->coalesced_mmio[0]));

	if (!ring)
		return;
	while (ring->first != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
		struct kvm_coalesced_mmio *m = &ring->coalesced_mmio[ring->first % entries];
		/* The entry may be reused once `first` has moved on: take it first. */
		struct kvm_coalesced_mmio entry = *m;
		__atomic_store_n(&ring->first, (ring->first + 1) % entries, __ATOMIC_RELEASE);
		if (entry.len <= sizeof(entry.data))
			bus_write(k->base.config.mem, entry.phys_addr, entry.data, entry.len);
	}
}

static void view_changed(void *opaque)
{
	struct kvm_engine *k = opaque;

	pthread_mutex_lock(&k->mutex);
	bool paused = k->paused;
	pthread_mutex_unlock(&k->mutex);
	k->slots_stale = true;
	if (!paused)
		kvm_memory_sync(k);
}

void kvm_memory_sync(struct kvm_engine *k)
{
	if (!k->slots_stale)
		return;
	k->slots_stale = false;
	update_slots(k);
	update_zones(k);
}

static void dirty_sync(void *opaque, struct mem_region *region)
{
	struct kvm_engine *k = opaque;

	kvm_flush_coalesced(k);
	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++)
		if (k->slot[i].size && k->slot[i].region == region &&
		    (k->slot[i].flags & KVM_MEM_LOG_DIRTY_PAGES))
			fetch_log(k, i);
}

int kvm_memory_init(struct kvm_engine *k, struct error *err)
{
	int page = kvm_ioctl_value(k->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);

	if (kvm_ioctl_value(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) <= 0)
		return error_set(err, ENOTSUP,
				 "this kernel's KVM has no read-only memory, so that firmware in "
				 "ROM cannot run; use -accel soft");
	k->ring_page = page > 0 ? (unsigned)page : 0;
	k->listener = (struct mem_listener){
		.view_changed = view_changed, .dirty_sync = dirty_sync, .opaque = k};
	memory_add_listener(k->base.config.mem, &k->listener);
	k->slots_stale = true;
	return 0;
}

void kvm_memory_fini(struct kvm_engine *k)
{
	if (k->listener.view_changed)
		memory_remove_listener(k->base.config.mem, &k->listener);
}
