/* SPDX-License-Identifier: MIT */
/*
 * Key names as QEMU's `sendkey` and QMP `send-key` use them (QKeyCode), their set 1 codes, and the
 * keys that type ASCII on a US keyboard.
 *
 * Documents: IBM PS/2 Technical Reference, "Keyboard Scan Code Set 1"; QEMU QAPI schema, QKeyCode.
 */
#include "core/input.h"
#include "lib/bytes.h"
#include <string.h>

static const struct {
	const char *name;
	uint8_t key;
} names[] = {
	/* The first name of a key is the one that key_name() answers. */
	{"esc", 0x01},
	{"1", 0x02},
	{"2", 0x03},
	{"3", 0x04},
	{"4", 0x05},
	{"5", 0x06},
	{"6", 0x07},
	{"7", 0x08},
	{"8", 0x09},
	{"9", 0x0A},
	{"0", 0x0B},
	{"minus", 0x0C},
	{"equal", 0x0D},
	{"backspace", 0x0E},
	{"tab", 0x0F},
	{"q", 0x10},
	{"w", 0x11},
	{"e", 0x12},
	{"r", 0x13},
	{"t", 0x14},
	{"y", 0x15},
	{"u", 0x16},
	{"i", 0x17},
	{"o", 0x18},
	{"p", 0x19},
	{"bracket_left", 0x1A},
	{"bracket_right", 0x1B},
	{"ret", 0x1C},
	{"ctrl", 0x1D},
	{"a", 0x1E},
	{"s", 0x1F},
	{"d", 0x20},
	{"f", 0x21},
	{"g", 0x22},
	{"h", 0x23},
	{"j", 0x24},
	{"k", 0x25},
	{"l", 0x26},
	{"semicolon", 0x27},
	{"apostrophe", 0x28},
	{"grave_accent", 0x29},
	{"shift", 0x2A},
	{"backslash", 0x2B},
	{"z", 0x2C},
	{"x", 0x2D},
	{"c", 0x2E},
	{"v", 0x2F},
	{"b", 0x30},
	{"n", 0x31},
	{"m", 0x32},
	{"comma", 0x33},
	{"dot", 0x34},
	{"slash", 0x35},
	{"shift_r", 0x36},
	{"kp_multiply", 0x37},
	{"asterisk", 0x37},
	{"alt", 0x38},
	{"spc", 0x39},
	{"caps_lock", 0x3A},
	{"f1", 0x3B},
	{"f2", 0x3C},
	{"f3", 0x3D},
	{"f4", 0x3E},
	{"f5", 0x3F},
	{"f6", 0x40},
	{"f7", 0x41},
	{"f8", 0x42},
	{"f9", 0x43},
	{"f10", 0x44},
	{"num_lock", 0x45},
	{"scroll_lock", 0x46},
	{"kp_7", 0x47},
	{"kp_8", 0x48},
	{"kp_9", 0x49},
	{"kp_subtract", 0x4A},
	{"kp_4", 0x4B},
	{"kp_5", 0x4C},
	{"kp_6", 0x4D},
	{"kp_add", 0x4E},
	{"kp_1", 0x4F},
	{"kp_2", 0x50},
	{"kp_3", 0x51},
	{"kp_0", 0x52},
	{"kp_decimal", 0x53},
	{"less", 0x56},
	{"f11", 0x57},
	{"f12", 0x58},
	{"kp_equals", 0x59},
	{"f13", 0x5D},
	{"f14", 0x5E},
	{"f15", 0x5F},
	{"hiragana", 0x70},
	{"katakanahiragana", 0x70},
	{"ro", 0x73},
	{"henkan", 0x79},
	{"muhenkan", 0x7B},
	{"yen", 0x7D},
	{"kp_comma", 0x7E},

	{"audioprev", KEY_E0 | 0x10},
	{"audionext", KEY_E0 | 0x19},
	{"kp_enter", KEY_E0 | 0x1C},
	{"ctrl_r", KEY_E0 | 0x1D},
	{"audiomute", KEY_E0 | 0x20},
	{"calculator", KEY_E0 | 0x21},
	{"audioplay", KEY_E0 | 0x22},
	{"audiostop", KEY_E0 | 0x24},
	{"volumedown", KEY_E0 | 0x2E},
	{"volumeup", KEY_E0 | 0x30},
	{"ac_home", KEY_E0 | 0x32},
	{"kp_divide", KEY_E0 | 0x35},
	{"print", KEY_PRINT},
	{"sysrq", KEY_PRINT},
	{"alt_r", KEY_E0 | 0x38},
	{"pause", KEY_PAUSE},
	{"home", KEY_E0 | 0x47},
	{"up", KEY_E0 | 0x48},
	{"pgup", KEY_E0 | 0x49},
	{"left", KEY_E0 | 0x4B},
	{"right", KEY_E0 | 0x4D},
	{"end", KEY_E0 | 0x4F},
	{"down", KEY_E0 | 0x50},
	{"pgdn", KEY_E0 | 0x51},
	{"insert", KEY_E0 | 0x52},
	{"delete", KEY_E0 | 0x53},
	{"meta_l", KEY_E0 | 0x5B},
	{"meta_r", KEY_E0 | 0x5C},
	{"menu", KEY_E0 | 0x5D},
	{"compose", KEY_E0 | 0x5D},
	{"power", KEY_E0 | 0x5E},
	{"sleep", KEY_E0 | 0x5F},
	{"wake", KEY_E0 | 0x63},
	{"ac_bookmarks", KEY_E0 | 0x66},
	{"ac_refresh", KEY_E0 | 0x67},
	{"ac_forward", KEY_E0 | 0x69},
	{"ac_back", KEY_E0 | 0x6A},
	{"computer", KEY_E0 | 0x6B},
	{"mail", KEY_E0 | 0x6C},
	{"mediaselect", KEY_E0 | 0x6D},
};

int key_from_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i].name, name))
			return names[i].key;
	return -1;
}

const char *key_name(uint8_t key)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].key == key)
			return names[i].name;
	return NULL;
}

bool key_from_ascii(char c, uint8_t *key, bool *shift)
{
	/* The rows of a US keyboard, from the key with the code given: plain and shifted. */
	static const struct {
		uint8_t first;
		const char *plain, *shifted;
	} rows[] = {
		{0x02, "1234567890-=", "!@#$%^&*()_+"},
		{0x10, "qwertyuiop[]", "QWERTYUIOP{}"},
		{0x1E, "asdfghjkl;'`", "ASDFGHJKL:\"~"},
		{0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"},
	};
	static const struct {
		char c;
		uint8_t key;
	} others[] = {{' ', 0x39},  {'\n', 0x1C}, {'\r', 0x1C},
		      {'\t', 0x0F}, {'\b', 0x0E}, {27, 0x01}};

	if (c == '\0')
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *p = strchr(rows[i].plain, c), *s = strchr(rows[i].shifted, c);
		if (p || s) {
			*key = (uint8_t)(rows[i].first +
					 (p ? p - rows[i].plain : s - rows[i].shifted));
			*shift = !p;
			return true;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (others[i].c == c) {
			*key = others[i].key;
			*shift = false;
			return true;
		}
	return false;
}
