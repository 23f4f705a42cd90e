/* SPDX-License-Identifier: MIT */
/* Fills a boot plan into the option ROM of optionrom.S. */
#include "bios/internal.h"
#include "lib/bytes.h"
#include "lib/text.h"

/* Laid out in optionrom.S. */
extern const uint8_t bootrom_start[], bootrom_plan[], bootrom_pnp[], bootrom_end[];

/* The block at bootrom_plan. */
struct rom_plan {
	uint16_t copies, protected_mode;
	uint16_t data_segment, stack, code_offset, code_segment;
	uint32_t entry, info;
	uint32_t unused[2];
	struct {
		uint8_t control[4], length[4], address[8]; /* big-endian */
	} descriptor[BOOT_COPIES_MAX];
};

/* fw_cfg's DMA control word. */
enum { DMA_READ = 1 << 1, DMA_SELECT = 1 << 3, DMA_KEY_SHIFT = 16 };

enum { PNP_SIZE = 32, PNP_CHECKSUM = 9 };

/* What to put at p[at], now 0, so that the bytes sum up to 0. */
static uint8_t checksum(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum += *p++;
	return (uint8_t)-sum;
}

void *bootrom_build(const struct boot_plan *plan, size_t *len)
{
	size_t size = (size_t)(bootrom_end - bootrom_start);
	uint8_t *rom = xmalloc(size);
	uint8_t *pnp = rom + (bootrom_pnp - bootrom_start);
	struct rom_plan p = {
		.copies = (uint16_t)plan->copies,
		.protected_mode = plan->protected_mode,
		.data_segment = plan->data_segment,
		.stack = plan->stack,
		.code_offset = plan->code_offset,
		.code_segment = plan->code_segment,
		.entry = plan->entry,
		.info = plan->info,
	};

	for (unsigned i = 0; i < plan->copies; i++) {
		const struct boot_copy *c = &plan->copy[i];
		store_be32(p.descriptor[i].control,
			   (uint32_t)c->key << DMA_KEY_SHIFT | DMA_SELECT | DMA_READ);
		store_be32(p.descriptor[i].length, c->len);
		store_be64(p.descriptor[i].address, c->dest);
	}
	memcpy(rom, bootrom_start, size);
	memcpy(rom + (bootrom_plan - bootrom_start), &p, sizeof(p));
	pnp[PNP_CHECKSUM] = checksum(pnp, PNP_SIZE);
	rom[size - 1] = checksum(rom, size);
	*len = size;
	return rom;
}
