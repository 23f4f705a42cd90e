/* SPDX-License-Identifier: MIT */
/* What the human monitor and QMP both do. All run on the loop's thread, lock held, and return 0 or a
 * negative errno with a sentence; -ENODEV: no drive has that id. */
#ifndef VMM_COMMANDS_H
#define VMM_COMMANDS_H

#include "lib/error.h"
#include "vmm/keys.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct machine;
struct throttle_limits;

/* Writes a picture of the screen; "png" or "ppm", NULL: by the file name's ending (ppm otherwise).
 */
int command_screendump(struct machine *m, const char *path, const char *format, struct error *err);
/* Parses "ctrl-alt-f1" or "0x1e" into core/input.h's key numbers. */
int command_parse_keys(const char *text, uint8_t keys[KEYS_AT_ONCE], size_t *count,
		       struct error *err);
/* The tray of a CD or floppy drive opens; `force`: although the guest has locked it. */
int command_eject(struct machine *m, const char *id, bool force, struct error *err);
/* Puts another image into it; `format` NULL: to be found out. `mode` (NULL: "retain") is "retain",
 * "read-only" or "read-write". */
int command_change(struct machine *m, const char *id, const char *file, const char *format,
		   const char *mode, struct error *err);
/* Limits of a drive's operations and bytes a second; group NULL keeps the drive's group. */
int command_set_limits(struct machine *m, const char *id, const struct throttle_limits *limits,
		       const char *group, struct error *err);
/* Copies guest memory to a file: physical, or virtual as CPU `cpu` sees it. */
int command_pmemsave(struct machine *m, uint64_t addr, uint64_t size, const char *path,
		     struct error *err);
int command_memsave(struct machine *m, unsigned cpu, uint32_t addr, uint64_t size, const char *path,
		    struct error *err);
/* Reads guest memory as a CPU sees it; false where nothing is mapped. */
bool command_read_virtual(struct machine *m, unsigned cpu, uint32_t addr, void *buf, size_t len);

#endif
