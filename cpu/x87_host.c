/* SPDX-License-Identifier: MIT */
/*
 * Replaying an x87 instruction on the host's x87.
 *
 * The guest's control word, status word, tags and registers are loaded with FRSTOR, the one
 * instruction is executed, and FNSAVE takes everything back; as it also initialises the host's FPU,
 * C code finds what its ABI promises. An unmasked exception only sets ES: it would be signalled at
 * the next waiting instruction, and FNSAVE is none. One that was pending before and is ignored
 * (IGNNE#) stays out of the image, as the host would signal it. So even unmasked responses (SDM
 * vol. 1, 8.5), stack faults and the contents of undefined condition codes are those of real
 * hardware.
 *
 * The instructions stand in two tables of four-byte stubs: `stub_reg` has each register form D8..DF
 * C0..FF, `stub_mem` each memory form, its operand at (%rdx). The undocumented aliases (FCOM2,
 * FCOMP3, FSTP8, FFREEP, ...) are among them: every x86-64 processor has them.
 */
#include "cpu/fpu.h"

/* FSAVE image, 32-bit protected mode format (SDM vol. 1, figure 8-9). */
struct fsave_image {
	uint32_t cw, sw, tags;
	uint32_t fip, fcs_fop, fdp, fds;
	uint8_t st[8][10];
};
_Static_assert(sizeof(struct fsave_image) == 108, "FSAVE image");

enum { STUB_SIZE = 4, TAG_EMPTY = 3 };

extern const uint8_t minivm_x87_stub_reg[], minivm_x87_stub_mem[];
/* Loads the image and the arithmetic flags, runs the stub, saves the image; returns the flags. */
uint64_t minivm_x87_run(struct fsave_image *image, const void *stub, void *mem, uint64_t eflags);

__asm__(".pushsection .text\n"
	"	.balign 16\n"
	"minivm_x87_stub_reg:\n"
	"	.set minivm_n, 0\n"
	"	.rept 512\n"
	"	.byte 0xD8 + (minivm_n >> 6), 0xC0 + (minivm_n & 63), 0xC3, 0x90\n" /* op; ret; nop
										     */
	"	.set minivm_n, minivm_n + 1\n"
	"	.endr\n"
	"minivm_x87_stub_mem:\n"
	"	.set minivm_n, 0\n"
	"	.rept 64\n"
	"	.byte 0xD8 + (minivm_n >> 3), 2 + ((minivm_n & 7) << 3), 0xC3, 0x90\n" /* op (%rdx);
											  ret */
	"	.set minivm_n, minivm_n + 1\n"
	"	.endr\n"
	"	.type minivm_x87_run, @function\n"
	"minivm_x87_run:\n"
	"	frstor (%rdi)\n"
	"	push %rcx\n"
	"	popfq\n"
	"	call *%rsi\n"
	"	fnsave (%rdi)\n"
	"	pushfq\n"
	"	pop %rax\n"
	"	ret\n"
	"	.size minivm_x87_run, . - minivm_x87_run\n"
	".popsection\n");

uint16_t x87_hide_pending(struct fpu *f)
{
	uint16_t pending = f->sw & (uint16_t)~f->cw & FPE_ALL;

	f->sw &= (uint16_t) ~(pending | SW_SUMMARY | SW_BUSY);
	return pending;
}

void x87_show_pending(struct fpu *f, uint16_t pending)
{
	if (pending)
		f->sw |= pending | SW_SUMMARY | SW_BUSY;
}

uint32_t x87_replay(struct fpu *f, unsigned opcode, unsigned modrm, void *mem, uint32_t eflags)
{
	uint16_t pending = x87_hide_pending(f);
	struct fsave_image image = {.cw = f->cw, .sw = f->sw};
	const uint8_t *stub =
		mem ? minivm_x87_stub_mem + ((opcode & 7) << 3 | (modrm >> 3 & 7)) * STUB_SIZE
		    : minivm_x87_stub_reg + ((opcode & 7) << 6 | (modrm & 63)) * STUB_SIZE;

	for (unsigned n = 0; n < 8; n++) {
		if (!(f->tag_valid >> n & 1))
			image.tags |= TAG_EMPTY << 2 * n;
		x87_copy(image.st[n], x87_st(f, n));
	}
	eflags = (uint32_t)minivm_x87_run(&image, stub, mem, eflags & FL_ARITH);
	f->sw = (uint16_t)image.sw;
	x87_show_pending(f, pending);
	f->tag_valid = 0;
	for (unsigned n = 0; n < 8; n++) {
		if ((image.tags >> 2 * n & 3) != TAG_EMPTY)
			f->tag_valid |= (uint8_t)(1u << n);
		x87_copy(x87_st(f, n), image.st[n]);
	}
	return eflags & FL_ARITH;
}
