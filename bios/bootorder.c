/* SPDX-License-Identifier: MIT */
/*
 * Boot order: `-boot`, the two CMOS bytes that order kinds of devices, and the "bootorder" file
 * that orders single devices by their paths.
 *
 * SeaBIOS tries devices of the file first, in its order; then the kinds in CMOS order; "HALT" as
 * the file's last line stops it from trying anything that the file does not name.
 *
 *   CMOS 3Dh  bits 0..3 first kind, bits 4..7 second
 *   CMOS 38h  bits 4..7 third kind; bit 0: do not check floppies for the 55 AA signature
 *   kinds     0 none, 1 floppy, 2 hard disk, 3 CD-ROM, 4 network
 *
 * Documents: SeaBIOS, docs/Runtime_config.md; Open Firmware (IEEE 1275) for the path notation.
 */
#include "bios/internal.h"
#include "lib/bytes.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_KINDS = 3, CMOS_NO_FLOPPY_CHECK = 1 };

static unsigned kind_of(char letter)
{
	switch (letter) {
	case 'a':
	case 'b': return 1;
	case 'c': return 2;
	case 'd': return 3;
	case 'n': return 4;
	default: return 0;
	}
}

int firmware_boot_check_order(const char *letters, struct error *err)
{
	size_t n = strlen(letters);

	for (size_t i = 0; i < n; i++) {
		if (!kind_of(letters[i]))
			return error_set(
				err, EINVAL,
				"unknown boot device '%c' in '%s'; known are a (floppy), c "
				"(hard disk), d (CD-ROM) and n (network)",
				letters[i], letters);
		if (memchr(letters, letters[i], i))
			return error_set(err, EINVAL, "boot device '%c' is given twice in '%s'",
					 letters[i], letters);
	}
	if (n > MAX_KINDS)
		return error_set(err, EINVAL, "too many boot devices in '%s'; the BIOS keeps %d",
				 letters, MAX_KINDS);
	return 0;
}

void firmware_boot_init(struct firmware_boot *boot)
{
	*boot = (struct firmware_boot){.splash_time = -1, .reboot_timeout = -2};
}

static int parse_letters(struct opts *opts, const char *key, char out[8], struct error *err)
{
	const char *letters = opts_get(opts, key);
	int rc;

	if (!letters)
		return 0;
	rc = firmware_boot_check_order(letters, err);
	if (rc == 0)
		memcpy(out, letters, strlen(letters) + 1);
	return rc;
}

static int parse_ms(struct opts *opts, const char *key, int min, int max, int *out,
		    struct error *err)
{
	const char *text = opts_get(opts, key);
	char *end;
	long v;

	if (!text)
		return 0;
	errno = 0;
	v = strtol(text, &end, 0);
	if (errno || end == text || *end || v < min || v > max)
		return error_set(err, EINVAL, "%s=%s must be a number from %d to %d", key, text,
				 min, max);
	*out = (int)v;
	return 0;
}

int firmware_boot_parse(const char *spec, struct firmware_boot *boot, struct error *err)
{
	static const char *const known[] = {"order",       "once",           "menu",   "splash",
					    "splash-time", "reboot-timeout", "strict", NULL};
	struct opts opts;
	const char *splash;
	int rc = opts_parse(&opts, spec, "order", err);

	if (rc < 0)
		return rc;
	rc = parse_letters(&opts, "order", boot->order, err);
	if (rc == 0)
		rc = parse_letters(&opts, "once", boot->once, err);
	if (rc == 0)
		rc = opts_get_bool(&opts, "menu", &boot->menu, err);
	if (rc == 0)
		rc = opts_get_bool(&opts, "strict", &boot->strict, err);
	/* Both end up in 16 or 32 bits; 0xffff is QEMU's limit for both. */
	if (rc == 0)
		rc = parse_ms(&opts, "splash-time", 0, UINT16_MAX, &boot->splash_time, err);
	if (rc == 0)
		rc = parse_ms(&opts, "reboot-timeout", -1, UINT16_MAX, &boot->reboot_timeout, err);
	splash = opts_get(&opts, "splash");
	if (rc == 0 && splash) {
		if (strlen(splash) >= sizeof(boot->splash))
			rc = error_set(err, ENAMETOOLONG,
				       "the name of the splash picture is too long");
		else
			memcpy(boot->splash, splash, strlen(splash) + 1);
	}
	if (rc == 0)
		rc = opts_check_unused(&opts, "-boot", known, err);
	opts_free(&opts);
	return rc;
}

void bootorder_cmos(const char *letters, bool floppy_check, uint8_t *byte_3d, uint8_t *byte_38)
{
	unsigned kind[MAX_KINDS] = {0};

	for (unsigned i = 0; i < MAX_KINDS && letters[i]; i++)
		kind[i] = kind_of(letters[i]);
	*byte_3d = (uint8_t)(kind[0] | kind[1] << 4);
	*byte_38 = (uint8_t)(kind[2] << 4 | (floppy_check ? 0 : CMOS_NO_FLOPPY_CHECK));
}

static int by_index(const void *a, const void *b)
{
	const struct firmware_boot_entry *x = a, *y = b;

	return (x->index > y->index) - (x->index < y->index);
}

void bootorder_text(const struct firmware_boot_entry *entries, size_t count, const char *first,
		    bool strict, struct strbuf *out)
{
	struct firmware_boot_entry *sorted = NULL;

	if (first)
		strbuf_printf(out, "%s\n", first);
	if (count) {
		sorted = xmalloc(count * sizeof(*sorted));
		memcpy(sorted, entries, count * sizeof(*sorted));
		qsort(sorted, count, sizeof(*sorted), by_index);
		for (size_t i = 0; i < count; i++)
			strbuf_printf(out, "%s\n", sorted[i].path);
		free(sorted);
	}
	if (out->len && strict)
		strbuf_puts(out, "HALT\n");
	/* The firmware takes the last newline as the start of one more, empty line. */
	if (out->len)
		out->data[out->len - 1] = '\0';
}

char *firmware_path_ide(char out[96], unsigned slot, unsigned function, unsigned channel,
			unsigned unit)
{
	snprintf(out, 96, "/pci@i0cf8/ide@%x,%x/drive@%x/disk@%x", slot, function, channel, unit);
	return out;
}

char *firmware_path_floppy(char out[96], unsigned unit)
{
	snprintf(out, 96, "/pci@i0cf8/isa@1/fdc@03f0/floppy@%x", unit);
	return out;
}

char *firmware_path_pci(char out[96], unsigned class, unsigned slot, const char *child)
{
	enum { CLASS_SCSI = 0x0100, CLASS_ETHERNET = 0x0200 };
	/* SeaBIOS takes any name in front of the '@'; these are Open Firmware's. */
	const char *name = class == CLASS_SCSI       ? "scsi"
			   : class == CLASS_ETHERNET ? "ethernet"
						     : "pci";

	snprintf(out, 96, "/pci@i0cf8/%s@%x%s%s", name, slot, child ? "/" : "", child ? child : "");
	return out;
}
