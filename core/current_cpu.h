/* SPDX-License-Identifier: MIT */
/* Which vCPU makes the device access now going on (its index; -1 outside a vCPU). The local APIC's
 * page is the one place where the answer differs from CPU to CPU. Each engine sets it before it
 * dispatches an access. */
#ifndef CORE_CURRENT_CPU_H
#define CORE_CURRENT_CPU_H

extern _Thread_local int current_cpu;

#endif
