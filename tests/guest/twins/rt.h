/* SPDX-License-Identifier: MIT */
/*
 * What every guest uses: the log, ports, interrupts, caught exceptions.
 *
 * A guest's log must be the same on every machine: it holds values that are defined, and relations ("counted down", "two interrupts")
 * where time comes in.
 */
#ifndef TWINS_RT_H
#define TWINS_RT_H

#include "layout.h"
#include <stdbool.h>
#include <stdint.h>

#define SCRATCH                                                                                    \
	__attribute__((                                                                            \
		section(".scratch,\"aw\",@nobits#"))) /* not part of the state that is compared */
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#ifdef REAL
#define MODE        "real"
#define FAR_POINTER ".short " /* size of an offset in a frame */
#else
#define MODE "protected"
#endif

struct frame {
	uint16_t es, ds;
	uint32_t edi, esi, ebp, esp, ebx, edx, ecx, eax;
	uint32_t vector;
#ifdef REAL
	uint16_t eip, cs, eflags;
#else
	uint32_t error, eip, cs, eflags;
	uint32_t old_esp, old_ss; /* only if the privilege changed */
#endif
} __attribute__((packed));

extern uint32_t parameter;     /* from the harness: which variant */
extern uint32_t left_out_mask; /* from the harness: parts that this machine cannot run */
extern uint32_t lint0_at_reset;
extern uint64_t flat_gdt[64];
extern uint8_t entries[];

/* Written by each guest. */
void guest_main(void);
void guest_halt(void) __attribute__((noreturn));
void guest_end(void) __attribute__((noreturn));

/* One line of the log: text with %x (8 digits), %w (4), %b (2), %d (decimal), %s, %c. */
void say(const char *format, ...);
/* Is part `bit` left out here? Says so in the log (the harness drops its lines). */
bool left_out(unsigned bit, const char *name);

/* The handler of a vector; NULL: an interrupt there ends the guest with a line in the log. */
typedef void handler(struct frame *f);
void on_vector(unsigned vector, handler *h);

/* Exceptions: TRY() runs instructions; what they raise is in `caught`. */
struct caught {
	int vector; /* -1: none */
	uint32_t error, at, eflags;
};
extern struct caught caught;
extern volatile uint32_t try_start, try_resume;
void say_caught(const char *name);

#define ALL_REGISTERS "eax", "ebx", "ecx", "edx", "esi", "edi", "memory", "cc"
#define TRY(instructions, ...)                                                                     \
	do {                                                                                       \
		caught = (struct caught){.vector = -1};                                            \
		asm volatile("movl $770f, try_start\n\tmovl $771f, try_resume\n770: " instructions \
			     "\n771:\n\t"                                                          \
			     "movl $0, try_resume"                                                 \
			     :                                                                     \
			     : __VA_ARGS__                                                         \
			     : ALL_REGISTERS);                                                     \
	} while (0)
/* The same with one line in the log, named after the instructions. */
#define TRIED(instructions, ...)                                                                   \
	do {                                                                                       \
		TRY(instructions, ##__VA_ARGS__);                                                  \
		say_caught(instructions);                                                          \
	} while (0)

/* Ports. */
static inline void outb(uint16_t port, uint8_t v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline void outw(uint16_t port, uint16_t v)
{
	asm volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t v)
{
	asm volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;
	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t v;
	asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t v;
	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

/* Memory-mapped registers; by a register, as the assembler would cut a constant address to 16 bits in real mode. */
static inline uint32_t read32(uint32_t address)
{
	uint32_t v;
	asm volatile("movl (%1), %0" : "=r"(v) : "r"(address) : "memory");
	return v;
}

static inline void write32(uint32_t address, uint32_t v)
{
	asm volatile("movl %0, (%1)" : : "r"(v), "r"(address) : "memory");
}

static inline void sti(void)
{
	asm volatile("sti\n\tnop" : : : "memory");
}

static inline void cli(void)
{
	asm volatile("cli" : : : "memory");
}

/* Lets pending interrupts in. Port 80h makes every engine look at them. */
static inline void let_in(void)
{
	asm volatile("sti\n\t.rept 8; inb $0x80, %%al; .endr\n\tcli" : : : "memory", "eax");
}

/* Sleeps for one interrupt; interrupts are off before and after. */
static inline void sleep_once(void)
{
	asm volatile("sti\n\thlt\n\tcli" : : : "memory");
}

/* Time by the ACPI timer, 3.579545 MHz: the one clock that no guest tests. */
uint32_t timer_now(void);
enum { TIMER_MASK = 0xFFFFFF, MILLISECOND = 3580 };
void delay_ms(uint32_t ms);
/* Waits for `condition` up to some milliseconds; false if it does not come. */
#define WAIT_MS(ms, condition)                                                                     \
	({                                                                                         \
		uint32_t wait_from = timer_now();                                                  \
		bool wait_met;                                                                     \
		while (!(wait_met = (condition)) &&                                                \
		       ((timer_now() - wait_from) & TIMER_MASK) < (ms)*MILLISECOND)                \
			;                                                                          \
		wait_met;                                                                          \
	})
#define WAIT(condition) WAIT_MS(3000, condition)

/* Programs both 8259s for vectors 0x20 and 0x28 with that mask (bit 0: IRQ0). */
void pic_init(uint16_t mask);

#ifndef REAL
/* Calls a function at CPL 3; user_flags are its EFLAGS: IOPL 3 unless a guest says otherwise. */
void user_call(void (*function)(void));
extern uint32_t user_flags;
struct tss {
	uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp,
		ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt;
	uint16_t trap, io_map;
};
extern struct tss tss;
extern uint64_t idt[256];
static inline uint64_t descriptor(uint32_t base, uint32_t limit, uint32_t attributes)
{
	return (uint64_t)(base >> 24) << 56 | (uint64_t)(attributes >> 8 & 0xF0) << 48 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(attributes & 0xFF) << 40 |
	       (uint64_t)(base & 0xFFFFFF) << 16 | (limit & 0xFFFF);
}
static inline uint64_t gate(uint16_t selector, uint32_t offset, uint32_t attributes)
{
	return (uint64_t)(offset >> 16) << 48 | (uint64_t)attributes << 32 |
	       (uint64_t)selector << 16 | (offset & 0xFFFF);
}
#endif

uint32_t crc32(uint32_t crc, const void *data, uint32_t size);

#endif
