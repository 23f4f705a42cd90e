/* SPDX-License-Identifier: MIT */
/*
 * Start of every guest: from the reset vector to guest_main() in the mode it is built for (REAL_MODE, UNREAL_MODE: real mode with
 * 4 GiB data segments, or flat protected mode without paging), interrupt entries, the end.
 *
 * Memory: 0..0x3FF IVT; 0x1000 the guest; up to STACK_TOP the stack. Interrupts arrive in on_interrupt(struct frame *).
 */
#include "layout.h"

	.section .reset, "ax"
	.code16
	.globl	reset_stub
reset_stub:
	cli
	cld
	movw	$0xF000, %ax
	movw	%ax, %ds
	xorw	%ax, %ax
	movw	%ax, %es
	movw	%ax, %ss
	xorw	%si, %si
	movw	$image_start, %di
	movw	$image_dwords, %cx
	rep movsl
	ljmp	$0, $start
	.org	0x68
	.globl	guest_parameter
guest_parameter:
	.long	0		/* at 0xFFE8 of the image; the harness writes it there */
guest_left_out:
	.long	0		/* at 0xFFEC */
	.org	0x70		/* 0xFFF0 */
	jmp	reset_stub
	.org	0x80

	.section .text.start, "ax"
	.code16
start:
	movw	$0xF000, %ax
	movw	%ax, %ds
	movl	0xFFE8, %esi
	movl	0xFFEC, %ebx
	xorl	%eax, %eax
	movw	%ax, %ds
	movw	$bss_start, %di
	movw	$bss_dwords, %cx
	rep stosl
	movl	%esi, parameter
	movl	%ebx, left_out_mask
	movl	$STACK_TOP, %esp
	lgdtl	flat_gdt_pointer
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	movw	$SEL_DATA, %ax
	movw	%ax, %ds
	/* Virtual wire mode, as firmware sets it up (MP specification 1.4, 3.6.2.2): the 8259 through LINT0. */
	movl	$0xFEE00000, %ebx
	movl	0x350(%ebx), %ecx
	movl	%ecx, lint0_at_reset
	movl	$0x1FF, 0xF0(%ebx)
	movl	$0x700, 0x350(%ebx)
#ifdef REAL
#ifdef UNREAL_MODE
	movw	%ax, %es
#else
	movw	$SEL_DATA16, %ax
	movw	%ax, %ds
#endif
	movl	%cr0, %eax
	andb	$0xFE, %al
	movl	%eax, %cr0
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
#else
	ljmpl	$SEL_CODE, $1f
	.code32
1:	movw	$SEL_DATA, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %fs
	movw	%ax, %gs
	movw	%ax, %ss
#endif
#ifdef REAL
	movw	%ax, %fs
	movw	%ax, %gs
	.code16gcc
#endif
	call	rt_init
	call	guest_main
	call	guest_end

/* guest_halt(): the same registers and a clean stack on every machine, then sleep. */
	.globl	guest_halt
guest_halt:
	cli
	movl	$STACK_BOTTOM, %edi
	movl	$(STACK_TOP - STACK_BOTTOM) / 4, %ecx
	xorl	%eax, %eax
	cld
	rep stosl
	movl	$scratch_start, %edi
	movl	$scratch_end, %ecx
	subl	%edi, %ecx
	rep stosb
	movl	$STACK_TOP, %esp
	movl	$0x11111111, %eax
	movl	$0x22222222, %ebx
	movl	$0x33333333, %ecx
	movl	$0x44444444, %edx
	movl	$0x55555555, %esi
	movl	$0x66666666, %edi
	movl	$0x77777777, %ebp
	cmpl	%eax, %eax
1:	hlt
	jmp	1b

/* 256 entries; each pushes an error code (protected mode: unless the CPU did) and its vector. */
	.altmacro
	.macro	entry n
	.balign	ENTRY_SIZE
#ifndef REAL
	.if	!((\n == 8) || (\n >= 10 && \n <= 14) || (\n == 17))
	pushl	$0
	.endif
#endif
	pushl	$\n
	jmp	common
	.endm
	.balign	ENTRY_SIZE
	.globl	entries
entries:
	.set	n, 0
	.rept	256
	entry	%n
	.set	n, n + 1
	.endr
	.globl	entries_end
entries_end:

#ifdef REAL
	.code16
common:
	pushal
	pushw	%ds
	pushw	%es
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	cld
	movzwl	%sp, %eax
	movl	%eax, %ebx
	pushl	%eax
	.code16gcc
	call	on_interrupt
	.code16
	movl	%ebx, %esp
	popw	%es
	popw	%ds
	popal
	addw	$4, %sp
	iretw
#else
common:
	pushal
	pushw	%ds
	pushw	%es
	movw	$SEL_DATA, %ax
	movw	%ax, %ds
	movw	%ax, %es
	cld
	movl	%esp, %ebx
	pushl	%ebx
	call	on_interrupt
	movl	%ebx, %esp
	popw	%es
	popw	%ds
	popal
	addl	$8, %esp
	testl	$1 << FACT_IRET, left_out_mask
	jnz	1f
	iretl
1:	testb	$3, 4(%esp)
	jnz	2f
	pushl	8(%esp)		/* the same, to our own privilege */
	popfl
	lretl	$4
2:	pushl	8(%esp)		/* to an outer one: ECX and EDX are lost */
	popfl
	movl	(%esp), %edx
	movl	12(%esp), %ecx
	sysexit

/* user_call(function): calls it at CPL 3 with user_flags. */
	.globl	user_call
user_call:
	movl	4(%esp), %eax
	pushal
	movl	%esp, user_call_esp
	leal	-64(%esp), %ecx
	pushfl
	movl	user_flags, %edx
	orl	%edx, (%esp)
	testl	$1 << FACT_IRET, left_out_mask
	jnz	1f
	popl	%edx
	pushl	$SEL_USER_DATA | 3
	pushl	%ecx
	pushl	%edx
	pushl	$SEL_USER_CODE | 3
	pushl	$2f
	iretl
1:	popfl
	movl	$2f, %edx
	sysexit
2:	movw	$SEL_USER_DATA | 3, %cx
	movw	%cx, %ds
	movw	%cx, %es
	call	*%eax
	testl	$1 << FACT_INT, left_out_mask
	jnz	3f
	int	$0x80
3:	sysenter
	.globl	user_return
user_return:			/* vector 0x80, at CPL 0 */
	movw	$SEL_DATA, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movl	user_call_esp, %esp
	movl	$0, user_call_esp
	pushl	$2
	popfl
	popal
	ret
#endif

	.balign	8
	.globl	flat_gdt
	.globl	flat_gdt_pointer
flat_gdt:
	.quad	0
	.quad	0x00CF9B000000FFFF	/* SEL_CODE: 32-bit code, flat */
	.quad	0x00CF93000000FFFF	/* SEL_DATA: data, flat */
	.quad	0x00CFFB000000FFFF	/* SEL_USER_CODE; these two follow SEL_CODE as SYSEXIT wants it */
	.quad	0x00CFF3000000FFFF	/* SEL_USER_DATA */
	.quad	0x00009B000000FFFF	/* SEL_CODE16: real-mode shape */
	.quad	0x000093000000FFFF	/* SEL_DATA16 */
	.quad	0			/* SEL_TSS */
	.fill	56, 8, 0		/* the guests' own */
flat_gdt_pointer:
	.word	64 * 8 - 1
	.long	flat_gdt
	.section .note.GNU-stack, "", @progbits
