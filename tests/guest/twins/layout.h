/* SPDX-License-Identifier: MIT */
#ifndef TWINS_LAYOUT_H
#define TWINS_LAYOUT_H

#define STACK_BOTTOM 0xE000
#define STACK_TOP 0xFF00
#define ENTRY_SIZE 16 /* of an interrupt entry */
#define SEL_CODE 0x08
#define SEL_DATA 0x10
#define SEL_CODE16 0x18
#define SEL_DATA16 0x20
#define SEL_FREE 0x28 /* from here on a guest may fill the GDT */

#if defined(REAL_MODE) || defined(UNREAL_MODE)
#define REAL 1
#endif

#endif
