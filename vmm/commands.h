/* SPDX-License-Identifier: MIT */
/* What the human monitor and QMP both do. All run on the loop's thread, lock held. */
#ifndef VMM_COMMANDS_H
#define VMM_COMMANDS_H

#include "lib/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct machine;

/* Writes a picture of the screen; "png" or "ppm", NULL: by the file name's ending (ppm otherwise).
 */
int command_screendump(struct machine *m, const char *path, const char *format, struct error *err);
/* Presses keys together and releases them `hold_ms` later. Key numbers are core/input.h's. */
enum { SENDKEY_MAX = 16, SENDKEY_HOLD_MS = 100 };
int command_send_keys(struct machine *m, const uint8_t *keys, size_t count, unsigned hold_ms,
		      struct error *err);
/* Parses "ctrl-alt-f1" or "0x1e". */
int command_parse_keys(const char *text, uint8_t keys[SENDKEY_MAX], size_t *count,
		       struct error *err);
int command_eject(struct machine *m, const char *id, bool force, struct error *err);
int command_change(struct machine *m, const char *id, const char *file, const char *format,
		   const char *mode, struct error *err);
/* Copies guest memory to a file: physical, or virtual as CPU `cpu` sees it. */
int command_pmemsave(struct machine *m, uint64_t addr, uint64_t size, const char *path,
		     struct error *err);
int command_memsave(struct machine *m, unsigned cpu, uint32_t addr, uint64_t size, const char *path,
		    struct error *err);
/* Reads guest memory as a CPU sees it; false where nothing is mapped. */
bool command_read_virtual(struct machine *m, unsigned cpu, uint32_t addr, void *buf, size_t len);

#endif
