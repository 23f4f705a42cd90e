/* SPDX-License-Identifier: MIT */
/*
 * Protected mode without paging (SDM vol. 3A, chapters 5 to 7 and 20): faults with their error codes, limits and types, LDT, privilege
 * levels, call gates, task switches, virtual-8086 mode.
 */
#include "rt.h"

/* Descriptors of our own, from SEL_FREE on. */
enum slot {
	S_LIMITED,
	S_READ_ONLY,
	S_EXECUTE_ONLY,
	S_ABSENT_DATA,
	S_ABSENT_CODE,
	S_DOWN,
	S_CONFORMING,
	S_LDT,
	S_GATE,
	S_GATE3,
	S_TASK,
	S_TASK_GATE,
	S_ABSENT_GATE,
	S_USER16,
	S_BAD_TYPE,
	S_SMALL_TASK
};

static uint16_t selector(unsigned slot)
{
	return (uint16_t)(SEL_FREE + 8 * slot);
}

enum {
	PRESENT = 0x80,
	DPL3 = 0x60,
	CODE = 0x1B,
	DATA = 0x13,
	BIG = 0x4000,
	PAGES = 0x8000,
	ACCESS_LDT = 0x82,
	ACCESS_TSS = 0x89
};

static uint64_t local[4];
static struct tss task;
static uint8_t task_stack[256] __attribute__((aligned(16)));
static struct {
	struct tss tss;
	uint8_t io_map[0x410 / 8 + 1];
} __attribute__((packed)) user_tss;

static void define(unsigned slot, uint64_t d)
{
	flat_gdt[selector(slot) / 8] = d;
}

static void descriptors(void)
{
	define(S_LIMITED, descriptor(0x20000, 0xFF, PRESENT | DATA | BIG));
	define(S_READ_ONLY, descriptor(0x20000, 0xFFFF, PRESENT | 0x11 | BIG));
	define(S_EXECUTE_ONLY, descriptor(0, 0xFFFFF, PRESENT | 0x19 | BIG | PAGES));
	define(S_ABSENT_DATA, descriptor(0, 0xFFFF, DATA | BIG));
	define(S_ABSENT_CODE, descriptor(0, 0xFFFF, CODE | BIG));
	define(S_DOWN, descriptor(0x20000, 0xFF, PRESENT | 0x17 | BIG));
	define(S_CONFORMING, descriptor(0, 0xFFFFF, PRESENT | 0x1F | BIG | PAGES));
	define(S_LDT, descriptor((uint32_t)local, sizeof(local) - 1, PRESENT | ACCESS_LDT));
	define(S_BAD_TYPE, descriptor(0, 0xFFFF, PRESENT | 0x08));
	define(S_SMALL_TASK, descriptor((uint32_t)&task, 0x66, ACCESS_TSS));
	local[1] = descriptor(0x20000, 0xFFFF, PRESENT | DATA | BIG);
	local[2] = descriptor(0, 0xFFFF, DATA | BIG);
}

#define WITH_SELECTOR(name, slot, instructions)                                                    \
	do {                                                                                       \
		uint32_t with = selector(slot);                                                    \
		TRY("movl %0, %%eax; " instructions, "m"(with));                                   \
		say_caught(name);                                                                  \
	} while (0)

static void loads(void)
{
	TRY("movl $0x1F8, %%eax; movw %%ax, %%fs");
	say_caught("load: empty entry");
	TRY("movl $0x208, %%eax; movw %%ax, %%fs");
	say_caught("load: behind the table");
	TRY("xorl %%eax, %%eax; movw %%ax, %%fs");
	say_caught("load: null into fs");
	TRY("xorl %%eax, %%eax; movw %%ax, %%fs; movl %%fs:0, %%eax");
	say_caught("load: use of null");
	TRY("xorl %%eax, %%eax; movw %%ax, %%ss");
	say_caught("load: null into ss");
	WITH_SELECTOR("load: absent data", S_ABSENT_DATA, "movw %%ax, %%fs");
	WITH_SELECTOR("load: absent stack", S_ABSENT_DATA, "movw %%ax, %%ss");
	WITH_SELECTOR("load: read-only stack", S_READ_ONLY, "movw %%ax, %%ss");
	WITH_SELECTOR("load: execute-only", S_EXECUTE_ONLY, "movw %%ax, %%fs");
	WITH_SELECTOR("load: code as stack", S_CONFORMING, "movw %%ax, %%ss");
	WITH_SELECTOR("load: wrong type", S_BAD_TYPE, "movw %%ax, %%gs");
	WITH_SELECTOR("load: stack with rpl 3", S_LIMITED, "orl $3, %%eax; movw %%ax, %%ss");
	WITH_SELECTOR("load: data with rpl 3", S_LIMITED,
		      "orl $3, %%eax; movw %%ax, %%fs; xorl %%eax, %%eax; movw %%ax, %%fs");
	WITH_SELECTOR("load: lldt of data", S_LIMITED, "lldt %%ax");
	TRY("movl $0xC, %%eax; movw %%ax, %%fs");
	say_caught("load: from no ldt");
	WITH_SELECTOR(
		"load: lldt", S_LDT,
		"lldt %%ax; movl $0xC, %%eax; movw %%ax, %%fs; movl $0x14, %%eax; movw %%ax, %%fs");
	TRY("movl $0x24, %%eax; movw %%ax, %%fs");
	say_caught("load: behind the ldt");
	TRY("xorl %%eax, %%eax; lldt %%ax; movw %%ax, %%fs");
	say_caught("load: lldt null");
	WITH_SELECTOR("load: ltr of data", S_LIMITED, "ltr %%ax");
	TRY("movl %0, %%eax; ltr %%ax", "i"(SEL_TSS));
	say_caught("load: ltr of the busy one");
	say("accessed: %x", (uint32_t)(flat_gdt[selector(S_LIMITED) / 8] >> 40 & 0xFF));
	TRY("ljmpl $0x10, $0");
	say_caught("jump: data");
	TRY("ljmpl $0, $0");
	say_caught("jump: null");
	static uint32_t far[2];
	far[1] = selector(S_ABSENT_CODE);
	TRY("ljmpl *%0", "m"(far));
	say_caught("jump: absent code");
	far[1] = 0;
}

static void accesses(void)
{
	WITH_SELECTOR("access: write to read-only", S_READ_ONLY,
		      "movw %%ax, %%fs; movl %%fs:8, %%ebx; movl %%ebx, %%fs:8");
	TRY("movl %%eax, %%cs:0x600");
	say_caught("access: write to code");
	if (left_out(FACT_LIMITS, "limit"))
		return;
	WITH_SELECTOR("limit: last byte", S_LIMITED, "movw %%ax, %%fs; movb %%fs:0xFF, %%al");
	WITH_SELECTOR("limit: word over it", S_LIMITED, "movw %%ax, %%fs; movw %%fs:0xFF, %%ax");
	WITH_SELECTOR("limit: dword over it", S_LIMITED, "movw %%ax, %%fs; movl %%eax, %%fs:0xFD");
	WITH_SELECTOR("limit: behind it", S_LIMITED, "movw %%ax, %%fs; movl %%fs:0x100, %%eax");
	WITH_SELECTOR("limit: expand-down, inside", S_DOWN,
		      "movw %%ax, %%fs; movl %%fs:0x100, %%eax");
	WITH_SELECTOR("limit: expand-down, below", S_DOWN,
		      "movw %%ax, %%fs; movl %%fs:0xFC, %%eax");
	WITH_SELECTOR("limit: expand-down, top", S_DOWN,
		      "movw %%ax, %%fs; movl %%fs:0xFFFFFFFC, %%eax");
	TRY("xorl %%eax, %%eax; movw %%ax, %%fs");
}

static void interrupts(void)
{
	struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) shorter = {0x83F, 0}, whole = {0x7FF, 0};
	uint64_t old = idt[0x31];

	if (left_out(FACT_INT, "int"))
		return;
	idt[0x31] = gate(SEL_CODE, (uint32_t)entries, 0x0E00);
	TRY("int $0x31");
	say_caught("int: absent gate");
	idt[0x31] = gate(SEL_DATA, (uint32_t)entries, 0x8E00);
	TRY("int $0x31");
	say_caught("int: gate to data");
	idt[0x31] = gate(0, (uint32_t)entries, 0x8E00);
	TRY("int $0x31");
	say_caught("int: gate to null");
	idt[0x31] = gate(SEL_CODE, (uint32_t)entries, 0x8200);
	TRY("int $0x31");
	say_caught("int: an ldt as gate");
	idt[0x31] = gate(selector(S_ABSENT_CODE), (uint32_t)entries, 0x8E00);
	TRY("int $0x31");
	say_caught("int: gate to absent code");
	idt[0x31] = old;
	whole.base = shorter.base = (uint32_t)idt;
	shorter.limit = 0x187;
	asm volatile("lidtl %0" : : "m"(shorter));
	TRY("int $0x31");
	asm volatile("lidtl %0" : : "m"(whole));
	say_caught("int: behind the table");
}

volatile uint32_t gate_cs, gate_sum;

static void user_faults(void)
{
	uint32_t cs, flags;

	asm volatile("movw %%cs, %w0" : "=r"(cs));
	say("user: cs %w", cs & 0xFFFF);
	TRY("hlt");
	say_caught("user: hlt");
	TRY("movl %%cr0, %%eax");
	say_caught("user: mov cr0");
	TRY("movl %%dr7, %%eax");
	say_caught("user: mov dr7");
	TRY("lgdtl 0x600");
	say_caught("user: lgdt");
	TRY("lidtl 0x600");
	say_caught("user: lidt");
	TRY("movl $0x10, %%ecx; rdmsr");
	say_caught("user: rdmsr");
	TRY("wbinvd");
	say_caught("user: wbinvd");
	TRY("clts");
	say_caught("user: clts");
	TRY("invlpg 0x600");
	say_caught("user: invlpg");
	TRY("lmsw %%ax");
	say_caught("user: lmsw");
	TRY("movl %0, %%eax; movw %%ax, %%fs", "i"(SEL_DATA));
	say_caught("user: kernel's data");
	TRY("movl %0, %%eax; movw %%ax, %%ss", "i"(SEL_DATA));
	say_caught("user: kernel's stack");
	TRY("ljmpl %0, $0", "i"(SEL_CODE));
	say_caught("user: jump to kernel's code");
	if (!left_out(FACT_INT, "user: int")) {
		TRY("int $0x31");
		say_caught("user: int with dpl 0");
		TRY("int $13");
		say_caught("user: int 13");
	}
	asm volatile("pushfl\n\tpopl %0" : "=r"(flags));
	say("user: flags %x", flags & 0x3F300);
	TRY("cli");
	say_caught("user: cli");
	TRY("inb $0x80, %%al");
	say_caught("user: port 80");
	asm volatile("pushl $0x3202\n\tpopfl\n\tpushfl\n\tpopl %0" : "=r"(flags) : : "cc");
	say("user: popf leaves %x", flags & 0x3F300);
}

static void user_fast(void)
{
	TRY("cli; nop; sti; nop; cli");
	say_caught("iopl 3: cli, sti");
	TRY("inb $0x80, %%al");
	say_caught("iopl 3: port 80");
}

/* At CPL 3 with IOPL 0 and a permission map that has only the log's port. */
static void privileges(void)
{
	for (unsigned i = 0; i < sizeof(user_tss.io_map); i++)
		user_tss.io_map[i] = 0xFF;
	user_tss.io_map[0x402 / 8] &= (uint8_t) ~(1 << (0x402 & 7));
	user_tss.tss.esp0 = INNER_STACK_TOP;
	user_tss.tss.ss0 = SEL_DATA;
	user_tss.tss.io_map = sizeof(struct tss);
	flat_gdt[SEL_TSS / 8] = descriptor((uint32_t)&user_tss, sizeof(user_tss) - 1, ACCESS_TSS);
	asm volatile("ltrw %w0" : : "r"(SEL_TSS));
	user_flags = 0;
	user_call(user_faults);
	user_flags = 0x3000;
	user_call(user_fast);
}

/* The inner side of the call gates: notes what it sees and drops two parameters. */
asm("	.pushsection .text\n"
    "	.globl	gate_target\n"
    "gate_target:\n"
    "	movl	4(%esp), %eax\n"
    "	movl	%eax, gate_cs\n"
    "	movl	8(%esp), %eax\n"
    "	addl	12(%esp), %eax\n"
    "	movl	%eax, gate_sum\n"
    "	lretl	$8\n"
    "	.popsection\n");
extern uint8_t gate_target[];

static void user_gates(void)
{
	uint32_t before, after;

	asm volatile(
		"movl %%esp, %0\n\tpushl $0x1111\n\tpushl $0x2222\n\tlcall %2, $0\n\tmovl %%esp, %1"
		: "=&b"(before), "=&S"(after)
		: "i"(SEL_FREE + 8 * S_GATE3 + 3)
		: "eax", "ecx", "edx", "memory", "cc");
	say("gate from user: caller %w sum %x stack %s", gate_cs & 0xFFFF, gate_sum,
	    before == after ? "level" : "uneven");
	TRY("lcall %0, $0", "i"(SEL_FREE + 8 * S_GATE + 3));
	say_caught("gate with dpl 0 from user");
	TRY("lcall %0, $0", "i"(SEL_FREE + 8 * S_ABSENT_GATE + 3));
	say_caught("absent gate from user");
}

static void call_gates(void)
{
	if (left_out(FACT_CALL_GATE, "gate|absent gate"))
		return;
	define(S_GATE, gate(SEL_CODE, (uint32_t)gate_target, 0x8C00));
	define(S_GATE3, gate(SEL_CODE, (uint32_t)gate_target, 0xEC02));
	define(S_ABSENT_GATE, gate(SEL_CODE, (uint32_t)gate_target, 0x6C02));
	asm volatile("pushl $0x100\n\tpushl $0x200\n\tlcall %0, $0"
		     :
		     : "i"(SEL_FREE + 8 * S_GATE)
		     : "eax", "ecx", "edx", "memory", "cc");
	say("gate: caller %w sum %x", gate_cs & 0xFFFF, gate_sum);
	user_call(user_gates);
}

/* Another task: notes its registers and goes back the way it came. */
asm("	.pushsection .text\n"
    "	.globl	task_entry\n"
    "task_entry:\n"
    "	movl	%ebx, task_saw_ebx\n"
    "	pushfl\n"
    "	popl	task_saw_flags\n"
    "	movl	%cr0, %eax\n"
    "	movl	%eax, task_saw_cr0\n"
    "	str	%eax\n"
    "	movl	%eax, task_saw_tr\n"
    "	clts\n"
    "	iretl\n"
    "	jmp	task_entry\n"
    "	.popsection\n");
extern uint8_t task_entry[];
uint32_t task_saw_ebx, task_saw_flags, task_saw_cr0, task_saw_tr;

static void say_task(const char *name)
{
	say("%s: ebx %x flags %x ts %d tr %x link %x busy %x %x", name, task_saw_ebx,
	    task_saw_flags & 0x7F02, task_saw_cr0 >> 3 & 1, task_saw_tr, task.link & 0xFFFF,
	    (uint32_t)(flat_gdt[SEL_TSS / 8] >> 40 & 0xFF),
	    (uint32_t)(flat_gdt[selector(S_TASK) / 8] >> 40 & 0xFF));
	task_saw_ebx = task_saw_flags = task_saw_cr0 = task_saw_tr = 0;
}

static void tasks(void)
{
	if (left_out(FACT_TASK, "task"))
		return;
	task.eip = (uint32_t)task_entry;
	task.cs = SEL_CODE;
	task.ds = task.es = task.fs = task.gs = task.ss = SEL_DATA;
	task.esp = (uint32_t)task_stack + sizeof(task_stack);
	task.eflags = 2;
	task.ebx = 0xABCD0123;
	task.io_map = sizeof(task);
	define(S_TASK, descriptor((uint32_t)&task, sizeof(task) - 1, ACCESS_TSS));
	define(S_TASK_GATE, gate(selector(S_TASK), 0, 0x8500));
	asm volatile("lcall %0, $0" : : "i"(SEL_FREE + 8 * S_TASK) : "memory", "cc");
	say_task("task called");
	asm volatile("lcall %0, $0" : : "i"(SEL_FREE + 8 * S_TASK_GATE) : "memory", "cc");
	say_task("task called again, by a gate");
	uint64_t old = idt[0x32];
	idt[0x32] = gate(selector(S_TASK), 0, 0x8500);
	asm volatile("int $0x32" : : : "memory", "cc");
	say_task("task by interrupt");
	idt[0x32] = old;
	TRY("lcall %0, $0", "i"(SEL_FREE + 8 * S_SMALL_TASK));
	say_caught("task too small");
	TRY("lcall %0, $0", "i"(SEL_TSS));
	say_caught("task busy");
	uint32_t ss = task.ss;
	say("task state saved: eip +%x ebx %x", task.eip - (uint32_t)task_entry, task.ebx);
	(void)ss;
	flat_gdt[selector(S_TASK) / 8] = 0;
}

/* Virtual-8086 mode: the code at 0x700 (linear) runs until something traps. */
static volatile uint32_t v86_vector, v86_error, v86_ip, v86_flags, v86_cs, v86_ax;

uint32_t v86_return_esp;

static void v86_trap(struct frame *f)
{
	if (!(f->eflags & 0x20000)) {
		say("UNEXPECTED %b at %x", f->vector, f->eip);
		guest_end();
	}
	v86_vector = f->vector;
	v86_error = f->error;
	v86_ip = f->eip;
	v86_cs = f->cs;
	v86_flags = f->eflags;
	v86_ax = f->eax;
	asm volatile("movw %1, %%ax\n\tmovw %%ax, %%fs\n\tmovw %%ax, %%gs\n\tmovl %0, "
		     "%%esp\n\tpopal\n\tret"
		     :
		     : "m"(v86_return_esp), "i"(SEL_DATA));
}

asm("	.pushsection .text\n"
    "	.globl	v86_run\n"
    "v86_run:\n" /* v86_run(eflags) */
    "	movl	4(%esp), %eax\n"
    "	pushal\n"
    "	movl	%esp, v86_return_esp\n"
    "	pushl	$0x30\n" /* GS, FS, DS, ES */
    "	pushl	$0x30\n"
    "	pushl	$0x60\n"
    "	pushl	$0x60\n"
    "	pushl	$0x2000\n" /* SS:SP */
    "	pushl	$0xFFF0\n"
    "	pushl	%eax\n"
    "	pushl	$0x70\n" /* CS:IP */
    "	pushl	$0\n"
    "	movl	$0x1234, %eax\n"
    "	iretl\n"
    "	.popsection\n");
void v86_run(uint32_t eflags);

static void v86_code(const char *name, const uint8_t *code, unsigned size, uint32_t iopl)
{
	for (unsigned i = 0; i < 32; i++)
		((volatile uint8_t *)0x700)[i] = i < size ? code[i] : 0xF4;
	v86_run(0x20002 | iopl);
	say("v86, %s: vector %b error %x at %w:%w flags %x ax %x", name, v86_vector, v86_error,
	    v86_cs, v86_ip, v86_flags & 0x2F200, v86_ax);
}

#define V86(name, iopl, ...)                                                                       \
	do {                                                                                       \
		static const uint8_t code[] = {__VA_ARGS__};                                       \
		v86_code(name, code, sizeof(code), iopl);                                          \
	} while (0)

static void virtual_8086(void)
{
	if (left_out(FACT_IRET, "v86"))
		return;
	on_vector(13, v86_trap);
	on_vector(6, v86_trap);
	V86("hlt", 0, 0xF4);
	V86("cli", 0, 0xFA);
	V86("cli with iopl 3", 0x3000, 0xFA, 0xF4);
	V86("int 21", 0, 0xCD, 0x21);
	V86("pushf", 0, 0x9C);
	V86("pushf with iopl 3", 0x3000, 0x9C, 0x58, 0xF4);
	V86("iret", 0, 0xCF);
	V86("port 80", 0, 0xE4, 0x80);
	V86("segment load", 0, 0xB8, 0x40, 0x12, 0x8E, 0xD8, 0x8C, 0xD8, 0xF4);
	V86("far jump", 0, 0xEA, 0x02, 0x00, 0x71, 0x00);
	V86("memory", 0, 0xA1, 0x00, 0x01, 0xF4);
	V86("ud", 0, 0x0F, 0x0B);
	V86("sldt", 0, 0x0F, 0x00, 0xC0);
	V86("arpl", 0, 0x63, 0xC0);
	V86("mov cr0", 0, 0x0F, 0x20, 0xC0);
	on_vector(13, 0);
	on_vector(6, 0);
	for (unsigned i = 0; i < 32; i++)
		((volatile uint8_t *)0x700)[i] = 0;
}

static void queries(void)
{
	if (left_out(FACT_LAR, "query"))
		return;
	for (unsigned slot = S_LIMITED; slot <= S_TASK_GATE; slot++) {
		uint32_t sel = selector(slot), rights = 0, limit = 0, flags_lar, flags_lsl, flags_r,
			 flags_w;
		asm volatile("lar %2, %0\n\tpushfl\n\tpopl %1"
			     : "+r"(rights), "=r"(flags_lar)
			     : "r"(sel)
			     : "cc");
		asm volatile("lsl %2, %0\n\tpushfl\n\tpopl %1"
			     : "+r"(limit), "=r"(flags_lsl)
			     : "r"(sel)
			     : "cc");
		asm volatile("verr %w1\n\tpushfl\n\tpopl %0" : "=r"(flags_r) : "r"(sel) : "cc");
		asm volatile("verw %w1\n\tpushfl\n\tpopl %0" : "=r"(flags_w) : "r"(sel) : "cc");
		say("query %d: lar %d %x lsl %d %x verr %d verw %d", slot, flags_lar >> 6 & 1,
		    rights & 0xF0FF00, flags_lsl >> 6 & 1, limit, flags_r >> 6 & 1,
		    flags_w >> 6 & 1);
	}
	uint32_t a = 0x10, flags;
	asm volatile("arpl %w2, %w0\n\tpushfl\n\tpopl %1" : "+r"(a), "=r"(flags) : "r"(3) : "cc");
	say("query arpl: %x zf %d", a, flags >> 6 & 1);
}

void guest_main(void)
{
	/* The timer runs from power-on, and some of what follows sets IF for a moment. */
	pic_init(0xFFFF);
	descriptors();
	loads();
	accesses();
	interrupts();
	privileges();
	call_gates();
	queries();
	tasks();
	virtual_8086();
	gate_cs = gate_sum = 0;
	v86_return_esp = 0;
	/* The same end with and without the parts that are left out. */
	asm volatile("clts\n\tmovw %w0, %%fs\n\tmovw %w0, %%gs" : : "r"(SEL_DATA));
}
