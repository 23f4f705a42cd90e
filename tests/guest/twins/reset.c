/* SPDX-License-Identifier: MIT */
/*
 * Ways to reset the machine; `parameter` says which. The harness starts the machine with -no-reboot, which makes each an end.
 */
#include "rt.h"

void guest_main(void)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) none = {0, 0};

	say("reset %d", parameter);
	switch (parameter) {
	case 0:
		outb(0xCF9, 0x02);
		outb(0xCF9, 0x06);
		break;
	case 1: outb(0x92, inb(0x92) | 1); break;
	case 2:
		WAIT(!(inb(0x64) & 2));
		outb(0x64, 0xFE);
		break;
	case 3: /* In protected mode: a KVM that emulates real mode does not look at the limit of the interrupt table there. */
		asm volatile(
			"lidtl %0\n\tmovl %%cr0, %%eax\n\torb $1, %%al\n\tmovl %%eax, %%cr0\n\tud2"
			:
			: "m"(none)
			: "eax");
		break;
	case 4: outb(0x501, 0x10); break;   /* isa-debug-exit: status 0x21 */
	case 5: outw(0x604, 0x2000); break; /* soft off: PM1 control, SLP_EN with SLP_TYP 0 */
	}
	delay_ms(1000);
	say("FAILED: still here");
}
