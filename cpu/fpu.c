/* SPDX-License-Identifier: MIT */
/*
 * The floating-point state as a whole: reset, the FXSAVE image, and how a pending x87 exception
 * reaches the outside.
 *
 * With CR0.NE set a waiting instruction raises #MF. With NE clear the processor asserts FERR# and
 * stops before the waiting instruction until an interrupt comes (on a PC: IRQ13); a chipset that
 * asserts IGNNE# lets it go on, until FERR# is negated (SDM vol. 1, 8.7 and appendix D.2; 82371SB,
 * "Coprocessor Error Register").
 */
#include "cpu/fpu.h"

enum { FOP_BITS = 0x7FF };

void fpu_reset(struct fpu *f)
{
	memset(f, 0, sizeof *f);
	f->cw = 0x0040; /* SDM vol. 3A, table 9-1: all unmasked after reset, unlike after FNINIT */
	f->tag_valid = 0xFF;
	f->mxcsr = MXCSR_RESET;
}

void fpu_load_pointers(struct fpu *f, const uint8_t image[512])
{
	f->fop = load_le16(image + FX_FOP) & FOP_BITS;
	f->fip = load_le32(image + FX_FIP);
	f->fcs = load_le16(image + FX_FCS);
	f->fdp = load_le32(image + FX_FDP);
	f->fds = load_le16(image + FX_FDS);
}

void fpu_store_pointers(const struct fpu *f, uint8_t image[512])
{
	store_le16(image + FX_FOP, f->fop);
	store_le32(image + FX_FIP, f->fip);
	store_le32(image + FX_FCS, f->fcs);
	store_le32(image + FX_FDP, f->fdp);
	store_le32(image + FX_FDS, f->fds);
}

void fpu_load_fxsave(struct fpu *f, const uint8_t image[512])
{
	f->cw = (uint16_t)((load_le16(image + FX_CW) & CW_WRITABLE) | CW_RESERVED_ONE);
	f->sw = load_le16(image + FX_SW) & (uint16_t) ~(SW_SUMMARY | SW_BUSY);
	if (f->sw & ~f->cw & FPE_ALL)
		f->sw |= SW_SUMMARY | SW_BUSY;
	f->tag_valid = image[FX_TAGS];
	fpu_load_pointers(f, image);
	f->mxcsr = load_le32(image + FX_MXCSR) & MXCSR_WRITABLE;
	for (unsigned n = 0; n < 8; n++)
		x87_copy(x87_st(f, n), image + FX_ST + n * FX_SLOT);
	memcpy(f->xmm, image + FX_XMM, sizeof f->xmm);
}

void fpu_store_fxsave(const struct fpu *f, uint8_t image[512])
{
	memset(image, 0, 512);
	store_le16(image + FX_CW, f->cw);
	store_le16(image + FX_SW, f->sw);
	image[FX_TAGS] = f->tag_valid;
	fpu_store_pointers(f, image);
	store_le32(image + FX_MXCSR, f->mxcsr);
	store_le32(image + FX_MXCSR_MASK, MXCSR_WRITABLE);
	for (unsigned n = 0; n < 8; n++)
		x87_copy(image + FX_ST + n * FX_SLOT, &f->st[x87_physical(f, n)]);
	memcpy(image + FX_XMM, f->xmm, sizeof f->xmm);
}

void x87_update_summary(struct soft_cpu *c)
{
	struct fpu *f = &c->fpu;

	if (f->sw & ~f->cw & FPE_ALL) {
		f->sw |= SW_SUMMARY | SW_BUSY;
	} else {
		f->sw &= (uint16_t) ~(SW_SUMMARY | SW_BUSY);
		c->ignne = false;
	}
}

bool x87_pending(struct soft_cpu *c)
{
	const struct soft_cpu_config *config = &c->config;

	if (c->cr0 & CR0_NE)
		cpu_raise(c, EXC_MF);
	if (c->ignne || !config->ferr)
		return true;
	machine_enter(c);
	config->ferr(config->opaque, config->index);
	machine_leave(c);
	/* Stopped: the same instruction again, after whatever interrupt comes. */
	c->next_eip = c->eip;
	cpu_end_block(c);
	return false;
}

void soft_cpu_set_ignne(struct soft_cpu *c, bool on)
{
	c->ignne = on && (c->fpu.sw & SW_SUMMARY);
}

/* 9B: FWAIT. */
void op_fwait(struct soft_cpu *c, const struct insn *i)
{
	if ((c->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		cpu_raise(c, EXC_NM);
	fpu_use(c);
	if (c->fpu.sw & SW_SUMMARY)
		x87_pending(c);
}
