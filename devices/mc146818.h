/* SPDX-License-Identifier: MIT */
/* The real-time clock with 128 bytes of CMOS RAM, ports 70h and 71h, IRQ 8. */
#ifndef DEVICES_MC146818_H
#define DEVICES_MC146818_H

#include "core/device.h"
#include "core/irq.h"
#include "lib/error.h"
#include <stdbool.h>
#include <stdint.h>

enum rtc_base {
	RTC_UTC,
	RTC_LOCALTIME,
	RTC_DATE, /* starts at `date` */
};

struct rtc_config {
	enum rtc_base base;
	int64_t date;  /* RTC_DATE: seconds since 1970, in the guest's own time */
	bool vm_clock; /* runs on the virtual clock, which stops with the machine; false: follows
			  the host's time of day */
	bool slew;     /* missed periodic interrupts are made up for (driftfix=slew) */
};

/* Parses "base=utc|localtime|2006-06-17T16:01:21|2006-06-17,clock=host|vm|rt,driftfix=none|slew".
 */
int rtc_config_parse(const char *text, struct rtc_config *config, struct error *err);

struct mc146818;

struct mc146818 *mc146818_new(const struct device_env *env, struct irq_line irq8,
			      const struct rtc_config *config);
void mc146818_free(struct mc146818 *rtc);
/* CMOS bytes 0x0E..0x7F for the firmware (memory size, boot order, drive types). They survive a
 * system reset. */
void mc146818_set_nvram(struct mc146818 *rtc, uint8_t index, uint8_t value);
uint8_t mc146818_get_nvram(const struct mc146818 *rtc, uint8_t index);

#endif
