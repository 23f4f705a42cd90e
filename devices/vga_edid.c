/* SPDX-License-Identifier: MIT */
/*
 * The monitor's EDID 1.4 block (VESA Enhanced EDID Standard, release A2, section 3), from which a
 * guest's driver learns the preferred mode. One detailed timing with reduced blanking (VESA CVT
 * 1.1, 3.4.3: 160 dots of horizontal blanking, 460 us of vertical) at 60 Hz; the established
 * 640x480, 800x600 and 1024x768; a few standard timings.
 */
#include "devices/vga_internal.h"

enum {
	EDID_VENDOR = 8,
	EDID_VERSION = 18,
	EDID_INPUT = 20,
	EDID_FEATURES = 24,
	EDID_CHROMA = 25,
	EDID_ESTABLISHED = 35,
	EDID_STANDARD = 38,
	EDID_DETAILED = 54,
	EDID_DETAILED_SIZE = 18,
	EDID_CHECKSUM = 127,
	STANDARD_TIMINGS = 8,
	REFRESH_HZ = 60,
	/* CVT reduced blanking */
	RB_HBLANK = 160,
	RB_HFRONT = 48,
	RB_HSYNC = 32,
	RB_VFRONT = 3,
	RB_VSYNC = 6,
	RB_VBLANK_US = 460,
	/* 96 dots an inch: 25.4 mm over 96 */
	MM_PER_DOT_NUM = 254,
	MM_PER_DOT_DEN = 960,
	DETAILED_DIGITAL_SEPARATE_HPOS = 0x1A,
	DETAILED_MAX = 4095, /* 12-bit fields */
};

static void detailed_timing(uint8_t *d, unsigned width, unsigned height)
{
	/* Blanking lines so that they last 460 us: of the frame's 1/60 s. */
	unsigned vblank = height * RB_VBLANK_US / (1000000 / REFRESH_HZ - RB_VBLANK_US) + 1;
	unsigned mm_w = width * MM_PER_DOT_NUM / MM_PER_DOT_DEN;
	unsigned mm_h = height * MM_PER_DOT_NUM / MM_PER_DOT_DEN;

	if (vblank < RB_VFRONT + RB_VSYNC + 6)
		vblank = RB_VFRONT + RB_VSYNC + 6;
	uint64_t clock = (uint64_t)(width + RB_HBLANK) * (height + vblank) * REFRESH_HZ / 10000;
	store_le16(d, clock > UINT16_MAX ? UINT16_MAX : clock); /* unit 10 kHz */
	d[2] = width;
	d[3] = RB_HBLANK;
	d[4] = width >> 8 << 4 | RB_HBLANK >> 8;
	d[5] = height;
	d[6] = vblank;
	d[7] = height >> 8 << 4 | vblank >> 8;
	d[8] = RB_HFRONT;
	d[9] = RB_HSYNC;
	d[10] = RB_VFRONT << 4 | RB_VSYNC;
	d[12] = mm_w;
	d[13] = mm_h;
	d[14] = mm_w >> 8 << 4 | mm_h >> 8;
	d[17] = DETAILED_DIGITAL_SEPARATE_HPOS;
}

/* A display descriptor with text (3.10.3): serial number, name. */
static void text_descriptor(uint8_t *d, uint8_t tag, const char *text)
{
	d[3] = tag;
	memset(d + 5, ' ', 13);
	memcpy(d + 5, text, strlen(text));
	d[5 + strlen(text)] = '\n';
}

void vga_edid_fill(uint8_t edid[128], unsigned width, unsigned height)
{
	static const uint8_t header[8] = {0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00};
	/* sRGB primaries and white point. */
	static const uint8_t chroma[10] = {0xEE, 0x91, 0xA3, 0x54, 0x4C,
					   0x99, 0x26, 0x0F, 0x50, 0x54};
	/* Width / 8 - 31, aspect (0 16:10, 1 4:3, 2 5:4, 3 16:9) << 6 | rate - 60. */
	static const uint8_t standard[][2] = {
		{1920 / 8 - 31, 3 << 6}, {1920 / 8 - 31, 0}, {1600 / 8 - 31, 1 << 6},
		{1280 / 8 - 31, 2 << 6}, {1280 / 8 - 31, 0}, {1280 / 8 - 31, 3 << 6},
	};
	uint8_t sum = 0;

	width = width > DETAILED_MAX ? DETAILED_MAX : width;
	height = height > DETAILED_MAX ? DETAILED_MAX : height;
	memset(edid, 0, 128);
	memcpy(edid, header, sizeof(header));
	store_be16(edid + EDID_VENDOR, ('M' - '@') << 10 | ('V' - '@') << 5 | ('M' - '@'));
	store_le16(edid + EDID_VENDOR + 2, 1);
	edid[16] = 0xFF; /* the next byte is a model year */
	edid[17] = 2024 - 1990;
	edid[EDID_VERSION] = 1;
	edid[EDID_VERSION + 1] = 4;
	edid[EDID_INPUT] = 0xA5; /* digital, 8 bits a colour, DisplayPort */
	edid[21] = width * MM_PER_DOT_NUM / MM_PER_DOT_DEN / 10; /* cm */
	edid[22] = height * MM_PER_DOT_NUM / MM_PER_DOT_DEN / 10;
	edid[23] = 120;             /* gamma 2.2 */
	edid[EDID_FEATURES] = 0x06; /* sRGB, preferred timing is native */
	memcpy(edid + EDID_CHROMA, chroma, sizeof(chroma));
	edid[EDID_ESTABLISHED] = 0x21;                            /* 640x480 and 800x600 at 60 Hz */
	edid[EDID_ESTABLISHED + 1] = 0x08;                        /* 1024x768 at 60 Hz */
	memset(edid + EDID_STANDARD, 0x01, 2 * STANDARD_TIMINGS); /* unused */
	memcpy(edid + EDID_STANDARD, standard, sizeof(standard));
	detailed_timing(edid + EDID_DETAILED, width, height);
	text_descriptor(edid + EDID_DETAILED + EDID_DETAILED_SIZE, 0xFC, "minivm");
	text_descriptor(edid + EDID_DETAILED + 2 * EDID_DETAILED_SIZE, 0xFF, "1");
	edid[EDID_DETAILED + 3 * EDID_DETAILED_SIZE + 3] = 0x10; /* unused descriptor */
	for (unsigned i = 0; i < EDID_CHECKSUM; i++)
		sum += edid[i];
	edid[EDID_CHECKSUM] = -sum;
}
