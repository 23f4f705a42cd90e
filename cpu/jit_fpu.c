/* SPDX-License-Identifier: MIT */
/*
 * Where the guest's x87, MMX and SSE state is, and its ways between home, image and the host's
 * registers (jit.h).
 *
 * Translated code runs guest instructions on the host's own units, so it may have the guest's state
 * there only while nothing can be signalled to the host: all exceptions masked in the control word
 * and in MXCSR, none pending, and CR0 without EM and TS. All else is the interpreter's. Translated
 * code changes the two control words only to others with all exceptions masked, so this is looked
 * at when the state leaves home, and CR0 each time it is loaded: jit_fpu_may_load().
 *
 * The image is that of FXSAVE64, without the pointers to the last x87 instruction: the host's are
 * about translated code, and the guest's stay at home all the time (jit_x87.c).
 */
#include "cpu/fpu.h"
#include <stddef.h>

enum {
	OP_MOV_IMM8 = 0xC6,
	OP_MOV_IMM32 = 0xC7,
	OP_CMP_IMM8 = 0x80,
	OP_CMP_IMM32 = 0x81,
	OP_FX = 0xAE | EMIT_0F, /* FXSAVE, FXRSTOR, LDMXCSR, by the digit */
	DIGIT_FXSAVE = 0,
	DIGIT_FXRSTOR = 1,
	DIGIT_LDMXCSR = 2,
	DIGIT_CMP = 7,
	OP_JE = 0x74,
	OP_JNE = 0x75,
};

static void emit_place(struct emitter *e, enum jit_fpu_place place)
{
	emit_rm(e, OP_MOV_IMM8, 0, R14, HOST_NONE, 0, JIT_CPU(jit.fpu));
	emit8(e, place);
	emit_rm(e, OP_MOV_IMM32, 0, R14, HOST_NONE, 0, JIT_CPU(jit.fpu_absent));
	emit32(e, place != JIT_FPU_LIVE);
}

/* C expects an empty x87 stack, the usual control word and MXCSR, and here also no exception flags.
 * FNINIT is slow, and a guest that uses SSE alone leaves nothing to initialise. */
void jit_emit_fpu_save(struct emitter *e)
{
	enum { BELOW_STACK = -8 };

	emit_rm(e, OP_FX | EMIT_W, DIGIT_FXSAVE, R14, HOST_NONE, 0, JIT_CPU(jit.fx));
	emit_rm(e, OP_CMP_IMM32, DIGIT_CMP, R14, HOST_NONE, 0, JIT_CPU(jit.fx) + FX_CW);
	emit32(e, CW_INIT); /* and the status word behind it is 0 */
	emit8(e, OP_JNE);
	uint8_t *used = e->at;
	emit8(e, 0);
	emit_rm(e, OP_CMP_IMM8, DIGIT_CMP, R14, HOST_NONE, 0, JIT_CPU(jit.fx) + FX_TAGS);
	emit8(e, 0);
	emit8(e, OP_JE);
	uint8_t *unused = e->at;
	emit8(e, 0);
	emit_here(e, used);
	emit8(e, 0xDB); /* FNINIT */
	emit8(e, 0xE3);
	emit_here(e, unused);
	emit_rm(e, OP_MOV_IMM32, 0, RSP, HOST_NONE, 0, BELOW_STACK);
	emit32(e, MXCSR_RESET);
	emit_rm(e, OP_FX, DIGIT_LDMXCSR, RSP, HOST_NONE, 0, BELOW_STACK);
	emit_place(e, JIT_FPU_IMAGE);
}

void jit_emit_fpu_load(struct emitter *e)
{
	emit_rm(e, OP_FX | EMIT_W, DIGIT_FXRSTOR, R14, HOST_NONE, 0, JIT_CPU(jit.fx));
	emit_place(e, JIT_FPU_LIVE);
	emit_rm(e, OP_MOV_IMM8, 0, R14, HOST_NONE, 0, JIT_CPU(jit.fpu_load));
	emit8(e, false);
}

bool jit_fpu_may_load(struct soft_cpu *c)
{
	uint8_t *fx = c->jit.fx;

	if (c->cr0 & (CR0_EM | CR0_TS))
		return false;
	if (c->jit.fpu == JIT_FPU_HOME) {
		const struct fpu *f = &c->fpu;

		if (!x87_simple(f) || f->sw & SW_SUMMARY || (f->mxcsr & MXCSR_MASKS) != MXCSR_MASKS)
			return false;
		fpu_store_fxsave(f, fx);
		memset(fx + FX_FOP, 0, FX_MXCSR - FX_FOP);
		c->jit.fpu = JIT_FPU_IMAGE;
	}
	return true;
}

void jit_fpu_read(const struct soft_cpu *c, struct fpu *f)
{
	*f = c->fpu;
	if (c->jit.fpu == JIT_FPU_HOME)
		return;
	fpu_load_fxsave(f, c->jit.fx);
	f->fop = c->fpu.fop;
	f->fip = c->fpu.fip;
	f->fdp = c->fpu.fdp;
	f->fcs = c->fpu.fcs;
	f->fds = c->fpu.fds;
}

void jit_fpu_home(struct soft_cpu *c)
{
	struct fpu f;

	c->jit.fpu_absent = true;
	c->jit.fpu_load = false;
	if (c->jit.fpu == JIT_FPU_HOME)
		return;
	jit_fpu_read(c, &f);
	c->fpu = f;
	c->jit.fpu = JIT_FPU_HOME;
}

void jit_fpu_fxsave(const struct soft_cpu *c, uint8_t image[512])
{
	const struct fpu *f = &c->fpu;

	if (c->jit.fpu == JIT_FPU_HOME) {
		fpu_store_fxsave(f, image);
		return;
	}
	memcpy(image, c->jit.fx, 512);
	fpu_store_pointers(f, image);
	store_le32(image + FX_MXCSR_MASK, MXCSR_WRITABLE);
}

void jit_fpu_fxrstor(struct soft_cpu *c, const uint8_t image[512])
{
	enum { USED = FX_XMM + 8 * FX_SLOT, REG_BYTES = 10 };
	uint16_t cw = load_le16(image + FX_CW), sw = load_le16(image + FX_SW);
	uint32_t mxcsr = load_le32(image + FX_MXCSR);
	uint8_t *fx = c->jit.fx;

	c->jit.fpu = JIT_FPU_HOME;
	c->jit.fpu_absent = true;
	if (!c->jit.tables[0] || c->jit.rehearsing || (cw & FPE_ALL) != FPE_ALL ||
	    (mxcsr & MXCSR_MASKS) != MXCSR_MASKS) {
		fpu_load_fxsave(&c->fpu, image);
		x87_update_summary(c);
		return;
	}
	memcpy(fx, image, USED);
	store_le16(fx + FX_CW, (uint16_t)((cw & CW_WRITABLE) | CW_RESERVED_ONE));
	store_le16(fx + FX_SW, sw & (uint16_t) ~(SW_SUMMARY | SW_BUSY));
	fx[FX_TAGS + 1] = 0;
	memset(fx + FX_FOP, 0, FX_MXCSR - FX_FOP);
	for (unsigned n = 0; n < 8; n++)
		memset(fx + FX_ST + n * FX_SLOT + REG_BYTES, 0, FX_SLOT - REG_BYTES);
	fpu_load_pointers(&c->fpu, image);
	/* Nothing is pending: what is at home must not look as if. */
	c->fpu.sw &= (uint16_t) ~(SW_SUMMARY | SW_BUSY);
	c->ignne = false;
	c->jit.fpu = JIT_FPU_IMAGE;
}

void jit_need_fpu(struct jit *j)
{
	if (j->fpu_ready)
		return;
	emit_rm(&j->hot, OP_LOAD, RCX, R14, HOST_NONE, 0, JIT_CPU(jit.fpu_absent));
	uint8_t *live = emit_jrcxz(&j->hot);
	emit_jmp(&j->hot, emit_exec(&j->cold));
	emit_here(&j->hot, live);
	j->fpu_ready = true;
	jit_call_site(j, &j->cold, JIT_SITE_FPU, j->index, j->eip, emit_exec(&j->hot));
}
