/* SPDX-License-Identifier: MIT */
/* What QEMU has and this PC has not, so that who types it is told what to do instead. */
#ifndef VMM_ABSENT_H
#define VMM_ABSENT_H

/* One sentence about an option ("usb", without the dash), a device or a drive interface of QEMU's;
 * NULL for one that QEMU has not either. */
const char *absent_option(const char *name);
const char *absent_device(const char *driver);
const char *absent_interface(const char *name);

#endif
