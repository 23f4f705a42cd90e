/* SPDX-License-Identifier: MIT */
/*
 * The host's side of virtio cards, which a fuzz input moves, too: three more cards on a machine, a
 * network card on a wire with offloads and several queues, serial ports on memory and on a socket, a
 * random number generator with a limit whose source runs dry and ends.
 */
#ifndef TESTS_FUZZ_VIRTIO_HOST_H
#define TESTS_FUZZ_VIRTIO_HOST_H

#include "tests/fuzz/fuzz.h"
#include "vmm/machine.h"

struct virtio_host;

/* Lock held. The cards are in `slot`, slot + 1 and slot + 2. */
struct virtio_host *virtio_host_new(struct machine *m, unsigned slot);
void virtio_host_free(struct virtio_host *h);
/* Something happens outside: what, the input says. */
void virtio_host_event(struct virtio_host *h, struct fuzz_input *in);

#endif
