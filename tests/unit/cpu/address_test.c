/* SPDX-License-Identifier: MIT */
/* Every addressing form, segments' limits, stack instructions, and the decoder's own rules. */
#include "core_machine.h"

static uint32_t register_value(unsigned n)
{
	return 0x1000 * (n + 1) + n;
}

static void set_registers(struct machine *m)
{
	for (unsigned n = 0; n < 8; n++)
		m->s.gpr[n] = register_value(n);
}

/* LEA EAX with each ModRM and SIB byte, against the rules of SDM vol. 2A, tables 2-2 and 2-3. */
static void all_32_bit_forms(void **state)
{
	struct machine *m = *state;

	for (unsigned mod = 0; mod < 3; mod++) {
		for (unsigned rm = 0; rm < 8; rm++) {
			for (unsigned sib = 0; sib < (rm == 4 ? 256 : 1); sib++) {
				uint8_t code[8] = {0x8D, (uint8_t)(mod << 6 | rm)};
				unsigned len = 2, base = rm;
				uint32_t want = 0;

				if (rm == 4) {
					code[len++] = (uint8_t)sib;
					base = sib & 7;
					if ((sib >> 3 & 7) != 4)
						want += register_value(sib >> 3 & 7) << (sib >> 6);
				}
				if (mod == 0 && base == 5) {
					store_le32(code + len, 0x87654321);
					len += 4;
					want += 0x87654321;
				} else {
					want += register_value(base);
				}
				if (mod == 1) {
					code[len++] = 0x85;
					want += 0xFFFFFF85;
				} else if (mod == 2) {
					store_le32(code + len, 0x12345678);
					len += 4;
					want += 0x12345678;
				}
				machine_protected(m);
				set_registers(m);
				machine_code(m, code, len);
				machine_go(m, 10);
				assert_ran(m, len);
				if (m->s.gpr[R_EAX] != want)
					fail_msg("mod %u rm %u sib %02x: %08x, not %08x", mod, rm,
						 sib, m->s.gpr[R_EAX], want);
			}
		}
	}
}

static void all_16_bit_forms(void **state)
{
	static const struct {
		int a, b;
	} forms[8] = {{R_EBX, R_ESI}, {R_EBX, R_EDI}, {R_EBP, R_ESI}, {R_EBP, R_EDI},
		      {R_ESI, -1},    {R_EDI, -1},    {R_EBP, -1},    {R_EBX, -1}};
	struct machine *m = *state;

	for (unsigned mod = 0; mod < 3; mod++) {
		for (unsigned rm = 0; rm < 8; rm++) {
			uint8_t code[8] = {0x67, 0x8D, (uint8_t)(mod << 6 | rm)};
			unsigned len = 3;
			uint32_t want = 0;

			if (!(mod == 0 && rm == 6)) {
				want = register_value((unsigned)forms[rm].a);
				if (forms[rm].b >= 0)
					want += register_value((unsigned)forms[rm].b);
			}
			if (mod == 1) {
				code[len++] = 0x80;
				want -= 0x80;
			} else if (mod == 2 || rm == 6) {
				if (mod == 2 || mod == 0) {
					store_le16(code + len, 0xF234);
					len += 2;
					want += 0xF234;
				}
			}
			machine_protected(m);
			set_registers(m);
			machine_code(m, code, len);
			machine_go(m, 10);
			assert_ran(m, len);
			assert_int_equal(m->s.gpr[R_EAX], want & 0xFFFF);
		}
	}
}

static void ebp_and_esp_use_the_stack_segment(void **state)
{
	struct machine *m = *state;
	m->s.seg[S_SS].base = 0x1000;
	store_le32(m->ram + AT_DATA + 0x1000, 0x11111111);
	store_le32(m->ram + AT_DATA, 0x22222222);
	m->s.gpr[R_EBP] = m->s.gpr[R_EBX] = AT_DATA;
	/* mov eax, [ebp]; mov ecx, [ebx]; mov edx, ds:[ebp] */
	RUN(m, 0x8B, 0x45, 0x00, 0x8B, 0x0B, 0x3E, 0x8B, 0x55, 0x00);
	assert_ran(m, 9);
	assert_int_equal(m->s.gpr[R_EAX], 0x11111111);
	assert_int_equal(m->s.gpr[R_ECX], 0x22222222);
	assert_int_equal(m->s.gpr[R_EDX], 0x22222222);
}

static void access_beyond_the_limit_faults(void **state)
{
	struct machine *m = *state;
	m->s.seg[S_DS].limit = AT_DATA + 3;
	RUN(m, 0xA1, BYTES32(AT_DATA));
	assert_ran(m, 5);
	machine_protected(m);
	m->s.seg[S_DS].limit = AT_DATA + 3;
	RUN(m, 0xA1, BYTES32(AT_DATA + 1));
	assert_exception(m, EXC_GP);
	assert_int_equal(machine_stack(m, 0), 0);
	assert_int_equal(machine_stack(m, 1), AT_CODE);
	machine_protected(m);
	m->s.seg[S_SS].limit = 0x800000;
	m->s.gpr[R_EBP] = 0x800000;
	RUN(m, 0x8B, 0x45, 0x00);
	assert_exception(m, EXC_SS);
}

static void expand_down_segment(void **state)
{
	struct machine *m = *state;
	uint16_t attr = SEG_P | SEG_S | SEG_DB | SEG_RW | SEG_CE;
	m->s.seg[S_DS].attr = attr;
	m->s.seg[S_DS].limit = AT_DATA - 1;
	RUN(m, 0xA1, BYTES32(AT_DATA));
	assert_ran(m, 5);
	machine_protected(m);
	m->s.seg[S_DS].attr = attr;
	m->s.seg[S_DS].limit = AT_DATA;
	RUN(m, 0xA1, BYTES32(AT_DATA));
	assert_exception(m, EXC_GP);
}

static void writes_need_a_writable_segment(void **state)
{
	struct machine *m = *state;
	m->s.seg[S_DS].attr &= (uint16_t)~SEG_RW;
	RUN(m, 0xA1, BYTES32(AT_DATA));
	assert_ran(m, 5);
	machine_protected(m);
	m->s.seg[S_DS].attr &= (uint16_t)~SEG_RW;
	RUN(m, 0xA3, BYTES32(AT_DATA));
	assert_exception(m, EXC_GP);
	machine_protected(m);
	RUN(m, 0x2E, 0xA3, BYTES32(AT_DATA)); /* through CS */
	assert_exception(m, EXC_GP);
	machine_protected(m);
	m->s.seg[S_FS].attr = 0;
	RUN(m, 0x64, 0xA1, BYTES32(AT_DATA)); /* null */
	assert_exception(m, EXC_GP);
}

static void real_mode_word_at_ffff_faults(void **state)
{
	struct machine *m = *state;
	machine_real(m);
	RUN(m, 0xA1, 0xFF, 0xFF);
	assert_int_equal(m->s.seg[S_CS].base, AT_HANDLER + 16 * EXC_GP);
	machine_real(m);
	RUN(m, 0xA0, 0xFF, 0xFF);
	assert_int_equal(m->s.eip, 4);
}

static void push_and_pop(void **state)
{
	struct machine *m = *state;
	/* push esp; pop eax; push 80h (sign-extended); push word 1234h; pop dword [esp - 2 + ...]
	 */
	RUN(m, 0x54, 0x58, 0x6A, 0x80, 0x66, 0x68, 0x34, 0x12, 0x5B);
	assert_ran(m, 9);
	assert_int_equal(m->s.gpr[R_EAX], AT_STACK);
	assert_int_equal(m->s.gpr[R_EBX], 0xFF801234);
	assert_int_equal(m->s.gpr[R_ESP], AT_STACK - 2);
	machine_protected(m);
	store_le32(m->ram + AT_STACK, 0xCAFE);
	RUN(m, 0x8F, 0x44, 0x24, 0x08); /* pop [esp + 8]: ESP is the one behind the pop */
	assert_ran(m, 4);
	assert_int_equal(load_le32(m->ram + AT_STACK + 12), 0xCAFE);
	machine_protected(m);
	store_le32(m->ram + AT_STACK, 0x1234);
	RUN(m, 0x5C); /* pop esp */
	assert_int_equal(m->s.gpr[R_ESP], 0x1234);
}

static void pop_that_faults_keeps_esp(void **state)
{
	struct machine *m = *state;
	m->s.seg[S_DS].limit = 0x1000;
	RUN(m, 0x8F, 0x05, BYTES32(AT_DATA));
	assert_exception(m, EXC_GP);
	assert_int_equal(m->s.gpr[R_ESP], AT_STACK - 16);
}

static void pusha_popa(void **state)
{
	struct machine *m = *state;
	set_registers(m);
	m->s.gpr[R_ESP] = AT_STACK;
	RUN(m, 0x60, 0x31, 0xC0, 0x31, 0xFF, 0x61);
	assert_ran(m, 6);
	for (unsigned n = 0; n < 8; n++)
		assert_int_equal(m->s.gpr[n], n == R_ESP ? AT_STACK : register_value(n));
	assert_int_equal(load_le32(m->ram + AT_STACK - 20), AT_STACK);
	assert_int_equal(load_le32(m->ram + AT_STACK - 4), register_value(R_EAX));
}

static void enter_copies_frame_pointers(void **state)
{
	struct machine *m = *state;
	m->s.gpr[R_EBP] = AT_DATA;
	store_le32(m->ram + AT_DATA - 4, 0xAAAA);
	store_le32(m->ram + AT_DATA - 8, 0xBBBB);
	RUN(m, 0xC8, 0x10, 0x00, 0x03);
	assert_ran(m, 4);
	assert_int_equal(m->s.gpr[R_EBP], AT_STACK - 4);
	assert_int_equal(m->s.gpr[R_ESP], AT_STACK - 16 - 0x10);
	assert_int_equal(load_le32(m->ram + AT_STACK - 4), AT_DATA);
	assert_int_equal(load_le32(m->ram + AT_STACK - 8), 0xAAAA);
	assert_int_equal(load_le32(m->ram + AT_STACK - 12), 0xBBBB);
	assert_int_equal(load_le32(m->ram + AT_STACK - 16), AT_STACK - 4);
	RUN(m, 0xC9);
}

static void leave_undoes_enter(void **state)
{
	struct machine *m = *state;
	m->s.gpr[R_EBP] = 0x77777777;
	RUN(m, 0xC8, 0x10, 0x00, 0x00, 0xC9);
	assert_ran(m, 5);
	assert_int_equal(m->s.gpr[R_EBP], 0x77777777);
	assert_int_equal(m->s.gpr[R_ESP], AT_STACK);
}

static void stack_pointer_of_16_bits_wraps(void **state)
{
	struct machine *m = *state;
	m->s.seg[S_SS].attr &= (uint16_t)~SEG_DB;
	m->s.seg[S_SS].base = AT_DATA;
	m->s.gpr[R_ESP] = 0xABCD0002;
	RUN(m, 0x66, 0x50, 0x66, 0x50); /* push ax, twice */
	assert_ran(m, 4);
	assert_int_equal(m->s.gpr[R_ESP], 0xABCDFFFE);
}

static void instruction_of_16_bytes_is_gp(void **state)
{
	struct machine *m = *state;
	RUN(m, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
	    0x90);
	assert_ran(m, 15);
	machine_protected(m);
	RUN(m, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
	    0x66, 0x90);
	assert_exception(m, EXC_GP);
	assert_int_equal(machine_stack(m, 1), AT_CODE);
}

static void illegal_encodings_are_ud(void **state)
{
	static const uint8_t codes[][4] = {
		{0x0F, 0x0B},       {0x0F, 0xFF},       {0x0F, 0xB9, 0xC0},
		{0xF0, 0x01, 0xC8}, /* lock on a register */
		{0xF0, 0x8B, 0x00}, {0xF0, 0x39, 0x00}, {0xF0, 0x90},
		{0xFF, 0xF8},       {0xFE, 0xD0},       {0x8D, 0xC0},
		{0x62, 0xC0},       {0x0F, 0x04},       {0x0F, 0xBA, 0xC0},
		{0x0F, 0xC7, 0xC8}, {0xC6, 0xC8},       {0x8F, 0xC8},
	};
	struct machine *m = *state;

	for (size_t n = 0; n < ARRAY_SIZE(codes); n++) {
		machine_protected(m);
		m->s.gpr[R_EAX] = AT_DATA;
		machine_code(m, codes[n], sizeof(codes[n]));
		machine_go(m, 100);
		if (m->s.eip != AT_HANDLER + 16 * EXC_UD + 1)
			fail_msg("%02x %02x %02x is not #UD", codes[n][0], codes[n][1],
				 codes[n][2]);
		assert_int_equal(machine_stack(m, 0), AT_CODE);
	}
}

static void lock_on_memory_is_legal(void **state)
{
	struct machine *m = *state;
	m->s.gpr[R_EAX] = AT_DATA;
	RUN(m, 0xF0, 0x01, 0x00, 0xF0, 0xFF, 0x00, 0xF0, 0x0F, 0xAB, 0x00, 0xF0, 0x87, 0x18);
	assert_ran(m, 13);
}

static void bound_checks_signed(void **state)
{
	struct machine *m = *state;
	store_le32(m->ram + AT_DATA, (uint32_t)-5);
	store_le32(m->ram + AT_DATA + 4, 5);
	m->s.gpr[R_EAX] = (uint32_t)-5;
	RUN(m, 0x62, 0x05, BYTES32(AT_DATA));
	assert_ran(m, 6);
	machine_protected(m);
	m->s.gpr[R_EAX] = 6;
	RUN(m, 0x62, 0x05, BYTES32(AT_DATA));
	assert_exception(m, EXC_BR);
}

static void xlat_salc_and_loops(void **state)
{
	struct machine *m = *state;
	m->ram[AT_DATA + 0x80] = 0x5A;
	m->s.gpr[R_EBX] = AT_DATA;
	m->s.gpr[R_EAX] = 0x80;
	RUN(m, 0xD7);
	assert_int_equal(m->s.gpr[R_EAX], 0x5A);
	machine_protected(m);
	m->s.eflags |= FL_CF;
	RUN(m, 0xD6);
	assert_int_equal(m->s.gpr[R_EAX] & 0xFF, 0xFF);
	machine_protected(m);
	m->s.gpr[R_ECX] = 5;
	RUN(m, 0x40, 0xE2, 0xFD); /* inc eax; loop */
	assert_int_equal(m->s.gpr[R_ECX], 0);
	machine_protected(m);
	m->s.gpr[R_ECX] = 0x10000;
	RUN(m, 0x67, 0xE3, 0x01, OPCODE_HLT, 0x90); /* jcxz looks at CX */
	assert_ran(m, 5);
}

static void near_branches(void **state)
{
	struct machine *m = *state;
	RUN(m, 0xE8, BYTES32(1), OPCODE_HLT, 0x58, 0xFF,
	    0xE0); /* call +1; (hlt); pop eax; jmp eax */
	assert_int_equal(m->s.eip, AT_CODE + 6);
	assert_int_equal(m->s.gpr[R_EAX], AT_CODE + 5);
	machine_protected(m);
	m->s.seg[S_CS].limit = AT_CODE + 0x100;
	RUN(m, 0xE9, BYTES32(0x1000));
	assert_exception(m, EXC_GP);
	assert_int_equal(machine_stack(m, 1), AT_CODE);
	machine_protected(m);
	m->s.seg[S_CS].limit = AT_CODE + 0x100;
	RUN(m, 0xE8, BYTES32(0x1000)); /* nothing is pushed */
	assert_exception(m, EXC_GP);
	assert_int_equal(m->s.gpr[R_ESP], AT_STACK - 16);
}

static void code_runs_up_to_the_limit(void **state)
{
	struct machine *m = *state;
	m->s.seg[S_CS].limit = AT_CODE + 1;
	RUN(m, 0x40, 0x40, 0x40);
	/* The third INC is beyond the limit. */
	assert_exception(m, EXC_GP);
	assert_int_equal(machine_stack(m, 1), AT_CODE + 2);
	assert_int_equal(m->s.gpr[R_EAX], 2);
}

static void block_made_through_a_larger_segment_keeps_the_smaller_limit(void **state)
{
	struct machine *m = *state;
	/* The same code by way of two segments: jmp far to a limit that ends inside it. */
	enum { SMALL = 0x18 };
	const uint8_t code[] = {
		0x40,          0x40, 0x40, 0x49, 0x75, 0x01, OPCODE_HLT, 0xEA, BYTES32(AT_CODE),
		BYTES16(SMALL)};
	/* Code segment of base 0 and limit AT_CODE + 1 in bytes. */
	store_le64(m->ram + AT_GDT + SMALL,
		   UINT64_C(0x00419B0000000000) | (AT_CODE + 1 - 0x10000) | UINT64_C(1) << 48);
	m->s.gpr[R_ECX] = 2;
	machine_code(m, code, sizeof(code));
	machine_go(m, 100);
	assert_exception(m, EXC_GP);
	assert_int_equal(m->s.gpr[R_EAX], 5);
	assert_int_equal(machine_stack(m, 1), AT_CODE + 2);
	assert_int_equal(machine_stack(m, 2), SMALL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, machine_setup, machine_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(all_32_bit_forms),
		T(all_16_bit_forms),
		T(ebp_and_esp_use_the_stack_segment),
		T(access_beyond_the_limit_faults),
		T(expand_down_segment),
		T(writes_need_a_writable_segment),
		T(real_mode_word_at_ffff_faults),
		T(push_and_pop),
		T(pop_that_faults_keeps_esp),
		T(pusha_popa),
		T(enter_copies_frame_pointers),
		T(leave_undoes_enter),
		T(stack_pointer_of_16_bits_wraps),
		T(instruction_of_16_bytes_is_gp),
		T(illegal_encodings_are_ud),
		T(lock_on_memory_is_legal),
		T(bound_checks_signed),
		T(xlat_salc_and_loops),
		T(near_branches),
		T(code_runs_up_to_the_limit),
		T(block_made_through_a_larger_segment_keeps_the_smaller_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
