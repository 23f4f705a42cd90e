/* SPDX-License-Identifier: MIT */
/*
 * Code that changes while it runs: overwritten by itself, through another mapping, by a system
 * call, across a page boundary, in the instruction behind the store. Prints what each version
 * returned.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

typedef uint32_t (*function)(void);

/* mov eax, value; ret */
static void put_function(uint8_t *at, uint32_t value)
{
	at[0] = 0xB8;
	memcpy(at + 1, &value, 4);
	at[5] = 0xC3;
}

static uint32_t call(const uint8_t *at)
{
	function f = (function)(uintptr_t)at;
	return f();
}

static void overwrite(uint8_t *code)
{
	uint32_t sum = 0;
	for (uint32_t n = 0; n < 3000; n++) {
		put_function(code + n % 64, n);
		sum = sum * 31 + call(code + n % 64);
	}
	printf("overwritten %08x\n", sum);
}

static void across_pages(uint8_t *code)
{
	uint32_t sum = 0;
	for (uint32_t n = 0; n < 3000; n++) {
		uint8_t *at = code + PAGE - 1 - n % 5;
		put_function(at, n);
		sum = sum * 31 + call(at);
		/* Only the part behind the boundary. */
		code[PAGE + 1] ^= 1;
		put_function(at, n + 7);
		sum = sum * 31 + call(at);
	}
	printf("across pages %08x\n", sum);
}

/* The instruction behind the store is changed by it: mov byte [target], value; target: mov al, 0 */
static void next_instruction(uint8_t *code)
{
	uint32_t sum = 0;
	for (uint32_t n = 0; n < 500; n++) {
		uint8_t *p = code + n % 32 * 32;
		uint32_t target = (uint32_t)(uintptr_t)(p + 2 + 7 + 1);
		memcpy(p, "\x31\xC0\xC6\x05\0\0\0\0\0\xB0\x00\xC3", 12); /* xor eax, eax first */
		memcpy(p + 4, &target, 4);
		p[8] = (uint8_t)n;
		sum = sum * 31 + call(p);
	}
	printf("next instruction %08x\n", sum);
}

/* A loop whose body increments an immediate of its own. */
static void own_loop(uint8_t *code)
{
	/* xor eax, eax; mov ecx, 1000; l: add eax, 1; inc byte [imm]; dec ecx; jnz l; ret */
	static const uint8_t text[] = {0x31, 0xC0, 0xB9, 0xE8, 0x03, 0, 0,    0x83, 0xC0, 0x01,
				       0xFE, 0x05, 0,    0,    0,    0, 0x49, 0x75, 0xF4, 0xC3};
	memcpy(code, text, sizeof(text));
	uint32_t immediate = (uint32_t)(uintptr_t)(code + 9);
	memcpy(code + 12, &immediate, 4);
	printf("own loop %d\n", (int)call(code));
}

/* rep movsb copies a function over the one that runs next. */
static void by_string(uint8_t *code)
{
	uint8_t copy[6];
	uint32_t sum = 0;
	for (uint32_t n = 0; n < 1000; n++) {
		put_function(copy, n);
		void *to = code + 100, *from = copy;
		unsigned count = sizeof(copy);
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
		sum = sum * 31 + call(code + 100);
	}
	printf("by string %08x\n", sum);
}

static int shared_memory(void)
{
	char name[] = "/tmp/selfmodXXXXXX";
	int fd = mkstemp(name);
	if (fd < 0 || ftruncate(fd, 2 * PAGE) < 0)
		return -1;
	unlink(name);
	return fd;
}

static void other_mapping(void)
{
	uint32_t sum = 0;
	int fd = shared_memory();
	uint8_t *write = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint8_t *exec = mmap(NULL, 2 * PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	if (fd < 0 || write == MAP_FAILED || exec == MAP_FAILED) {
		perror("mmap");
		return;
	}
	for (uint32_t n = 0; n < 2000; n++) {
		put_function(write + PAGE - 3, n);
		sum = sum * 31 + call(exec + PAGE - 3);
	}
	/* The kernel writes. */
	for (uint32_t n = 0; n < 300; n++) {
		uint8_t f[6];
		put_function(f, n * 3);
		if (pwrite(fd, f, sizeof(f), 200) != sizeof(f))
			perror("pwrite");
		sum = sum * 31 + call(exec + 200);
	}
	printf("other mapping %08x\n", sum);
}

/* Other memory comes to the same address. */
static void remapped(void)
{
	uint32_t sum = 0;
	uint8_t *at = NULL;
	for (uint32_t n = 0; n < 200; n++) {
		at = mmap(at, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0), -1, 0);
		if (at == MAP_FAILED) {
			perror("mmap");
			return;
		}
		put_function(at + 8, n);
		sum = sum * 31 + call(at + 8);
	}
	printf("remapped %08x\n", sum);
}

int main(void)
{
	uint8_t *code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	overwrite(code);
	across_pages(code);
	next_instruction(code);
	own_loop(code);
	by_string(code);
	other_mapping();
	remapped();
	return 0;
}
