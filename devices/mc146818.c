/* SPDX-License-Identifier: MIT */
/*
 * Motorola MC146818 real-time clock with 128 bytes of CMOS RAM.
 *
 *   port 70h  W    index (bits 6..0), NMI mask (bit 7)
 *   port 71h  R/W  00/02/04 time, 01/03/05 alarm, 06 weekday, 07..09 date, 0A..0D registers A..D,
 *                  0E..7F RAM; 32 is the century
 *
 * The time is the host's time of day, or the virtual clock, plus an offset that the guest changes
 * by setting the clock; registers are computed when they are read. While the guest holds the clock
 * (register B, SET, or the divider in reset) the time registers are plain bytes.
 *
 * Flags PF, UF and AF are brought up to date when register C is read; a timer runs only for the
 * interrupts that are enabled. Periods are counted on the virtual clock.
 *
 * CMOS RAM, clock and registers A and B survive a system reset, as on a battery: `kept` is the copy
 * that the reset, which clears all fields, restores.
 *
 * Documents: Motorola MC146818 datasheet, "Address Map", "Registers"; IBM PC AT Technical
 * Reference, "Real-time Clock/CMOS RAM". Left out: daylight saving (DSE), square wave output.
 */
#include "devices/mc146818.h"
#include "core/iobus.h"
#include "core/state.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/optstr.h"
#include "lib/text.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	RTC_PORT = 0x70,
	INDEX_MASK = 0x7F,
	RAM_SIZE = 128,

	R_SECONDS = 0,
	R_SECONDS_ALARM = 1,
	R_MINUTES = 2,
	R_MINUTES_ALARM = 3,
	R_HOURS = 4,
	R_HOURS_ALARM = 5,
	R_WEEKDAY = 6, /* 1 is Sunday */
	R_DAY = 7,
	R_MONTH = 8,
	R_YEAR = 9,
	R_A = 10,
	R_B = 11,
	R_C = 12,
	R_D = 13,
	R_CENTURY = 0x32,

	A_UIP = 1 << 7,
	A_DV_RESET = 0x60, /* DV = 11x: the divider is held in reset */
	A_RS = 0x0F,
	A_DEFAULT = 0x26, /* 32.768 kHz, 1024 Hz */

	B_SET = 1 << 7,
	B_PIE = 1 << 6,
	B_AIE = 1 << 5,
	B_UIE = 1 << 4,
	B_SQWE = 1 << 3,
	B_DM = 1 << 2, /* binary */
	B_24H = 1 << 1,

	C_IRQF = 1 << 7,
	C_PF = 1 << 6,
	C_AF = 1 << 5,
	C_UF = 1 << 4,

	D_VRT = 1 << 7,

	HOUR_PM = 1 << 7,
	ALARM_ANY = 0xC0, /* both top bits: matches every value */

	DIVIDER_HZ = 32768,
	UIP_NS = 244141, /* UIP is set this long before an update */
	MIN_INTERVAL_NS = 20000,
	MAX_MISSED = 64,
	SECONDS_A_DAY = 86400,
};

struct kept {
	uint8_t ram[RAM_SIZE];
	int64_t offset_s;
	uint32_t phase_ns;
	uint8_t weekday_shift;
};

struct mc146818 {
	uint8_t index;
	uint8_t ram[RAM_SIZE]; /* registers A and B and the alarm too; the time only while held */
	int64_t offset_s;      /* added to the time source */
	uint32_t phase_ns;     /* likewise, below a second */
	uint8_t weekday_shift; /* added to the weekday of the date, modulo 7 */
	uint8_t flags;         /* register C without IRQF */
	uint64_t last_period;  /* periods passed when PF was last looked at */
	int64_t last_second;   /* second when UF and AF were last looked at */
	uint32_t missed;       /* periodic interrupts to be made up for (driftfix=slew) */
	struct timer periodic, update;

	struct kept kept;
	bool vm_clock, slew;
	struct clock *clock;
	struct irq_line irq8;
	struct iobus *io;
	struct io_range *range;
	struct state_registry *states;
};

static const struct state_field mc146818_fields[] = {
	STATE_UINT(mc146818, index),         STATE_BYTES(mc146818, ram),
	STATE_UINT(mc146818, offset_s),      STATE_UINT(mc146818, phase_ns),
	STATE_UINT(mc146818, weekday_shift), STATE_UINT(mc146818, flags),
	STATE_UINT(mc146818, last_period),   STATE_UINT(mc146818, last_second),
	STATE_UINT(mc146818, missed),        STATE_TIMER(mc146818, periodic),
	STATE_TIMER(mc146818, update),       STATE_END,
};

/* ---- time ---- */

static uint64_t source_ns(const struct mc146818 *rtc)
{
	struct timespec ts;

	if (rtc->vm_clock)
		return clock_now(rtc->clock);
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* The clock's seconds since 1970; *fraction gets the ns into the second. */
static int64_t rtc_now(const struct mc146818 *rtc, uint32_t *fraction)
{
	uint64_t ns = source_ns(rtc) + rtc->phase_ns;

	*fraction = (uint32_t)(ns % NS_PER_SEC);
	return (int64_t)(ns / NS_PER_SEC) + rtc->offset_s;
}

/* Makes the clock show `seconds` now; `fraction` < 1 s. */
static void rtc_set(struct mc146818 *rtc, int64_t seconds, uint32_t fraction)
{
	uint64_t ns = source_ns(rtc);
	uint32_t have = (uint32_t)(ns % NS_PER_SEC);

	rtc->phase_ns = (uint32_t)((fraction + NS_PER_SEC - have) % NS_PER_SEC);
	rtc->offset_s = seconds - (int64_t)((ns + rtc->phase_ns) / NS_PER_SEC);
	rtc->last_second = seconds;
}

static bool divider_in_reset(const struct mc146818 *rtc)
{
	return (rtc->ram[R_A] & A_DV_RESET) == A_DV_RESET;
}

static bool held(const struct mc146818 *rtc)
{
	return (rtc->ram[R_B] & B_SET) || divider_in_reset(rtc);
}

static uint8_t encode(const struct mc146818 *rtc, unsigned value)
{
	return (uint8_t)(rtc->ram[R_B] & B_DM ? value : value / 10 % 10 << 4 | value % 10);
}

static unsigned decode(const struct mc146818 *rtc, uint8_t value)
{
	return rtc->ram[R_B] & B_DM ? value : (value >> 4) * 10u + (value & 15u);
}

static uint8_t encode_hour(const struct mc146818 *rtc, unsigned hour)
{
	if (rtc->ram[R_B] & B_24H)
		return encode(rtc, hour);
	return (uint8_t)(encode(rtc, (hour + 11) % 12 + 1) | (hour >= 12 ? HOUR_PM : 0));
}

static unsigned decode_hour(const struct mc146818 *rtc, uint8_t value)
{
	if (rtc->ram[R_B] & B_24H)
		return decode(rtc, value);
	return decode(rtc, value & (uint8_t)~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

/* Writes a time into the time registers. */
static void time_to_registers(struct mc146818 *rtc, int64_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&t, &tm))
		return;
	unsigned year = (unsigned)tm.tm_year + 1900;
	rtc->ram[R_SECONDS] = encode(rtc, (unsigned)tm.tm_sec % 60);
	rtc->ram[R_MINUTES] = encode(rtc, (unsigned)tm.tm_min);
	rtc->ram[R_HOURS] = encode_hour(rtc, (unsigned)tm.tm_hour);
	rtc->ram[R_WEEKDAY] = encode(rtc, ((unsigned)tm.tm_wday + rtc->weekday_shift) % 7 + 1);
	rtc->ram[R_DAY] = encode(rtc, (unsigned)tm.tm_mday);
	rtc->ram[R_MONTH] = encode(rtc, (unsigned)tm.tm_mon + 1);
	rtc->ram[R_YEAR] = encode(rtc, year % 100);
	rtc->ram[R_CENTURY] = encode(rtc, year / 100 % 100);
}

/* The time that the registers show; out-of-range values carry into the next field. */
static int64_t registers_to_time(struct mc146818 *rtc)
{
	unsigned year = decode(rtc, rtc->ram[R_YEAR]) + 100 * decode(rtc, rtc->ram[R_CENTURY]);
	unsigned month = decode(rtc, rtc->ram[R_MONTH]);
	struct tm tm = {
		.tm_sec = (int)decode(rtc, rtc->ram[R_SECONDS]),
		.tm_min = (int)decode(rtc, rtc->ram[R_MINUTES]),
		.tm_hour = (int)decode_hour(rtc, rtc->ram[R_HOURS]),
		.tm_mday = (int)decode(rtc, rtc->ram[R_DAY]),
		.tm_mon = month ? (int)month - 1 : 0,
		.tm_year = (int)year - 1900,
	};
	unsigned weekday = decode(rtc, rtc->ram[R_WEEKDAY]);
	int64_t seconds = (int64_t)timegm(&tm);

	/* timegm() filled in the weekday of that date. */
	rtc->weekday_shift = (uint8_t)((weekday + 6 + 7 - (unsigned)tm.tm_wday) % 7);
	return seconds;
}

/* The battery's copy follows each change. */
static void keep(struct mc146818 *rtc)
{
	memcpy(rtc->kept.ram, rtc->ram, RAM_SIZE);
	rtc->kept.offset_s = rtc->offset_s;
	rtc->kept.phase_ns = rtc->phase_ns;
	rtc->kept.weekday_shift = rtc->weekday_shift;
}

/* ---- flags and interrupts ---- */

/* Ticks of the 32.768 kHz divider in a period, 0 for none (datasheet, table 5). */
static uint32_t period_ticks(const struct mc146818 *rtc)
{
	unsigned rs = rtc->ram[R_A] & A_RS;

	if (rs == 0 || divider_in_reset(rtc))
		return 0;
	return UINT32_C(1) << (rs <= 2 ? rs + 6 : rs - 1);
}

static bool alarm_field_matches(uint8_t alarm, unsigned alarm_value, unsigned value)
{
	return (alarm & ALARM_ANY) == ALARM_ANY || alarm_value == value;
}

static bool alarm_matches(const struct mc146818 *rtc, int64_t second)
{
	unsigned of_day = (unsigned)(((second % SECONDS_A_DAY) + SECONDS_A_DAY) % SECONDS_A_DAY);
	uint8_t s = rtc->ram[R_SECONDS_ALARM], m = rtc->ram[R_MINUTES_ALARM],
		h = rtc->ram[R_HOURS_ALARM];

	return alarm_field_matches(s, decode(rtc, s), of_day % 60) &&
	       alarm_field_matches(m, decode(rtc, m), of_day / 60 % 60) &&
	       alarm_field_matches(h, decode_hour(rtc, h), of_day / 3600);
}

/* Sets the flags of everything that happened since the last look. */
static void refresh_flags(struct mc146818 *rtc)
{
	uint32_t period = period_ticks(rtc), fraction;

	if (period) {
		uint64_t passed = ns_to_ticks(clock_now(rtc->clock), DIVIDER_HZ) / period;
		if (passed != rtc->last_period)
			rtc->flags |= C_PF;
		rtc->last_period = passed;
	}
	if (held(rtc))
		return;
	int64_t now = rtc_now(rtc, &fraction);
	if (now == rtc->last_second)
		return;
	/* The host's clock may have jumped: a day of seconds covers every alarm. */
	int64_t from = rtc->last_second;
	if (from > now || now - from > SECONDS_A_DAY)
		from = now > INT64_MIN + SECONDS_A_DAY ? now - SECONDS_A_DAY : now;
	rtc->flags |= C_UF;
	for (int64_t t = from + 1; t <= now && !(rtc->flags & C_AF); t++)
		if (alarm_matches(rtc, t))
			rtc->flags |= C_AF;
	rtc->last_second = now;
}

static void drive_irq(struct mc146818 *rtc)
{
	irq_set(&rtc->irq8, rtc->flags & rtc->ram[R_B] & (C_PF | C_AF | C_UF));
}

static void schedule_periodic(struct mc146818 *rtc)
{
	uint32_t period = period_ticks(rtc);

	if (!period || !(rtc->ram[R_B] & B_PIE)) {
		timer_cancel(&rtc->periodic);
		rtc->missed = 0;
		return;
	}
	uint64_t now = clock_now(rtc->clock);
	uint64_t next = (ns_to_ticks(now, DIVIDER_HZ) / period + 1) * period;
	uint64_t at = ticks_to_ns(next, DIVIDER_HZ);
	timer_set(&rtc->periodic, at < now + MIN_INTERVAL_NS ? now + MIN_INTERVAL_NS : at);
}

static void schedule_update(struct mc146818 *rtc)
{
	uint32_t fraction;

	if (held(rtc) || !(rtc->ram[R_B] & (B_UIE | B_AIE))) {
		timer_cancel(&rtc->update);
		return;
	}
	rtc_now(rtc, &fraction);
	timer_set(&rtc->update, clock_now(rtc->clock) + NS_PER_SEC - fraction);
}

static void periodic_due(void *opaque)
{
	struct mc146818 *rtc = opaque;
	uint32_t period = period_ticks(rtc);
	uint64_t before = rtc->last_period;
	bool unread = rtc->flags & C_PF;

	refresh_flags(rtc);
	if (rtc->slew && period) {
		uint64_t lost = rtc->last_period - before - (rtc->last_period != before && !unread);
		rtc->missed = lost + rtc->missed > MAX_MISSED ? (uint32_t)MAX_MISSED
							      : rtc->missed + (uint32_t)lost;
	}
	trace(TRACE_TIMER, "rtc: periodic");
	drive_irq(rtc);
	schedule_periodic(rtc);
}

static void update_due(void *opaque)
{
	struct mc146818 *rtc = opaque;

	refresh_flags(rtc);
	drive_irq(rtc);
	schedule_update(rtc);
}

/* ---- registers ---- */

static bool is_time(uint8_t index)
{
	return index == R_SECONDS || index == R_MINUTES || index == R_HOURS ||
	       (index >= R_WEEKDAY && index <= R_YEAR) || index == R_CENTURY;
}

static uint8_t read_register(struct mc146818 *rtc, uint8_t index)
{
	uint32_t fraction;
	int64_t now;

	switch (index) {
	case R_A:
		if (held(rtc))
			return rtc->ram[R_A];
		rtc_now(rtc, &fraction);
		return rtc->ram[R_A] | (fraction >= NS_PER_SEC - UIP_NS ? A_UIP : 0);
	case R_C: {
		refresh_flags(rtc);
		uint8_t value = rtc->flags;
		if (value & rtc->ram[R_B] & (C_PF | C_AF | C_UF))
			value |= C_IRQF;
		rtc->flags = 0;
		drive_irq(rtc);
		if (rtc->missed && (rtc->ram[R_B] & B_PIE)) {
			rtc->missed--;
			rtc->flags = C_PF;
			drive_irq(rtc);
		}
		return value;
	}
	case R_D: return D_VRT;
	default:
		if (is_time(index) && !held(rtc)) {
			now = rtc_now(rtc, &fraction);
			time_to_registers(rtc, now);
		}
		return rtc->ram[index];
	}
}

/* Register A or B changed: the clock may stop, or go on from what the registers show. */
static void write_control(struct mc146818 *rtc, uint8_t index, uint8_t value)
{
	bool was_held = held(rtc), was_reset = divider_in_reset(rtc);
	uint32_t fraction;
	int64_t now = rtc_now(rtc, &fraction);

	refresh_flags(rtc);
	if (!was_held)
		time_to_registers(rtc, now);
	if (index == R_A) {
		rtc->ram[R_A] = value & (uint8_t)~A_UIP;
	} else {
		if (value & B_SET)
			value &= (uint8_t)~B_UIE; /* "The SET bit ... clears UIE" */
		/* While running, the time registers are made from the clock in the new format at
		 * the next read; while held they stay as they are. */
		rtc->ram[R_B] = value;
	}
	if (was_held && !held(rtc)) {
		int64_t seconds = registers_to_time(rtc);
		/* After a divider reset the first update comes half a second later. */
		rtc_set(rtc, seconds, was_reset ? (uint32_t)(NS_PER_SEC / 2) : fraction);
	}
	uint32_t period = period_ticks(rtc);
	if (index == R_A && period)
		rtc->last_period = ns_to_ticks(clock_now(rtc->clock), DIVIDER_HZ) / period;
	drive_irq(rtc);
	schedule_periodic(rtc);
	schedule_update(rtc);
}

static void write_register(struct mc146818 *rtc, uint8_t index, uint8_t value)
{
	uint32_t fraction;

	if (index == R_A || index == R_B) {
		write_control(rtc, index, value);
	} else if (index == R_C || index == R_D) {
		return; /* read-only */
	} else if (is_time(index) && !held(rtc)) {
		int64_t now = rtc_now(rtc, &fraction);
		refresh_flags(rtc);
		time_to_registers(rtc, now);
		rtc->ram[index] = value;
		int64_t seconds = registers_to_time(rtc);
		rtc_set(rtc, seconds, fraction);
		schedule_update(rtc);
	} else {
		if (index == R_SECONDS_ALARM || index == R_MINUTES_ALARM || index == R_HOURS_ALARM)
			refresh_flags(rtc);
		rtc->ram[index] = value;
	}
	keep(rtc);
}

static uint32_t rtc_read(void *opaque, uint16_t port, unsigned size)
{
	struct mc146818 *rtc = opaque;

	if (port == RTC_PORT)
		return 0xFF; /* the index is write-only */
	return read_register(rtc, rtc->index);
}

static void rtc_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct mc146818 *rtc = opaque;

	if (port == RTC_PORT)
		rtc->index = value & INDEX_MASK;
	else
		write_register(rtc, rtc->index, (uint8_t)value);
}

static const struct io_ops rtc_ops = {.read = rtc_read, .write = rtc_write};

void mc146818_set_nvram(struct mc146818 *rtc, uint8_t index, uint8_t value)
{
	if (index <= R_D || index >= RAM_SIZE || index == R_CENTURY)
		return;
	rtc->ram[index] = value;
	keep(rtc);
}

uint8_t mc146818_get_nvram(const struct mc146818 *rtc, uint8_t index)
{
	return rtc->ram[index & INDEX_MASK];
}

/* ---- options ---- */

static int parse_date(const char *text, int64_t *date, struct error *err)
{
	struct tm tm = {0};
	const char *end = strptime(text, "%Y-%m-%d", &tm);

	if (end && *end)
		end = strptime(end, "T%H:%M:%S", &tm);
	if (!end || *end)
		return error_set(err, EINVAL,
				 "-rtc base '%s' is not a date; use utc, localtime, "
				 "2006-06-17T16:01:21 or 2006-06-17",
				 text);
	*date = (int64_t)timegm(&tm);
	return 0;
}

int rtc_config_parse(const char *text, struct rtc_config *config, struct error *err)
{
	static const char *const clocks[] = {"host", "vm", "rt", NULL};
	static const char *const fixes[] = {"none", "slew", NULL};
	static const char *const known[] = {"base", "clock", "driftfix", NULL};
	struct opts opts;
	int clock = config->vm_clock, fix = config->slew;
	int ret = opts_parse(&opts, text, NULL, err);

	if (ret)
		return ret;
	const char *base = opts_get(&opts, "base");
	if (base && !strcmp(base, "utc"))
		config->base = RTC_UTC;
	else if (base && !strcmp(base, "localtime"))
		config->base = RTC_LOCALTIME;
	else if (base) {
		config->base = RTC_DATE;
		ret = parse_date(base, &config->date, err);
	}
	if (!ret)
		ret = opts_get_enum(&opts, "clock", clocks, &clock, err);
	if (!ret)
		ret = opts_get_enum(&opts, "driftfix", fixes, &fix, err);
	if (!ret)
		ret = opts_check_unused(&opts, "-rtc", known, err);
	opts_free(&opts);
	if (ret)
		return ret;
	/* "rt" is a monotonic host clock in QEMU; here both it and "vm" count virtual time. */
	config->vm_clock = clock != 0;
	config->slew = fix != 0;
	return 0;
}

/* ---- life ---- */

/* Sets the clock as the user asked for. */
static void set_initial_time(struct mc146818 *rtc, const struct rtc_config *config)
{
	time_t host = time(NULL);
	int64_t start = (int64_t)host;

	if (config->base == RTC_LOCALTIME) {
		struct tm tm;
		if (localtime_r(&host, &tm))
			start += tm.tm_gmtoff;
	} else if (config->base == RTC_DATE) {
		start = config->date;
	}
	rtc_set(rtc, start, config->base == RTC_DATE ? 0 : (uint32_t)(source_ns(rtc) % NS_PER_SEC));
}

static void mc146818_reset(void *opaque)
{
	struct mc146818 *rtc = opaque;
	uint32_t fraction;

	memcpy(rtc->ram, rtc->kept.ram, RAM_SIZE);
	rtc->offset_s = rtc->kept.offset_s;
	rtc->phase_ns = rtc->kept.phase_ns;
	rtc->weekday_shift = rtc->kept.weekday_shift;
	/* Datasheet, "RESET": these bits are cleared, the time and the RAM are not affected. */
	rtc->ram[R_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
	rtc->last_second = rtc_now(rtc, &fraction);
	uint32_t period = period_ticks(rtc);
	if (period)
		rtc->last_period = ns_to_ticks(clock_now(rtc->clock), DIVIDER_HZ) / period;
	keep(rtc);
	irq_lower(&rtc->irq8);
}

static int mc146818_post_load(void *opaque, unsigned version, struct error *err)
{
	struct mc146818 *rtc = opaque;

	rtc->index &= INDEX_MASK;
	rtc->phase_ns %= NS_PER_SEC;
	rtc->weekday_shift %= 7;
	if (rtc->missed > MAX_MISSED)
		rtc->missed = MAX_MISSED;
	/* Keeps every sum with host times far from overflow: +-100,000 years. */
	int64_t limit = INT64_C(3155760000000);
	if (rtc->offset_s > limit || rtc->offset_s < -limit)
		return error_set(err, EINVAL, "the saved clock is out of range");
	if (rtc->last_second > limit || rtc->last_second < -limit)
		rtc->last_second = 0;
	keep(rtc);
	drive_irq(rtc);
	return 0;
}

static const struct state_desc mc146818_desc = {
	.name = "mc146818",
	.version = 1,
	.fields = mc146818_fields,
	.reset = mc146818_reset,
	.post_load = mc146818_post_load,
};

struct mc146818 *mc146818_new(const struct device_env *env, struct irq_line irq8,
			      const struct rtc_config *config)
{
	struct mc146818 *rtc = xcalloc(1, sizeof(*rtc));

	rtc->clock = env->clock;
	rtc->irq8 = irq8;
	rtc->io = env->io;
	rtc->states = env->states;
	rtc->vm_clock = config->vm_clock;
	rtc->slew = config->slew;
	rtc->ram[R_A] = A_DEFAULT;
	rtc->ram[R_B] = B_24H;
	timer_init(&rtc->periodic, env->clock, periodic_due, rtc);
	timer_init(&rtc->update, env->clock, update_due, rtc);
	set_initial_time(rtc, config);
	keep(rtc);
	rtc->range = iobus_add(env->io, "rtc", RTC_PORT, 2, &rtc_ops, rtc);
	state_register(env->states, &mc146818_desc, 0, rtc);
	return rtc;
}

void mc146818_free(struct mc146818 *rtc)
{
	if (!rtc)
		return;
	timer_cancel(&rtc->periodic);
	timer_cancel(&rtc->update);
	iobus_remove(rtc->io, rtc->range);
	state_unregister(rtc->states, rtc);
	free(rtc);
}
