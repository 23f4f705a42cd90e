/* SPDX-License-Identifier: MIT */
/*
 * A boot sector: x87 exceptions as DOS programs know them, with CR0.NE clear. Each must stop the
 * next x87 instruction, come as IRQ13, and be over when the handler has written to port F0h. Tells
 * its way on the debug console and ends by isa-debug-exit.
 */
	.code16
	.globl _start
_start:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x7c00, %sp
	movw	$handler, 0x75 * 4	/* interrupt 75h: IRQ13 as the BIOS sets up the 8259s */
	movw	$0, 0x75 * 4 + 2
	inb	$0xa1, %al
	and	$0xdf, %al
	outb	%al, $0xa1
	inb	$0x21, %al
	and	$0xfb, %al
	outb	%al, $0x21
	sti
	mov	%cr0, %eax
	and	$0xd3, %al		/* NE, TS, EM */
	mov	%eax, %cr0

	call	divide
	mov	$'a', %al
	outb	%al, $0xe9
	/* Again; this time the handler uses waiting x87 instructions, under IGNNE#. */
	call	divide
	mov	$'b', %al
	outb	%al, $0xe9
	cmpb	$2, count
	jne	1f
	mov	$'.', %al
	outb	%al, $0xe9
1:	mov	$0x31, %al
	outb	%al, $0xf4
	hlt

divide:
	fninit
	fldcw	control
	fld1
	fldz
	fdivrp
	mov	$'/', %al
	outb	%al, $0xe9
	fwait
	ret

handler:
	push	%ax
	incb	count
	mov	$'!', %al
	outb	%al, $0xe9
	outb	%al, $0xf0
	cmpb	$2, count
	jne	1f
	fld1
	fstp	%st(0)
1:	fnclex
	mov	$0x20, %al
	outb	%al, $0xa0
	outb	%al, $0x20
	pop	%ax
	iret

control: .word 0x37b			/* division by zero is not masked */
count:	.byte	0
	.org	510
	.word	0xaa55
