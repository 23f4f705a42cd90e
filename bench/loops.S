/* SPDX-License-Identifier: MIT */
/*
 * A 64 KiB firmware image that runs integer loops in flat 32-bit protected mode: a byte on port E9h before the first and after
 * each, so that the host can take the time, then the end by isa-debug-exit. bench/loops.py knows how many instructions each
 * loop has: keep the two in step.
 */
	.equ	DATA, 0x10000
	.equ	DATA_BYTES, 0x10000
	.equ	STACK, 0x80000
	.equ	MARK_PORT, 0xE9
	.equ	EXIT_PORT, 0x501
	.equ	EXIT_CODE, 5
	.equ	CRC_PASSES, 200
	.equ	SIEVE_PASSES, 200
	.equ	FIB_PASSES, 500
	.equ	FIB_N, 20

	.macro	mark
	movb	$'.', %al
	outb	%al, $MARK_PORT
	.endm

	.text
	.globl	_start
_start:
base:
	.code16
enter:
	cli
	lgdtl	%cs:(gdt_pointer - base)
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$8, $flat

	.code32
flat:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movl	$STACK, %esp
	cld
	mark

	/* A CRC-like sum, one step a byte: 4 + 11 * DATA_BYTES instructions a pass. */
	movl	$CRC_PASSES, %ebp
crc_pass:
	movl	$DATA, %esi
	movl	$DATA_BYTES, %ecx
crc_byte:
	movzbl	(%esi), %ebx
	xorl	%ebx, %eax
	movl	%eax, %edx
	shrl	$1, %eax
	andl	$1, %edx
	negl	%edx
	andl	$0xEDB88320, %edx
	xorl	%edx, %eax
	incl	%esi
	decl	%ecx
	jnz	crc_byte
	decl	%ebp
	jnz	crc_pass
	mark

	/* A sieve of Eratosthenes over DATA_BYTES numbers. */
	movl	$SIEVE_PASSES, %ebp
sieve_pass:
	movl	$DATA, %edi
	movl	$DATA_BYTES / 4, %ecx
	xorl	%eax, %eax
	rep stosl
	movl	$2, %ebx
sieve_number:
	cmpb	$0, DATA(%ebx)
	jne	sieve_next
	leal	(%ebx, %ebx), %edx
sieve_multiple:
	movb	$1, DATA(%edx)
	addl	%ebx, %edx
	cmpl	$DATA_BYTES, %edx
	jb	sieve_multiple
sieve_next:
	incl	%ebx
	cmpl	$256, %ebx
	jb	sieve_number
	decl	%ebp
	jnz	sieve_pass
	mark

	/* Calls and stack traffic: a recursive Fibonacci number. */
	movl	$FIB_PASSES, %esi
fib_pass:
	movl	$FIB_N, %eax
	call	fib
	decl	%esi
	jnz	fib_pass
	mark

	movw	$EXIT_PORT, %dx
	movb	$EXIT_CODE, %al
	outb	%al, %dx
	hlt

/* eax = Fibonacci number eax: 8 instructions for 0 and 1, else 16 and those of two calls. */
fib:
	pushl	%ebp
	movl	%esp, %ebp
	pushl	%ebx
	cmpl	$2, %eax
	jb	fib_done
	pushl	%eax
	decl	%eax
	call	fib
	movl	%eax, %ebx
	popl	%eax
	subl	$2, %eax
	call	fib
	addl	%ebx, %eax
fib_done:
	popl	%ebx
	popl	%ebp
	ret

	.balign	8
gdt:
	.quad	0
	.quad	0x00CF9A000000FFFF
	.quad	0x00CF92000000FFFF
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.org	0xFFF0, 0xF4
	.code16
	jmp	enter
	.org	0x10000, 0xF4
