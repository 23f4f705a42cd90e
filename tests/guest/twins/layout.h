/* SPDX-License-Identifier: MIT */
#ifndef TWINS_LAYOUT_H
#define TWINS_LAYOUT_H

#define STACK_BOTTOM    0xE000
#define STACK_TOP       0xFF00
#define ENTRY_SIZE      16 /* of an interrupt entry */
#define SEL_CODE        0x08
#define SEL_DATA        0x10
#define SEL_USER_CODE   0x18
#define SEL_USER_DATA   0x20
#define SEL_CODE16      0x28
#define SEL_DATA16      0x30
#define SEL_TSS         0x38
#define SEL_FREE        0x40   /* from here on a guest may fill the GDT */
#define INNER_STACK_TOP 0xE800 /* where interrupts of CPL 3 go */

/*
 * What a KVM that emulates instructions may lack. facts.c tries each, numbered as here; the harness runs it and gives the guests
 * a mask of those that failed.
 */
#define FACT_IRET         0  /* IRET in protected mode */
#define FACT_X87          1  /* x87 arithmetic */
#define FACT_SIMD         2  /* MMX, SSE */
#define FACT_CALL_GATE    3  /* far calls through call gates */
#define FACT_TASK         4  /* task switches */
#define FACT_BCD          5  /* AAA, AAS, DAA */
#define FACT_BOUND        6  /* BOUND */
#define FACT_LAR          7  /* LAR, LSL, VERR, VERW, ARPL in protected mode */
#define FACT_OUTER_RETURN 8  /* far return to an outer privilege */
#define FACT_LIMITS       9  /* segment limits: QEMU's TCG does not check them */
#define FACT_STEP         10 /* single step */
#define FACT_RETF32       11 /* 32-bit far return in real mode */
#define FACT_AAM_FLAGS    12 /* SF of AAM and AAD is bit 7 */
#define FACT_ENTER        13 /* ENTER with a nesting level */
#define FACT_INT          14 /* INT n in protected mode */
#define FACT_UNDEFINED    15 /* #UD for undefined opcodes */
#define FACT_STEP_EXACT                                                                            \
	16               /* single step: MOV SS holds it back, REP traps each round, INT does not */
#define FACT_WINDOW   17 /* an interrupt is taken between two instructions that do not leave KVM */
#define FACT_CONTROL  18 /* checks of what is written to control registers */
#define FACT_APIC_ISR 19 /* the local APIC shows and honours interrupts in service */
#define FACT_FERR     20 /* IRQ13 for the coprocessor: QEMU 7.2 ends in an assertion */

#if defined(REAL_MODE) || defined(UNREAL_MODE)
#define REAL 1
#endif

#endif
