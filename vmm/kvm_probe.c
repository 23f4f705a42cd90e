/* SPDX-License-Identifier: MIT */
/*
 * Can this host's KVM run a PC? Some hosts offer /dev/kvm without hardware virtualisation behind it
 * (nested or paravirtual ones): real mode works there, emulated instruction by instruction, but
 * paged code does not. So a scratch machine with one CPU and 64 KiB of memory runs a short loop of
 * 32-bit ring-0 code behind page tables, and both its result and the CPU time it took are looked
 * at.
 *
 * To make the machine takes a millisecond; for its end the kernel waits for some 10 ms until nobody
 * can look at it any more, so that is left to a thread of its own.
 *
 *   0x1000 page directory   0x2000 page table (identity, 64 KiB)   0x3000 code   0x8000 data
 */
#include "lib/bytes.h"
#include "lib/text.h"
#include "vmm/kvm_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	PROBE_BYTES = 64 * 1024,
	PROBE_DIRECTORY = 0x1000,
	PROBE_TABLE = 0x2000,
	PROBE_CODE = 0x3000,
	PROBE_DATA = 0x8000,
	PROBE_PORT = 0x80,
	PROBE_ROUNDS = 2000,
	PROBE_INSTRUCTIONS = PROBE_ROUNDS * 5,
	PROBE_SUM = (PROBE_ROUNDS * (PROBE_ROUNDS + 1) / 2) & 0xff,
	PROBE_RUNS_MAX = 8,
	PROBE_TRIES = 3,
	PAGE_PRESENT_WRITABLE = 3,
	CODE_TYPE = 11, /* code, readable, accessed */
	DATA_TYPE = 3,  /* data, writable, accessed */
	TSS_BUSY = 11,
};

/* Hardware takes some 20 us, an emulator 50 times that. */
#define PROBE_SLOW_NS UINT64_C(800000)

/* Sums up 1..PROBE_ROUNDS in memory, reloads CR3 (a privileged instruction that flushes the TLB),
 * and puts the low byte of the sum out at PROBE_PORT. */
/* clang-format off */
static const uint8_t probe_code[] = {
	0xb9, PROBE_ROUNDS & 0xff, PROBE_ROUNDS >> 8, 0x00, 0x00, /* mov ecx, PROBE_ROUNDS */
	0xbe, 0x00, PROBE_DATA >> 8, 0x00, 0x00,                  /* mov esi, PROBE_DATA */
	0x01, 0x0e,                                               /* 1: add [esi], ecx */
	0x8b, 0x06,                                               /* mov eax, [esi] */
	0x90,                                                     /* nop */
	0x49,                                                     /* dec ecx */
	0x75, 0xf8,                                               /* jnz 1b */
	0x0f, 0x20, 0xd8,                                         /* mov eax, cr3 */
	0x0f, 0x22, 0xd8,                                         /* mov cr3, eax */
	0x8b, 0x06,                                               /* mov eax, [esi] */
	0xe6, PROBE_PORT,                                         /* out PROBE_PORT, al */
	0xf4,                                                     /* hlt */
};
/* clang-format on */

int kvm_check_access(struct error *err)
{
	struct stat st;
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int e = errno;

	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (e == ENOENT)
		return error_set(
			err, e,
			"there is no /dev/kvm: the processor's virtualisation is off in the "
			"firmware setup, or the module is not loaded; try 'modprobe kvm_intel' "
			"or 'modprobe kvm_amd', or use -accel soft");
	if (e == EACCES || e == EPERM) {
		struct group *g = stat("/dev/kvm", &st) == 0 ? getgrgid(st.st_gid) : NULL;
		struct passwd *p = getpwuid(getuid());
		return error_set(
			err, e,
			"no permission to open /dev/kvm; try 'sudo usermod -aG %s %s' and log "
			"in again, or use -accel soft",
			g && st.st_gid ? g->gr_name : "kvm", p ? p->pw_name : "$USER");
	}
	return error_errno(err, e, "cannot open /dev/kvm");
}

static uint64_t thread_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The scratch machine. */
struct probe {
	int kvm, vm, cpu;
	uint8_t *mem;
	struct kvm_run *run;
	size_t run_size;
};

static int probe_open(struct probe *p)
{
	int size;

	p->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p->kvm < 0 || kvm_ioctl_value(p->kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return -ENOTSUP;
	p->vm = kvm_ioctl_value(p->kvm, KVM_CREATE_VM, 0);
	if (p->vm < 0)
		return p->vm;
	kvm_ioctl_value(p->vm, KVM_SET_TSS_ADDR, KVM_TSS_ADDR);
	p->mem =
		mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->mem == MAP_FAILED) {
		p->mem = NULL;
		return -ENOMEM;
	}
	struct kvm_userspace_memory_region slot = {.memory_size = PROBE_BYTES,
						   .userspace_addr = (uintptr_t)p->mem};
	int rc = kvm_ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &slot);
	if (rc < 0)
		return rc;
	p->cpu = kvm_ioctl_value(p->vm, KVM_CREATE_VCPU, 0);
	size = kvm_ioctl_value(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (p->cpu < 0 || size < (int)sizeof(*p->run))
		return -ENOTSUP;
	p->run_size = (size_t)size;
	p->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->cpu, 0);
	if (p->run == MAP_FAILED) {
		p->run = NULL;
		return -ENOMEM;
	}
	return 0;
}

static void *probe_close(void *opaque)
{
	struct probe *p = opaque;

	if (p->run)
		munmap(p->run, p->run_size);
	if (p->mem)
		munmap(p->mem, PROBE_BYTES);
	if (p->cpu >= 0)
		close(p->cpu);
	if (p->vm >= 0)
		close(p->vm);
	if (p->kvm >= 0)
		close(p->kvm);
	free(p);
	return NULL;
}

/* Closes and frees it, soon. */
static void probe_close_later(struct probe *p)
{
	pthread_attr_t detached;
	sigset_t all, old;
	pthread_t thread;

	sigfillset(&all);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	if (pthread_create(&thread, &detached, probe_close, p))
		probe_close(p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&detached);
}

/* Puts the processor at the start of the code, in 32-bit mode with paging. */
static int probe_reset(struct probe *p)
{
	struct kvm_segment flat = {.limit = UINT32_MAX, .present = 1, .s = 1, .db = 1, .g = 1};
	struct kvm_regs r = {.rip = PROBE_CODE, .rsp = PROBE_DATA, .rflags = FL_1};
	struct kvm_sregs s;
	int rc = kvm_ioctl(p->cpu, KVM_GET_SREGS, &s);

	if (rc < 0)
		return rc;
	memset(p->mem, 0, PROBE_BYTES);
	store_le32(p->mem + PROBE_DIRECTORY, PROBE_TABLE | PAGE_PRESENT_WRITABLE);
	for (uint32_t i = 0; i < PROBE_BYTES / 4096; i++)
		store_le32(p->mem + PROBE_TABLE + 4 * i, i * 4096 | PAGE_PRESENT_WRITABLE);
	memcpy(p->mem + PROBE_CODE, probe_code, sizeof(probe_code));
	flat.type = DATA_TYPE;
	flat.selector = 16;
	s.ds = s.es = s.fs = s.gs = s.ss = flat;
	flat.type = CODE_TYPE;
	flat.selector = 8;
	s.cs = flat;
	s.tr = (struct kvm_segment){.limit = 103, .type = TSS_BUSY, .present = 1, .selector = 24};
	s.cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE;
	s.cr3 = PROBE_DIRECTORY;
	s.cr4 = 0;
	s.efer = 0;
	rc = kvm_ioctl(p->cpu, KVM_SET_SREGS, &s);
	return rc < 0 ? rc : kvm_ioctl(p->cpu, KVM_SET_REGS, &r);
}

/* Runs the code once. 0: it did what it should, in `*ns` of CPU time; -1: not, `*exit` tells why.
 */
static int probe_run(struct probe *p, uint64_t *ns, unsigned *exit)
{
	uint64_t start;

	*exit = KVM_EXIT_UNKNOWN;
	if (probe_reset(p) < 0)
		return -1;
	start = thread_cpu_ns();
	for (int i = 0; i < PROBE_RUNS_MAX; i++) {
		if (ioctl(p->cpu, KVM_RUN, NULL) < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return -1;
		}
		*exit = p->run->exit_reason;
		if (*exit == KVM_EXIT_INTR)
			continue;
		break;
	}
	*ns = thread_cpu_ns() - start;
	if (*exit != KVM_EXIT_IO || p->run->io.port != PROBE_PORT)
		return -1;
	return *((uint8_t *)p->run + p->run->io.data_offset) == PROBE_SUM ? 0 : -1;
}

/* Runs it a few times and judges. */
static enum kvm_verdict judge(struct probe *p, char reason[256])
{
	uint64_t ns = 0, best = UINT64_MAX;
	unsigned exit;

	/* The first round pays for the page faults; a busy host may spoil one. */
	for (int i = 0; i < PROBE_TRIES && best > PROBE_SLOW_NS; i++) {
		if (probe_run(p, &ns, &exit) < 0) {
			snprintf(reason, 256,
				 "/dev/kvm does not run 32-bit code with paging (exit: %s)",
				 kvm_exit_name(exit));
			return KVM_CANNOT_RUN_PC;
		}
		if (ns < best)
			best = ns;
	}
	if (best > PROBE_SLOW_NS) {
		snprintf(
			reason, 256,
			"/dev/kvm runs 32-bit code with paging only at %llu million instructions a "
			"second",
			(unsigned long long)(PROBE_INSTRUCTIONS * UINT64_C(1000) / best));
		return KVM_CANNOT_RUN_PC;
	}
	snprintf(reason, 256, "/dev/kvm runs 32-bit code with paging; %d instructions took %llu us",
		 (int)PROBE_INSTRUCTIONS, (unsigned long long)(best / 1000));
	return KVM_USABLE;
}

enum kvm_verdict kvm_probe(char reason[256])
{
	struct error err = ERROR_INIT;
	enum kvm_verdict verdict = KVM_CANNOT_RUN_PC;

	if (kvm_check_access(&err) < 0) {
		snprintf(reason, 256, "%.255s", err.text);
		return KVM_ABSENT;
	}
	struct probe *p = xcalloc(1, sizeof(*p));
	p->kvm = p->vm = p->cpu = -1;
	int rc = probe_open(p);
	if (rc < 0)
		snprintf(reason, 256, "/dev/kvm cannot make a virtual machine: %s", strerror(-rc));
	else
		verdict = judge(p, reason);
	probe_close_later(p);
	return verdict;
}
