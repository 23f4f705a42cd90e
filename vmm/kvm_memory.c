/* SPDX-License-Identifier: MIT */
/*
 * Guest memory for KVM: the flat view as memory slots, dirty logs, coalesced MMIO.
 *
 * A range whose reads come from RAM or ROM becomes a slot; it is read-only if writes go elsewhere
 * (ROM, or nothing, or shadow RAM behind ROM), and then each write is an MMIO exit that the memory
 * bus decides. Everything else has no slot, so all of it is MMIO exits. When the view changes,
 * slots that stay as they are are not touched.
 *
 * A20: KVM cannot mask an address line. With the gate closed the second megabyte shows the first
 * one's slots, which is what programs for real mode rely on.
 *
 * Document: Linux, Documentation/virt/kvm/api.rst (4.35 KVM_SET_USER_MEMORY_REGION, 4.8
 * KVM_GET_DIRTY_LOG, 4.116 KVM_(UN)REGISTER_COALESCED_MMIO).
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

/* Appends a piece to the wanted slots, or to the last of them where it goes on. */
static unsigned add_wanted(struct kvm_slot *want, unsigned n, const struct kvm_slot *piece)
{
	struct kvm_slot *last = n ? &want[n - 1] : NULL;

	if (last && last->gpa + last->size == piece->gpa && last->region == piece->region &&
	    last->offset + last->size == piece->offset && last->flags == piece->flags) {
		last->size += piece->size;
		return n;
	}
	if (n < KVM_SLOTS_MAX)
		want[n++] = *piece;
	return n;
}

/* The whole pages of [start, end), which lies in the range, as a slot; `start` is to be at `gpa`.
 */
static bool piece_of(const struct kvm_engine *k, const struct mem_range *r, uint64_t start,
		     uint64_t end, uint64_t gpa, struct kvm_slot *s)
{
	bool writable =
		r->wr == r->rd && r->wr_offset == r->rd_offset && r->rd && r->rd->kind == MEM_RAM;

	if (!r->rd || !r->rd->host || (!writable && !k->readonly_slots))
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

static unsigned wanted_slots(struct kvm_engine *k, struct kvm_slot *want)
{
	struct memory *mem = k->base.config.mem;
	size_t count;
	const struct mem_range *view = memory_view(mem, &count);
	bool a20 = memory_a20(mem);
	struct kvm_slot piece;
	unsigned n = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t start = view[i].start;
		if (!a20 && start < 2 * MIB) {
			if (start < MIB) {
				uint64_t end = view[i].end < MIB ? view[i].end : MIB;
				if (piece_of(k, &view[i], start, end, start, &piece))
					n = add_wanted(want, n, &piece);
			}
			start = 2 * MIB;
		}
		if (start < view[i].end && piece_of(k, &view[i], start, view[i].end, start, &piece))
			n = add_wanted(want, n, &piece);
	}
	for (size_t i = 0; !a20 && i < count && view[i].start < MIB; i++) {
		uint64_t end = view[i].end < MIB ? view[i].end : MIB;
		if (piece_of(k, &view[i], view[i].start, end, view[i].start + MIB, &piece))
			n = add_wanted(want, n, &piece);
	}
	return n;
}

static void slot_failed(struct kvm_engine *k, int rc, const struct kvm_slot *s)
{
	if (k->slot_error_told)
		return;
	k->slot_error_told = true;
	warn("KVM refuses guest memory at %#llx (%llu KiB): %s", (unsigned long long)s->gpa,
	     (unsigned long long)(s->size / KIB), strerror(-rc));
}

/* Before a slot with a dirty log goes away, what is in the log is saved. */
static void fetch_log(struct kvm_engine *k, unsigned n)
{
	const struct kvm_slot *s = &k->slot[n];
	uint64_t pages = s->size / GUEST_PAGE_SIZE;
	uint64_t *bits = xcalloc(div_round_up(pages, 64), sizeof(*bits));
	struct kvm_dirty_log log = {.slot = n, .dirty_bitmap = bits};

	if (kvm_ioctl(k->vm_fd, KVM_GET_DIRTY_LOG, &log) == 0)
		for (uint64_t p = 0; p < pages; p++)
			if (bits[p / 64] >> (p % 64) & 1)
				mem_dirty_mark(s->region, s->offset + p * GUEST_PAGE_SIZE,
					       GUEST_PAGE_SIZE);
	free(bits);
}

static void update_slots(struct kvm_engine *k)
{
	struct kvm_slot want[KVM_SLOTS_MAX];
	bool have[KVM_SLOTS_MAX] = {false};
	unsigned n = wanted_slots(k, want), at = 0;
	int rc;

	for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
		struct kvm_slot *s = &k->slot[i];
		unsigned w = 0;
		if (!s->size)
			continue;
		while (w < n && !slot_same_place(s, &want[w]))
			w++;
		if (w < n && s->flags == want[w].flags) {
			have[w] = true;
			continue;
		}
		if (s->flags & KVM_MEM_LOG_DIRTY_PAGES)
			fetch_log(k, i);
		if (w < n && set_slot(k, i, &want[w]) == 0) {
			*s = want[w]; /* only its dirty log goes on or off */
			have[w] = true;
			continue;
		}
		s->size = 0;
		set_slot(k, i, s);
	}
	for (unsigned w = 0; w < n; w++) {
		if (have[w])
			continue;
		while (at < KVM_SLOTS_MAX && k->slot[at].size)
			at++;
		if (at == KVM_SLOTS_MAX)
			return;
		rc = set_slot(k, at, &want[w]);
		if (rc < 0)
			slot_failed(k, rc, &want[w]);
		else
			k->slot[at] = want[w];
	}
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

	k->readonly_slots =
		kvm_ioctl_value(k->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
	if (!k->readonly_slots)
		warn("this kernel's KVM has no read-only memory: firmware in ROM will not run");
	k->ring_page = page > 0 ? (unsigned)page : 0;
	k->listener = (struct mem_listener){
		.view_changed = view_changed, .dirty_sync = dirty_sync, .opaque = k};
	memory_add_listener(k->base.config.mem, &k->listener);
	view_changed(k);
	return 0;
}

void kvm_memory_fini(struct kvm_engine *k)
{
	if (k->listener.view_changed)
		memory_remove_listener(k->base.config.mem, &k->listener);
}
