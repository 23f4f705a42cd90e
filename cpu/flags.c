/* SPDX-License-Identifier: MIT */
/* EFLAGS as a whole: put together from its two parts, and taken apart again. See flags.h. */
#include "cpu/flags.h"

uint32_t flags_get(const struct soft_cpu *c)
{
	return c->eflags | (flag_cf(c) ? FL_CF : 0) | (flag_pf(c) ? FL_PF : 0) |
	       (flag_af(c) ? FL_AF : 0) | (flag_zf(c) ? FL_ZF : 0) | (flag_sf(c) ? FL_SF : 0) |
	       (flag_of(c) ? FL_OF : 0);
}

void flags_set_arith(struct soft_cpu *c, uint32_t value)
{
	bool cf = value & FL_CF, of = value & FL_OF;

	c->cc.carries =
		(cf ? CARRY_OUT : 0) | (cf != of ? CARRY_IN : 0) | (value & FL_AF ? CARRY_AUX : 0);
	c->cc.result = !(value & FL_ZF);
	/* What SF and PF are to be seen from: the sign bit, and a byte with one bit set (odd) or
	 * none (even). */
	c->cc.fix =
		c->cc.result ^ ((value & FL_SF ? UINT32_C(1) << 31 : 0) | (value & FL_PF ? 0 : 1));
}

void flags_set_all(struct soft_cpu *c, uint32_t value)
{
	enum {
		KNOWN = FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM | FL_AC | FL_VIF |
			FL_VIP | FL_ID
	};
	uint32_t changed = c->eflags ^ value;

	flags_set_arith(c, value);
	c->eflags = (value & KNOWN) | FL_1;
	if (changed & (FL_VM | FL_AC))
		cpu_mode_changed(c);
	/* TF, RF and IF are looked at between blocks. */
	if (changed & (FL_TF | FL_RF | FL_IF))
		cpu_end_block(c);
}
