/* SPDX-License-Identifier: MIT */
/*
 * Intel 82078 floppy disk controller in PC/AT mode: registers, phases, and the commands that move
 * no data (fdc_data.c has the others).
 *
 *   port    read                 write
 *   base+2  DOR                  DOR  1:0 drive, 2 /RESET, 3 DMA and interrupt gate, 7:4 motors
 *   base+3  TDR                  TDR
 *   base+4  MSR                  DSR  1:0 data rate, 7 software reset
 *   base+5  FIFO                 FIFO
 *   base+7  DIR  7 disk change   CCR  1:0 data rate
 *
 *   MSR: 7 RQM (the FIFO wants an access), 6 DIO (1: a read), 5 non-DMA execution, 4 command busy,
 *   3:0 drives seeking
 *
 * A command is bytes into the FIFO, an execution, result bytes out of it. The interrupt comes at
 * the end of execution when there are results (reading the first one takes it back), after SEEK and
 * RECALIBRATE and after a reset (SENSE INTERRUPT STATUS takes it back).
 *
 * Document: 82078 datasheet (Intel 290474), 2 (registers), 5 (phases), 6 (commands).
 * Left out: status registers A and B (PS/2 modes), SAVE and RESTORE, real seek and rotation times,
 * FM (single density) recording, drives 2 and 3.
 */
#include "devices/fdc.h"
#include "core/state.h"
#include "devices/fdc_internal.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum fdc_reg { REG_DOR = 2, REG_TDR = 3, REG_MSR_DSR = 4, REG_FIFO = 5, REG_DIR_CCR = 7 };
enum msr_bits { MSR_BUSY = 1 << 4, MSR_NON_DMA = 1 << 5, MSR_DIO = 1 << 6, MSR_RQM = 1 << 7 };
enum { DSR_RESET = 1 << 7, RATE_MASK = 3, RATE_250K = 2, DIR_CHANGED = 1 << 7, TDR_MASK = 3 };
enum { SPECIFY_NON_DMA = 1 };
enum config_bits { CONFIG_NO_POLL = 1 << 4, CONFIG_NO_FIFO = 1 << 5, CONFIG_MASK = 0x7F };
enum { PERPENDICULAR_OW = 1 << 7, PERPENDICULAR_DRIVES = 0x3C, PERPENDICULAR_MODE = 3 };
enum { VERSION_82078 = 0x90, PART_ID_82078 = 0x41, LOCK_BIT = 1 << 7, DIRECTION_UP = 1 << 6 };
enum st3_bits {
	ST3_TWO_SIDES = 1 << 3,
	ST3_TRACK0 = 1 << 4,
	ST3_READY = 1 << 5,
	ST3_PROTECTED = 1 << 6
};
enum { SELECT_DRIVE = 3, SELECT_HEAD_AND_DRIVE = 7, MAX_TRACK = 84 };

/* ---- small things ---- */

struct fdc_drive *fdc_selected(struct fdc *s)
{
	unsigned n = s->fifo[1] & SELECT_DRIVE;
	return n < FDC_DRIVES && s->drive[n].drive ? &s->drive[n] : NULL;
}

static void update_irq(struct fdc *s)
{
	bool level = s->irq_pending && (s->dor & DOR_DMAGATE);

	if (level == s->irq_level)
		return;
	s->irq_level = level;
	irq_set(&s->irq, level);
}

void fdc_set_irq(struct fdc *s, bool pending)
{
	s->irq_pending = pending;
	update_irq(s);
}

bool fdc_uses_dma(const struct fdc *s)
{
	return s->dma && !(s->specify[1] & SPECIFY_NON_DMA);
}

static void set_changed(struct fdc_drive *d, bool changed)
{
	d->changed = d->changed_kept = changed;
}

void fdc_step_to(struct fdc_drive *d, unsigned track)
{
	if (d->track == track)
		return;
	d->track = (uint8_t)track;
	if (drive_inserted(d->drive))
		set_changed(d, false);
}

static void idle(struct fdc *s)
{
	s->phase = PHASE_COMMAND;
	s->fifo_pos = s->fifo_len = 0;
}

void fdc_result(struct fdc *s, unsigned len, bool interrupt)
{
	s->phase = PHASE_RESULT;
	s->fifo_pos = 0;
	s->fifo_len = (uint8_t)len;
	if (interrupt)
		fdc_set_irq(s, true);
}

/* A one-byte result without interrupt. */
static void result_byte(struct fdc *s, unsigned value)
{
	s->fifo[0] = (uint8_t)value;
	fdc_result(s, 1, false);
}

/* ---- reset ---- */

static void controller_reset(struct fdc *s)
{
	fdc_abort(s);
	idle(s);
	s->busy = 0;
	memset(s->seek_status, 0, sizeof(s->seek_status));
	s->perpendicular &= PERPENDICULAR_DRIVES;
	if (!s->lock) {
		s->config = CONFIG_NO_FIFO;
		s->pretrk = 0;
	}
	fdc_set_irq(s, false);
}

/* The chip comes out of reset and polls the four drives: their ready lines have all "changed". */
static void reset_over(struct fdc *s)
{
	s->reset_sense = FDC_SELECTS;
	fdc_set_irq(s, true);
}

/* ---- commands without data ---- */

static void cmd_invalid(struct fdc *s)
{
	result_byte(s, ST0_INVALID);
}

static void cmd_specify(struct fdc *s)
{
	s->specify[0] = s->fifo[1];
	s->specify[1] = s->fifo[2];
	idle(s);
}

static void cmd_sense_drive(struct fdc *s)
{
	struct fdc_drive *d = fdc_selected(s);
	unsigned st3 = ST3_READY | ST3_TWO_SIDES | (s->fifo[1] & SELECT_HEAD_AND_DRIVE);

	if (d && d->track == 0)
		st3 |= ST3_TRACK0;
	if (d && drive_inserted(d->drive) && !drive_writable(d->drive))
		st3 |= ST3_PROTECTED;
	result_byte(s, st3);
}

static void seek_done(struct fdc *s, unsigned st0)
{
	unsigned n = s->fifo[1] & SELECT_DRIVE;

	s->seek_status[n] = (uint8_t)(st0 | n);
	s->busy |= (uint8_t)(1 << n);
	idle(s);
	fdc_set_irq(s, true);
}

static void cmd_recalibrate(struct fdc *s)
{
	struct fdc_drive *d = fdc_selected(s);

	if (!d) { /* track 0 never shows up */
		seek_done(s, ST0_ABNORMAL | ST0_SEEK_END | ST0_EQUIPMENT_CHECK);
		return;
	}
	fdc_step_to(d, 0);
	seek_done(s, ST0_SEEK_END);
}

static void seek_to(struct fdc *s, int track)
{
	struct fdc_drive *d = fdc_selected(s);

	/* The heads stop at their end, without anybody noticing. */
	if (d)
		fdc_step_to(d, (unsigned)(track < 0 ? 0 : track > MAX_TRACK ? MAX_TRACK : track));
	seek_done(s, ST0_SEEK_END | (s->fifo[1] & ST0_HEAD));
}

static void cmd_seek(struct fdc *s)
{
	seek_to(s, s->fifo[2]);
}

static void cmd_relative_seek(struct fdc *s)
{
	struct fdc_drive *d = fdc_selected(s);
	int from = d ? d->track : 0;

	seek_to(s, s->fifo[0] & DIRECTION_UP ? from + s->fifo[2] : from - s->fifo[2]);
}

static void cmd_sense_interrupt(struct fdc *s)
{
	unsigned n = FDC_SELECTS;
	uint8_t st0 = 0;

	if (s->reset_sense) {
		n = FDC_SELECTS - s->reset_sense--;
		st0 = (uint8_t)(ST0_POLLING | n);
	} else {
		for (unsigned i = 0; i < FDC_SELECTS && n == FDC_SELECTS; i++)
			if (s->seek_status[i]) {
				n = i;
				st0 = s->seek_status[i];
				s->seek_status[i] = 0;
				s->busy &= (uint8_t) ~(1 << i);
			}
	}
	fdc_set_irq(s, false);
	if (n == FDC_SELECTS) { /* nothing to report */
		cmd_invalid(s);
		return;
	}
	s->fifo[0] = st0;
	s->fifo[1] = n < FDC_DRIVES ? s->drive[n].track : 0;
	fdc_result(s, 2, false);
	/* A drive that is done while another's status was read keeps the line up. */
	for (unsigned i = 0; i < FDC_SELECTS; i++)
		if (s->seek_status[i])
			fdc_set_irq(s, true);
}

static void cmd_dumpreg(struct fdc *s)
{
	uint8_t r[10] = {
		s->drive[0].track,
		s->drive[1].track,
		0,
		0,
		s->specify[0],
		s->specify[1],
		s->sector, /* SC/EOT */
		(uint8_t)((s->lock ? LOCK_BIT : 0) | s->perpendicular),
		s->config,
		s->pretrk,
	};
	memcpy(s->fifo, r, sizeof(r));
	fdc_result(s, sizeof(r), false);
}

static void cmd_version(struct fdc *s)
{
	result_byte(s, VERSION_82078);
}

static void cmd_part_id(struct fdc *s)
{
	result_byte(s, PART_ID_82078);
}

static void cmd_lock(struct fdc *s)
{
	s->lock = s->fifo[0] & LOCK_BIT;
	result_byte(s, s->lock ? LOCK_BIT >> 3 : 0);
}

static void cmd_perpendicular(struct fdc *s)
{
	uint8_t value = s->fifo[1];

	/* The drive bits change only with the overwrite bit. */
	if (value & PERPENDICULAR_OW)
		s->perpendicular = value & (PERPENDICULAR_DRIVES | PERPENDICULAR_MODE);
	else
		s->perpendicular =
			(s->perpendicular & PERPENDICULAR_DRIVES) | (value & PERPENDICULAR_MODE);
	idle(s);
}

static void cmd_configure(struct fdc *s)
{
	s->config = s->fifo[2] & CONFIG_MASK;
	s->pretrk = s->fifo[3];
	idle(s);
}

static void cmd_powerdown(struct fdc *s)
{
	result_byte(s, s->fifo[1]);
}

static void cmd_option(struct fdc *s)
{
	idle(s);
}

static const struct {
	uint8_t code, mask, len; /* of the whole command */
	void (*run)(struct fdc *s);
} commands[] = {
	{0x03, 0xFF, 3, cmd_specify},
	{0x04, 0xFF, 2, cmd_sense_drive},
	{0x07, 0xFF, 2, cmd_recalibrate},
	{0x08, 0xFF, 1, cmd_sense_interrupt},
	{0x0E, 0xFF, 1, cmd_dumpreg},
	{0x0F, 0xFF, 3, cmd_seek},
	{0x8F, 0xBF, 3, cmd_relative_seek},
	{0x10, 0xFF, 1, cmd_version},
	{0x12, 0xFF, 2, cmd_perpendicular},
	{0x13, 0xFF, 4, cmd_configure},
	{0x14, 0x7F, 1, cmd_lock},
	{0x17, 0xFF, 2, cmd_powerdown},
	{0x18, 0xFF, 1, cmd_part_id},
	{0x33, 0xFF, 2, cmd_option},
	{FDC_READ, 0x1F, 9, fdc_data_command},
	{FDC_READ_DELETED, 0x1F, 9, fdc_data_command},
	{FDC_WRITE, 0x3F, 9, fdc_data_command},
	{FDC_WRITE_DELETED, 0x3F, 9, fdc_data_command},
	{FDC_READ_TRACK, 0x9F, 9, fdc_data_command},
	{FDC_VERIFY, 0x1F, 9, fdc_data_command},
	{FDC_SCAN_EQUAL, 0x1F, 9, fdc_data_command},
	{FDC_SCAN_LOW, 0x1F, 9, fdc_data_command},
	{FDC_SCAN_HIGH, 0x1F, 9, fdc_data_command},
	{FDC_READ_ID, 0xBF, 2, fdc_read_id},
	{FDC_FORMAT, 0xBF, 6, fdc_format_track},
};

static int find_command(uint8_t byte)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if ((byte & commands[i].mask) == commands[i].code)
			return (int)i;
	return -1;
}

/* ---- FIFO ---- */

static void command_byte(struct fdc *s, uint8_t value)
{
	if (s->fifo_pos == 0) {
		int i = find_command(value);
		s->fifo_len = i < 0 ? 1 : commands[i].len;
	}
	s->fifo[s->fifo_pos++] = value;
	if (s->fifo_pos < s->fifo_len)
		return;
	int i = find_command(s->fifo[0]);
	trace(TRACE_FDC, "command %02x", s->fifo[0]);
	if (i < 0)
		cmd_invalid(s);
	else
		commands[i].run(s);
}

static uint8_t result_read(struct fdc *s)
{
	uint8_t value = s->fifo[s->fifo_pos++];

	fdc_set_irq(s, false);
	if (s->fifo_pos >= s->fifo_len)
		idle(s);
	return value;
}

static uint8_t msr(const struct fdc *s)
{
	if (!(s->dor & DOR_NRESET))
		return 0;
	switch (s->phase) {
	case PHASE_COMMAND: return MSR_RQM | (s->fifo_pos ? MSR_BUSY : 0) | s->busy;
	case PHASE_RESULT: return MSR_RQM | MSR_DIO | MSR_BUSY | s->busy;
	default: break;
	}
	uint8_t value = MSR_BUSY | s->busy;
	if (!fdc_uses_dma(s)) {
		value |= MSR_NON_DMA;
		if (s->wait == WAIT_TO_HOST)
			value |= MSR_RQM | MSR_DIO;
		else if (s->wait == WAIT_FROM_HOST)
			value |= MSR_RQM;
	}
	return value;
}

/* ---- ports ---- */

static uint32_t fdc_read(void *opaque, uint16_t port, unsigned size)
{
	struct fdc *s = opaque;
	unsigned n;

	switch (port - s->base) {
	case REG_DOR: return s->dor;
	case REG_TDR: return s->tdr;
	case REG_MSR_DSR: return msr(s);
	case REG_FIFO:
		if (s->phase == PHASE_RESULT)
			return result_read(s);
		return s->phase == PHASE_EXECUTION && !fdc_uses_dma(s) ? fdc_data_read(s) : 0;
	default: /* REG_DIR_CCR */
		n = s->dor & DOR_SELECT;
		return n < FDC_DRIVES && s->drive[n].drive && s->drive[n].changed ? DIR_CHANGED : 0;
	}
}

static void dor_write(struct fdc *s, uint8_t value)
{
	uint8_t old = s->dor;

	s->dor = value;
	if ((old & DOR_NRESET) && !(value & DOR_NRESET))
		controller_reset(s);
	else if (!(old & DOR_NRESET) && (value & DOR_NRESET))
		reset_over(s);
	update_irq(s);
}

static void fdc_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct fdc *s = opaque;

	switch (port - s->base) {
	case REG_DOR: dor_write(s, (uint8_t)value); break;
	case REG_TDR: s->tdr = value & TDR_MASK; break;
	case REG_MSR_DSR:
		s->rate = value & RATE_MASK;
		if ((value & DSR_RESET) && (s->dor & DOR_NRESET)) {
			controller_reset(s);
			reset_over(s);
		}
		break;
	case REG_FIFO:
		if (!(s->dor & DOR_NRESET))
			break;
		if (s->phase == PHASE_COMMAND)
			command_byte(s, (uint8_t)value);
		else if (s->phase == PHASE_EXECUTION && !fdc_uses_dma(s))
			fdc_data_write(s, (uint8_t)value);
		break;
	default: s->rate = value & RATE_MASK; break; /* REG_DIR_CCR */
	}
}

static const struct io_ops fdc_ops = {.read = fdc_read, .write = fdc_write};

static void dma_ready(void *opaque)
{
	fdc_pump(opaque);
}

/* ---- media ---- */

static void media_changed(void *opaque, bool inserted)
{
	struct fdc_drive *d = opaque;

	set_changed(d, true);
	d->format = fdc_format_of(drive_size(d->drive));
}

/* ---- state ---- */

static const struct state_field fdc_drive_fields[] = {
	STATE_UINT(fdc_drive, track),
	STATE_UINT(fdc_drive, changed),
	STATE_END,
};

static const struct state_field fdc_fields[] = {
	STATE_UINT(fdc, dor),
	STATE_UINT(fdc, tdr),
	STATE_UINT(fdc, rate),
	STATE_BYTES(fdc, specify),
	STATE_UINT(fdc, config),
	STATE_UINT(fdc, pretrk),
	STATE_UINT(fdc, perpendicular),
	STATE_UINT(fdc, lock),
	STATE_UINT(fdc, irq_pending),
	STATE_UINT(fdc, reset_sense),
	STATE_BYTES(fdc, seek_status),
	STATE_UINT(fdc, busy),
	STATE_STRUCTS(fdc, drive, fdc_drive_fields),
	STATE_UINT(fdc, phase),
	STATE_BYTES(fdc, fifo),
	STATE_UINT(fdc, fifo_pos),
	STATE_UINT(fdc, fifo_len),
	STATE_UINT(fdc, wait),
	STATE_UINT(fdc, head),
	STATE_UINT(fdc, sector),
	STATE_UINT(fdc, st1),
	STATE_UINT(fdc, st2),
	STATE_UINT(fdc, terminal_count),
	STATE_UINT(fdc, pos),
	STATE_UINT(fdc, len),
	STATE_UINT(fdc, verify_left),
	STATE_UINT(fdc, format_next),
	STATE_BYTES(fdc, data),
	STATE_BYTES(fdc, sector_data),
	STATE_END,
};

static void drain(struct fdc *s)
{
	for (int i = 0; i < FDC_DRIVES; i++)
		if (s->drive[i].drive)
			drive_drain(s->drive[i].drive);
}

static void fdc_reset(void *opaque)
{
	struct fdc *s = opaque;

	s->stale = s->in_flight;
	s->deferred = false;
	drain(s);
	s->in_flight = s->stale = false;
	controller_reset(s);
	s->rate = RATE_250K;
	for (int i = 0; i < FDC_DRIVES; i++)
		s->drive[i].changed = s->drive[i].changed_kept;
	update_irq(s);
}

static void fdc_pre_save(void *opaque)
{
	drain(opaque);
}

static int fdc_post_load(void *opaque, unsigned version, struct error *err)
{
	struct fdc *s = opaque;
	bool executing = s->phase == PHASE_EXECUTION;

	if (s->phase >= FDC_PHASES || s->wait >= FDC_WAITS || s->fifo_pos > s->fifo_len ||
	    s->fifo_len > FDC_FIFO || s->pos > s->len || s->len > sizeof(s->data) ||
	    s->reset_sense > FDC_SELECTS ||
	    (s->phase == PHASE_RESULT && s->fifo_pos >= s->fifo_len) ||
	    (s->phase == PHASE_COMMAND && s->fifo_pos && s->fifo_pos >= s->fifo_len) ||
	    (executing && (s->wait < WAIT_TO_HOST || !fdc_selected(s))))
		return error_set(err, EINVAL,
				 "the saved state of the floppy controller is damaged");
	if (executing && (s->fifo[0] & FDC_CODE) != FDC_FORMAT &&
	    (s->len > FDC_SECTOR || s->sector < 1 || s->head > 1))
		return error_set(err, EINVAL,
				 "the saved state of the floppy controller is damaged");
	for (int i = 0; i < FDC_DRIVES; i++) {
		if (s->drive[i].track > MAX_TRACK)
			s->drive[i].track = MAX_TRACK;
		s->drive[i].changed_kept = s->drive[i].changed;
	}
	s->rate &= RATE_MASK;
	s->in_flight = s->stale = s->deferred = false;
	s->irq_level = s->irq_pending && (s->dor & DOR_DMAGATE);
	irq_set(&s->irq, s->irq_level);
	return 0;
}

static const struct state_desc fdc_state = {
	.name = "fdc",
	.version = 1,
	.fields = fdc_fields,
	.reset = fdc_reset,
	.pre_save = fdc_pre_save,
	.post_load = fdc_post_load,
};

/* ---- construction ---- */

struct fdc *fdc_new(const struct device_env *env, uint16_t base, const struct irq_line *irq,
		    struct i8237 *dma, struct drive *const drives[2])
{
	struct fdc *s = xcalloc(1, sizeof(*s));

	s->io = env->io;
	s->states = env->states;
	s->irq = *irq;
	s->dma = dma;
	s->base = base;
	for (int i = 0; i < FDC_DRIVES; i++) {
		struct fdc_drive *d = &s->drive[i];
		d->drive = drives[i];
		if (!d->drive)
			continue;
		d->format = fdc_format_of(drive_size(d->drive));
		set_changed(d, true);
		drive_set_media_ops(
			d->drive, &(struct drive_media_ops){.changed = media_changed, .opaque = d});
	}
	if (dma)
		i8237_set_client(dma, FDC_DMA_CHANNEL, dma_ready, s);
	s->low_range = iobus_add(env->io, "fdc", (uint16_t)(base + REG_DOR), 4, &fdc_ops, s);
	s->high_range = iobus_add(env->io, "fdc", (uint16_t)(base + REG_DIR_CCR), 1, &fdc_ops, s);
	state_register(env->states, &fdc_state, 0, s);
	fdc_reset(s);
	return s;
}

void fdc_free(struct fdc *s)
{
	if (!s)
		return;
	s->stale = s->in_flight;
	s->deferred = false;
	drain(s);
	for (int i = 0; i < FDC_DRIVES; i++)
		if (s->drive[i].drive)
			drive_set_media_ops(s->drive[i].drive, NULL);
	if (s->dma)
		i8237_set_client(s->dma, FDC_DMA_CHANNEL, NULL, NULL);
	iobus_remove(s->io, s->low_range);
	iobus_remove(s->io, s->high_range);
	state_unregister(s->states, s);
	free(s);
}
