/* SPDX-License-Identifier: MIT */
/* QMP: the JSON control protocol (QEMU docs/interop/qmp-spec), for harnesses. */
#ifndef VMM_QMP_H
#define VMM_QMP_H

#include <stdbool.h>

struct chardev;
struct machine;
struct qmp;

/* A QMP server on a character device; belongs to the machine. Lock held. */
struct qmp *qmp_new(struct machine *m, struct chardev *chr, bool pretty);
void qmp_free_all(struct machine *m);

#endif
