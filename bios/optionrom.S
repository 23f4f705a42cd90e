/* SPDX-License-Identifier: MIT */
/*
 * The option ROM behind -kernel. The firmware loads it from fw_cfg ("genroms/..."), calls its
 * initialisation, and later its bootstrap entry vector when the boot order says so. The vector has
 * the fw_cfg device copy the kernel's pieces to their places and jumps into the kernel, in real
 * mode (Linux) or in protected mode (multiboot).
 *
 * bootrom.c fills in the block between bootrom_plan and bootrom_plan_end and the checksums. The
 * block is copied to PLAN in low memory first: the device answers in the descriptors, and the ROM
 * itself is write-protected by then.
 *
 * Documents: BIOS Boot Specification 1.01, 3 and appendix A (expansion header, BEV); Plug and Play
 * BIOS Specification 1.0A, 3.2; QEMU docs/specs/fw_cfg (DMA); Multiboot Specification 0.6.96, 3.2.
 */

#define PLAN          0x0600 /* above the BIOS data area */
#define STACK         0x7c00
#define MEMORY_MAP    0x8000 /* of multiboot, up to MEMORY_MAP + MAP_MAX entries */
#define MAP_ENTRY     24
#define MAP_MAX       64

#define FW_CFG_DMA_HIGH 0x514
#define FW_CFG_DMA_LOW  0x518
#define DMA_ERROR       1
#define DMA_DESCRIPTOR  16

#define PORT_92       0x92
#define PORT_92_A20   2
#define CR0_PE        1
#define SMAP          0x534d4150
#define MULTIBOOT_MAGIC 0x2badb002
#define INFO_MEM_UPPER   8
#define INFO_MMAP_LENGTH 44
#define INFO_MMAP_ADDR   48
#define CODE_SELECTOR 8
#define DATA_SELECTOR 16

/* Where a label inside the block is after the copy. */
#define AT(label)     (PLAN + (label) - bootrom_plan)

	.section .rodata
	.code16
	.globl	bootrom_start, bootrom_plan, bootrom_pnp, bootrom_end
	.balign	16
bootrom_start:
	.word	0xaa55
	.byte	(bootrom_end - bootrom_start) / 512
	jmp	init
	.org	bootrom_start + 0x18
	.word	0                               /* no PCI data structure */
	.word	bootrom_pnp - bootrom_start

	.balign	16
bootrom_pnp:
	.ascii	"$PnP"
	.byte	1                               /* revision */
	.byte	2                               /* length in units of 16 bytes */
	.word	0                               /* no further header */
	.byte	0
	.byte	0                               /* checksum */
	.long	0                               /* device id */
	.word	vendor - bootrom_start
	.word	product - bootrom_start
	.byte	0, 0, 0                         /* device type */
	.byte	0x84                            /* supports the device driver model; bootable */
	.word	0                               /* boot connection vector */
	.word	0                               /* disconnect vector */
	.word	boot - bootrom_start            /* bootstrap entry vector */
	.word	0
	.word	0
vendor:
	.asciz	"minivm"
product:
	.asciz	"Kernel given with -kernel"
failed:
	.asciz	"The kernel could not be copied to memory.\r\n"

init:
	movw	$0x20, %ax                      /* an initial program load device is attached */
	lretw

boot:
	cli
	cld
	xorw	%ax, %ax
	movw	%ax, %ss
	movw	$STACK, %sp
	movw	%ax, %es
	pushw	%cs
	popw	%ds
	movw	$(bootrom_plan - bootrom_start), %si
	movw	$PLAN, %di
	movw	$(bootrom_plan_end - bootrom_plan), %cx
	rep movsb
	movw	%ax, %ds

	movw	$AT(descriptors), %si
	movw	AT(copies), %cx
next_copy:
	jcxz	hand_over
	xorl	%eax, %eax
	movw	$FW_CFG_DMA_HIGH, %dx
	outl	%eax, %dx
	movw	%si, %ax
	bswapl	%eax
	movw	$FW_CFG_DMA_LOW, %dx
	outl	%eax, %dx
wait_copy:
	movl	(%si), %eax                     /* control: 0 when done */
	bswapl	%eax
	testb	$DMA_ERROR, %al
	jnz	copy_error
	testl	%eax, %eax
	jnz	wait_copy
	addw	$DMA_DESCRIPTOR, %si
	decw	%cx
	jmp	next_copy

copy_error:
	pushw	%cs
	popw	%ds
	movw	$(failed - bootrom_start), %si
	sti
print:
	lodsb
	testb	%al, %al
	jz	give_up
	movb	$0x0e, %ah
	xorw	%bx, %bx
	int	$0x10
	jmp	print
give_up:
	int	$0x18                           /* the next boot device */

hand_over:
	cmpw	$0, AT(protected_mode)
	jne	multiboot

	/* Linux, Documentation/arch/x86/boot.rst, "Running the kernel". */
	movw	AT(data_segment), %bx
	movw	AT(stack), %cx
	movl	AT(code_offset), %edx           /* offset, then segment */
	movw	%bx, %ss
	movzwl	%cx, %esp
	pushl	%edx                            /* as lretw takes them */
	movw	%bx, %ds
	movw	%bx, %es
	movw	%bx, %fs
	movw	%bx, %gs
	xorl	%eax, %eax
	xorl	%ebx, %ebx
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xorl	%esi, %esi
	xorl	%edi, %edi
	xorl	%ebp, %ebp
	lretw

	/* The memory map of INT 15h, E820h; each entry behind its size. */
multiboot:
	movw	$(MEMORY_MAP + 4), %di
	movw	$MAP_MAX, %bp
	xorl	%ebx, %ebx
next_range:
	movl	$0xe820, %eax
	movl	$SMAP, %edx
	movl	$(MAP_ENTRY - 4), %ecx
	int	$0x15
	jc	map_done
	cmpl	$SMAP, %eax
	jne	map_done
	movl	$(MAP_ENTRY - 4), -4(%di)
	cmpl	$0x100000, (%di)                /* base; the firmware keeps the end of it for itself */
	jne	not_upper
	cmpw	$1, 16(%di)                     /* type: RAM */
	jne	not_upper
	movl	8(%di), %eax                    /* length */
	shrl	$10, %eax
	movw	AT(info), %si
	movl	%eax, INFO_MEM_UPPER(%si)
not_upper:
	addw	$MAP_ENTRY, %di
	testl	%ebx, %ebx
	jz	map_done
	decw	%bp
	jnz	next_range
map_done:
	cli
	subw	$(MEMORY_MAP + 4), %di
	movw	AT(info), %si
	movzwl	%di, %eax
	movl	%eax, INFO_MMAP_LENGTH(%si)
	movl	$MEMORY_MAP, INFO_MMAP_ADDR(%si)

	inb	$PORT_92, %al
	orb	$PORT_92_A20, %al
	andb	$~1, %al                        /* bit 0 would reset the machine */
	outb	%al, $PORT_92
	lgdtl	AT(gdt_pointer)
	movl	%cr0, %eax
	orb	$CR0_PE, %al
	movl	%eax, %cr0
	ljmpl	$CODE_SELECTOR, $AT(protected)

	.balign	16
bootrom_plan:
copies:
	.word	0
protected_mode:
	.word	0
data_segment:
	.word	0
stack:
	.word	0
code_offset:
	.word	0
	.word	0                               /* code segment */
entry:
	.long	0
info:
	.long	0
	.long	0, 0
descriptors:
	.fill	4 * DMA_DESCRIPTOR, 1, 0
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff              /* flat code */
	.quad	0x00cf93000000ffff              /* flat data */
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.long	AT(gdt)
	.code32
protected:
	movw	$DATA_SELECTOR, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %fs
	movw	%ax, %gs
	movw	%ax, %ss
	movl	$STACK, %esp
	movl	AT(info), %ebx
	movl	AT(entry), %ecx
	movl	$MULTIBOOT_MAGIC, %eax
	jmp	*%ecx
bootrom_plan_end:

	.org	bootrom_start + 1024
bootrom_end:
#ifdef __ELF__
	.section .note.GNU-stack, "", @progbits
#endif
