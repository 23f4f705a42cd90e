/* SPDX-License-Identifier: MIT */
/*
 * Short ways between devices and the guest past the vCPU's thread: a guest's write to a doorbell
 * signals an eventfd inside the kernel, and an eventfd sends an interrupt message.
 *
 *   doorbell  KVM_IOEVENTFD: the write ends in the kernel, the vCPU goes on at once. Writes that
 *             do not match (another size, another value) come out of KVM_RUN as ever.
 *   message   KVM_IRQFD ties an eventfd to a GSI behind those of the chips' inputs, and the routing
 *             table says which message (address, data) that GSI is. Only with the kernel's chips.
 *
 * The routing table is replaced as a whole for each change, which makes the kernel wait for all who
 * read the old one; so routes are made when a message is first sent, and changed only when its
 * address or data did.
 *
 * Document: Linux, Documentation/virt/kvm/api.rst: 4.52 KVM_SET_GSI_ROUTING, 4.59 KVM_IOEVENTFD,
 * 4.75 KVM_IRQFD.
 */
#include "core/doorbell.h"
#include "lib/log.h"
#include "lib/text.h"
#include "vmm/kvm_internal.h"
#include <errno.h>

enum { FIRST_ROUTES = 16 };

static struct kvm_engine *self(struct engine *e)
{
	return (struct kvm_engine *)e;
}

int kvm_doorbell(struct engine *e, const struct doorbell *bell, int fd, bool on)
{
	struct kvm_engine *k = self(e);
	struct kvm_ioeventfd io = {
		.addr = bell->address,
		.len = bell->size,
		.fd = fd,
		.datamatch = bell->value,
	};
	enum { ANY_SIZE_WITHOUT = 2 }; /* what drivers write where the kernel wants a size */

	if (!k->ioeventfd)
		return -ENOTSUP;
	if (bell->size == 0 && !k->ioeventfd_any)
		io.len = ANY_SIZE_WITHOUT;
	if (bell->port)
		io.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (bell->match)
		io.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	if (!on)
		io.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	int rc = kvm_ioctl(k->vm_fd, KVM_IOEVENTFD, &io);
	trace(TRACE_KVM, "doorbell %s %#llx %s: %d", bell->port ? "port" : "memory",
	      (unsigned long long)bell->address, on ? "on" : "off", rc);
	if (rc == 0)
		k->doorbells += on ? 1 : -1u;
	return rc;
}

static struct kvm_route *find_route(struct kvm_engine *k, int fd)
{
	for (unsigned i = 0; i < k->routes_size; i++)
		if (k->route[i].fd == fd)
			return &k->route[i];
	return NULL;
}

static struct kvm_route *free_route(struct kvm_engine *k)
{
	struct kvm_route *r = find_route(k, -1);
	unsigned old = k->routes_size, size = old ? 2 * old : FIRST_ROUTES;

	if (r || size > KVM_ROUTES_MAX)
		return r;
	k->route = xrealloc(k->route, size * sizeof(*k->route));
	for (unsigned i = old; i < size; i++)
		k->route[i].fd = -1;
	k->routes_size = size;
	return &k->route[old];
}

static int bind_eventfd(struct kvm_engine *k, const struct kvm_route *r, uint32_t flags)
{
	struct kvm_irqfd irq = {
		.fd = (uint32_t)r->fd,
		.gsi = KVM_IOAPIC_PINS + (uint32_t)(r - k->route),
		.flags = flags,
	};
	return kvm_ioctl(k->vm_fd, KVM_IRQFD, &irq);
}

int kvm_msi_route(struct engine *e, int fd, uint64_t address, uint32_t data)
{
	struct kvm_engine *k = self(e);

	if (!k->irqchip || !k->irqfd || fd < 0)
		return -ENOTSUP;
	struct kvm_route *r = find_route(k, fd);
	if (r && r->address == address && r->data == data)
		return 0;
	bool is_new = !r;
	if (!r)
		r = free_route(k);
	if (!r)
		return -ENOSPC;
	*r = (struct kvm_route){.fd = fd, .address = address, .data = data};
	int rc = kvm_irqchip_set_routing(k);
	if (rc == 0 && is_new)
		rc = bind_eventfd(k, r, 0);
	trace(TRACE_KVM, "gsi %u is message %#llx <- %x: %d",
	      KVM_IOAPIC_PINS + (unsigned)(r - k->route), (unsigned long long)address, data, rc);
	if (rc == 0) {
		k->routes += is_new;
		return 0;
	}
	if (!is_new) {
		bind_eventfd(k, r, KVM_IRQFD_FLAG_DEASSIGN);
		k->routes--;
	}
	r->fd = -1;
	return rc;
}

void kvm_msi_unroute(struct engine *e, int fd)
{
	struct kvm_engine *k = self(e);
	struct kvm_route *r = fd < 0 ? NULL : find_route(k, fd);

	if (!r)
		return;
	bind_eventfd(k, r, KVM_IRQFD_FLAG_DEASSIGN);
	r->fd = -1;
	k->routes--;
	kvm_irqchip_set_routing(k);
}
