/* SPDX-License-Identifier: MIT */
/*
 * The NE2000: a DP8390 network controller, 32 KiB of packet memory, a station address PROM, and a
 * data port through which the host reaches both by the controller's remote DMA.
 *
 *   port  page 0 read  page 0 write  page 1   page 2 read   page 3 (RTL8029)
 *   00    CR           CR            CR       CR            CR
 *   01    CLDA0        PSTART        PAR0     PSTART        9346CR
 *   02    CLDA1        PSTOP         PAR1     PSTOP
 *   03    BNRY         BNRY          PAR2                   CONFIG0
 *   04    TSR          TPSR          PAR3     TPSR
 *   05    NCR          TBCR0         PAR4                   CONFIG2
 *   06    FIFO         TBCR1         PAR5                   CONFIG3
 *   07    ISR          ISR (W1C)     CURR
 *   08    CRDA0        RSAR0         MAR0
 *   09    CRDA1        RSAR1         MAR1
 *   0A    ID0 (RTL)    RBCR0         MAR2
 *   0B    ID1 (RTL)    RBCR1         MAR3
 *   0C    RSR          RCR           MAR4     RCR
 *   0D    CNTR0        TCR           MAR5     TCR
 *   0E    CNTR1        DCR           MAR6     DCR           8029ID0
 *   0F    CNTR2        IMR           MAR7     IMR           8029ID1
 *   10-17 data port: one byte or word (DCR.WTS) of remote DMA
 *   18-1F reset port: reading resets the controller
 *
 * Controller addresses: 0000..001F the PROM, each byte twice, as a 16-bit card has it; 4000..BFFF
 * packet memory; elsewhere nothing. Every access goes through mem_get() and mem_put(), so whatever
 * pages the guest programs, nothing else is touched.
 *
 * Received frames go into a ring of 256-byte pages PSTART..PSTOP-1: a header of four bytes (RSR,
 * next page, byte count with the FCS), the frame, the FCS. CURR is the next page to fill, BNRY
 * the page the host has yet to take. While the ring has no room frames wait outside (the wire has
 * flow control); only a frame that no ring of this size could hold overflows.
 *
 * Documents: National Semiconductor DP8390D/NS32490D datasheet (sections by their titles below);
 * Realtek RTL8029AS datasheet. Left out: collisions and what follows from them, the 93C46 EEPROM
 * behind 9346CR and its settings, boot ROM paging of the ISA card.
 */
#include "core/iobus.h"
#include "devices/ne2000_internal.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include <string.h>
#include <zlib.h>

enum {
	/* "Command Register" */
	CR_STP = 1 << 0,
	CR_STA = 1 << 1,
	CR_TXP = 1 << 2,
	CR_RD_SHIFT = 3,
	CR_RD_MASK = 7 << 3,
	CR_RD2 = 1 << 5,
	CR_PAGE_SHIFT = 6,
	RD_READ = 1,
	RD_WRITE = 2,
	RD_SEND = 3,

	/* "Interrupt Status Register" */
	ISR_PRX = 1 << 0,
	ISR_PTX = 1 << 1,
	ISR_RXE = 1 << 2,
	ISR_TXE = 1 << 3,
	ISR_OVW = 1 << 4,
	ISR_CNT = 1 << 5,
	ISR_RDC = 1 << 6,
	ISR_RST = 1 << 7, /* a state, no interrupt */
	IMR_MASK = 0x7F,

	/* "Data Configuration Register" */
	DCR_WTS = 1 << 0, /* words */
	DCR_BOS = 1 << 1, /* big-endian words: for 68000 hosts, ignored on this card's bus */
	DCR_LAS = 1 << 2,
	DCR_LS = 1 << 3, /* clear: loopback */
	DCR_MASK = 0x7F,

	/* "Transmit Configuration Register" */
	TCR_CRC = 1 << 0, /* the host supplies the FCS */
	TCR_LB_SHIFT = 1,
	TCR_LB_MASK = 3 << 1,
	TCR_MASK = 0x1F,

	/* "Transmit Status Register" */
	TSR_PTX = 1 << 0,
	TSR_UNDEFERRED = 1 << 1,
	TSR_CRS = 1 << 4, /* no carrier */
	TSR_CDH = 1 << 6, /* no heartbeat */

	/* "Receive Configuration Register" */
	RCR_AR = 1 << 1, /* runts */
	RCR_AB = 1 << 2, /* broadcast */
	RCR_AM = 1 << 3, /* multicast by MAR */
	RCR_PRO = 1 << 4,
	RCR_MON = 1 << 5,
	RCR_MASK = 0x3F,

	/* "Receive Status Register" */
	RSR_PRX = 1 << 0,
	RSR_CRC = 1 << 1,
	RSR_MPA = 1 << 4, /* missed */
	RSR_PHY = 1 << 5, /* group address */
	RSR_DIS = 1 << 6, /* receiver disabled (monitor mode) */

	TALLY_MISSED = 2,
	TALLY_ALARM = 0x80, /* ISR.CNT */
	TALLY_MAX = 192,    /* "Network Tally Counters": counting stops */

	REG_DATA = 0x10,
	REG_RESET = 0x18,
	REGS_MASK = 0x1F,

	PAGE = 256,
	RING_HEADER = 4,
	FCS_LEN = 4,
	FRAME_MIN = 60, /* without FCS; the sender's hardware pads, so the receiver does it here */
	FRAME_MAX = 1518, /* with a VLAN tag, without FCS */

	/* RTL8029AS, "Page 3 Registers" */
	RTL_ID0 = 0x50,
	RTL_ID1 = 0x43,
	RTL_CONFIG2 = 0x40, /* 10BaseT, link test off */
	RTL_CONFIG3_FUDUP = 0x40,
	RTL_8029ID0 = 0x29,
	RTL_8029ID1 = 0x80,
};

static const uint8_t broadcast[NET_MAC_LEN] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};

static const struct state_field ne2000_fields[] = {
	STATE_UINT(ne2000, cr),       STATE_UINT(ne2000, isr),
	STATE_UINT(ne2000, imr),      STATE_UINT(ne2000, dcr),
	STATE_UINT(ne2000, tcr),      STATE_UINT(ne2000, rcr),
	STATE_UINT(ne2000, tsr),      STATE_UINT(ne2000, rsr),
	STATE_UINT(ne2000, pstart),   STATE_UINT(ne2000, pstop),
	STATE_UINT(ne2000, bnry),     STATE_UINT(ne2000, curr),
	STATE_UINT(ne2000, tpsr),     STATE_UINT(ne2000, ncr),
	STATE_UINTS(ne2000, cntr),    STATE_UINT(ne2000, tbcr),
	STATE_UINT(ne2000, rsar),     STATE_UINT(ne2000, rbcr),
	STATE_UINT(ne2000, crda),     STATE_UINT(ne2000, left),
	STATE_UINT(ne2000, clda),     STATE_BYTES(ne2000, par),
	STATE_BYTES(ne2000, mar),     STATE_BYTES(ne2000, fifo),
	STATE_BYTES(ne2000, ram),     STATE_UINT(ne2000, unseen),
	STATE_UINT(ne2000, fifo_pos), STATE_END,
};

static void update_irq(struct ne2000 *s)
{
	irq_set(&s->irq, (s->isr & s->imr & IMR_MASK) != 0);
}

static void raise(struct ne2000 *s, uint8_t bits)
{
	s->isr |= bits;
	update_irq(s);
}

static void count(struct ne2000 *s, unsigned tally)
{
	if (s->cntr[tally] < TALLY_MAX)
		s->cntr[tally]++;
	if (s->cntr[tally] & TALLY_ALARM)
		raise(s, ISR_CNT);
}

/* ---- Memory as the controller addresses it ---- */

static bool in_ram(unsigned addr)
{
	return addr - NE2000_RAM_BASE < NE2000_RAM_SIZE;
}

static uint8_t mem_get(const struct ne2000 *s, uint16_t addr)
{
	if (in_ram(addr))
		return s->ram[addr - NE2000_RAM_BASE];
	return addr < NE2000_PROM_SIZE ? s->prom[addr] : 0xFF;
}

static void mem_put(struct ne2000 *s, uint16_t addr, uint8_t value)
{
	if (in_ram(addr))
		s->ram[addr - NE2000_RAM_BASE] = value;
}

/* ---- Reception ---- */

/* STA and STP are commands: writing neither changes nothing (iPXE switches pages so). What they
 * made of the controller is seen in ISR.RST. */
static bool running(const struct ne2000 *s)
{
	return !(s->isr & ISR_RST);
}

static bool receiver_on(const struct ne2000 *s)
{
	return running(s) && !(s->tcr & TCR_LB_MASK);
}

/* The top six bits of the frame check sequence of the address, the highest power of x first, choose
 * a bit of MAR ("Multicast Address Registers"). */
static unsigned hash_of(const uint8_t *mac)
{
	uint32_t crc = ~(uint32_t)crc32(0, mac, NET_MAC_LEN);
	unsigned hash = 0;
	for (unsigned bit = 0; bit < 6; bit++)
		hash = hash << 1 | (crc >> bit & 1);
	return hash;
}

/* Promiscuous mode is for physical addresses; group addresses need AB, or AM and a MAR of ones, then
 * too ("Receive Configuration Register", PRO). */
static bool wants(const struct ne2000 *s, const uint8_t *destination)
{
	if (!memcmp(destination, broadcast, NET_MAC_LEN))
		return s->rcr & RCR_AB;
	if (destination[0] & 1) {
		unsigned hash = hash_of(destination);
		return (s->rcr & RCR_AM) && (s->mar[hash / 8] >> hash % 8 & 1);
	}
	return (s->rcr & RCR_PRO) || !memcmp(destination, s->par, NET_MAC_LEN);
}

static unsigned ring_pages(const struct ne2000 *s)
{
	return s->pstop > s->pstart ? (unsigned)(s->pstop - s->pstart) : 0;
}

/* Pages that may be filled before the one the host has yet to take; the last stays free, since CURR
 * = BNRY means empty. */
static unsigned free_pages(const struct ne2000 *s)
{
	unsigned pages = ring_pages(s);
	if (!pages)
		return 0;
	unsigned gap = (s->bnry > s->curr ? 0 : pages) + s->bnry - s->curr;
	return gap && gap <= pages ? gap - 1 : 0;
}

/* Stores bytes at CLDA, which goes round the ring. */
static void store(struct ne2000 *s, const uint8_t *data, size_t len)
{
	for (size_t n = 0; n < len; n++) {
		mem_put(s, s->clda, data[n]);
		s->clda++;
		if (s->clda == s->pstop * PAGE)
			s->clda = (uint16_t)(s->pstart * PAGE);
	}
}

static void store_frame(struct ne2000 *s, const uint8_t *frame, size_t len, unsigned pages)
{
	uint8_t fcs[FCS_LEN], header[RING_HEADER];
	unsigned next = s->curr + pages;
	if (next >= s->pstop)
		next -= ring_pages(s);
	s->rsr = RSR_PRX | (frame[0] & 1 ? RSR_PHY : 0);
	header[0] = s->rsr;
	header[1] = (uint8_t)next;
	store_le16(header + 2, (uint16_t)(len + FCS_LEN));
	store_le32(fcs, (uint32_t)crc32(0, frame, (unsigned)len));
	s->clda = (uint16_t)(s->curr * PAGE);
	store(s, header, sizeof(header));
	store(s, frame, len);
	store(s, fcs, sizeof(fcs));
	s->curr = (uint8_t)next;
	s->unseen = true;
	raise(s, ISR_PRX);
}

static bool ne2000_receive(void *opaque, unsigned queue, const struct iovec *iov, int iov_count,
			   size_t len)
{
	struct ne2000 *s = opaque;
	uint8_t frame[FRAME_MAX];
	if (!receiver_on(s) || len < 2 * NET_MAC_LEN || len > sizeof(frame))
		return true; /* nobody listens, or no card on this wire could send that */
	net_iov_copy(frame, len, iov, iov_count, 0);
	if (!wants(s, frame))
		return true;
	if (len < FRAME_MIN) {
		memset(frame + len, 0, FRAME_MIN - len);
		len = FRAME_MIN;
	}
	if (s->rcr & RCR_MON) {
		s->rsr = RSR_PRX | RSR_MPA | RSR_DIS;
		count(s, TALLY_MISSED);
		return true;
	}
	unsigned pages = (unsigned)div_round_up(RING_HEADER + len + FCS_LEN, PAGE);
	if (pages >= ring_pages(s)) {
		s->rsr = RSR_MPA;
		count(s, TALLY_MISSED);
		raise(s, ISR_OVW | ISR_RST);
		return true;
	}
	if (pages > free_pages(s)) {
		/* A host that does not know of its full ring would never make room. */
		raise(s, ISR_PRX);
		return false;
	}
	store_frame(s, frame, len, pages);
	return true;
}

/* After anything that may have made room. */
static void receiver_ready(struct ne2000 *s)
{
	net_receive_ready(s->port, 0);
}

/* ---- Transmission ---- */

/* "Loopback Diagnostics": nothing leaves; the receiver puts the end of the frame into the FIFO and
 * sees a bad FCS unless the host made it, for the generator is the checker. */
static void loop_back(struct ne2000 *s, const uint8_t *frame, size_t len)
{
	static const uint8_t tsr_of_mode[] = {
		[1] = TSR_PTX | TSR_UNDEFERRED | TSR_CRS | TSR_CDH, /* within the controller */
		[2] = TSR_PTX | TSR_UNDEFERRED | TSR_CDH,           /* through the ENDEC */
		[3] = TSR_PTX | TSR_UNDEFERRED,                     /* through the transceiver */
	};
	bool own_fcs = s->tcr & TCR_CRC;
	bool good = false;
	uint8_t fcs[FCS_LEN] = {0};
	size_t total = len + (own_fcs ? 0 : FCS_LEN);

	if (own_fcs && len > FCS_LEN) {
		memcpy(fcs, frame + len - FCS_LEN, FCS_LEN);
		len -= FCS_LEN;
		good = load_le32(fcs) == (uint32_t)crc32(0, frame, (unsigned)len);
	} else {
		store_le32(fcs, (uint32_t)crc32(0, frame, (unsigned)len));
	}
	s->tsr = tsr_of_mode[(s->tcr & TCR_LB_MASK) >> TCR_LB_SHIFT];
	s->rsr = good ? RSR_PRX : RSR_CRC;
	s->fifo[0] = (uint8_t)total;
	s->fifo[1] = s->fifo[2] = (uint8_t)(total >> 8);
	s->fifo[3] = len ? frame[len - 1] : 0;
	memcpy(s->fifo + 4, fcs, FCS_LEN);
	s->fifo_pos = 0;
}

static void transmit(struct ne2000 *s)
{
	uint8_t frame[FRAME_MAX + FCS_LEN] = {0};
	size_t len = s->tbcr;
	bool fits = len && len <= sizeof(frame);

	if (!fits)
		len = 0;
	for (size_t n = 0; n < len; n++)
		frame[n] = mem_get(s, (uint16_t)(s->tpsr * PAGE + n));
	s->ncr = 0;
	if (s->tcr & TCR_LB_MASK) {
		loop_back(s, frame, len);
	} else {
		s->tsr = TSR_PTX | TSR_UNDEFERRED;
		if (!net_link_up(s->port))
			s->tsr |= TSR_CRS;
		if (s->tcr & TCR_CRC) {
			/* Receivers drop a frame whose FCS is wrong. */
			fits = fits && len > FCS_LEN;
			len = fits ? len - FCS_LEN : 0;
			fits = fits &&
			       load_le32(frame + len) == (uint32_t)crc32(0, frame, (unsigned)len);
		}
		if (fits && len <= FRAME_MAX)
			net_send_buf(s->port, 0, frame, len);
	}
	s->cr &= (uint8_t)~CR_TXP;
	raise(s, ISR_PTX);
	/* The user network has acknowledged TCP already; the next frame may hang on it. */
	net_take_waiting(s->port);
}

/* ---- Remote DMA ---- */

static unsigned remote_op(const struct ne2000 *s)
{
	return (s->cr & CR_RD_MASK) >> CR_RD_SHIFT;
}

static void remote_done(struct ne2000 *s)
{
	if (remote_op(s) == RD_SEND) {
		/* "Send Packet Command": the host has taken the frame. */
		s->bnry = mem_get(s, (uint16_t)(s->bnry * PAGE + 1));
		receiver_ready(s);
	}
	raise(s, ISR_RDC);
}

static void remote_start(struct ne2000 *s)
{
	s->crda = s->rsar;
	s->left = s->rbcr;
	if (remote_op(s) == RD_SEND) {
		s->crda = (uint16_t)(s->bnry * PAGE);
		s->left = (uint16_t)(mem_get(s, (uint16_t)(s->crda + 2)) |
				     mem_get(s, (uint16_t)(s->crda + 3)) << 8);
	}
	if (!s->left)
		remote_done(s);
}

static void remote_advance(struct ne2000 *s, unsigned bytes)
{
	/* The address goes round the receive ring ("Remote DMA", wrap at PSTOP). */
	for (unsigned n = 0; n < bytes; n++) {
		s->crda++;
		if (s->crda == s->pstop * PAGE)
			s->crda = (uint16_t)(s->pstart * PAGE);
	}
	s->rsar = s->crda;
	s->left = s->left > bytes ? (uint16_t)(s->left - bytes) : 0;
	s->rbcr = s->left;
	if (!s->left)
		remote_done(s);
}

static unsigned data_read(struct ne2000 *s)
{
	bool words = s->dcr & DCR_WTS;
	unsigned op = remote_op(s), value;
	if ((op != RD_READ && op != RD_SEND) || !s->left)
		return words ? 0xFFFF : 0xFF;
	if (!words) {
		value = mem_get(s, s->crda);
		remote_advance(s, 1);
		return value;
	}
	/* The address bus has no bit 0 in word mode. */
	uint16_t addr = s->crda & 0xFFFE;
	value = mem_get(s, addr) | (unsigned)mem_get(s, addr + 1) << 8;
	remote_advance(s, 2);
	return value;
}

static void data_write(struct ne2000 *s, unsigned value)
{
	if (remote_op(s) != RD_WRITE || !s->left)
		return;
	if (!(s->dcr & DCR_WTS)) {
		mem_put(s, s->crda, (uint8_t)value);
		remote_advance(s, 1);
		return;
	}
	uint16_t addr = s->crda & 0xFFFE;
	mem_put(s, addr, (uint8_t)value);
	mem_put(s, addr + 1, (uint8_t)(value >> 8));
	remote_advance(s, 2);
}

/* ---- Registers ---- */

/* "Power on and reset": what the table there says is changed, the rest stays. */
static void chip_reset(struct ne2000 *s)
{
	s->cr = CR_RD2 | CR_STP;
	s->isr = ISR_RST;
	s->imr = 0;
	s->dcr |= DCR_LAS;
	s->tcr &= (uint8_t)~TCR_LB_MASK;
	s->left = 0;
	update_irq(s);
}

static void write_cr(struct ne2000 *s, uint8_t value)
{
	/* TXP cannot be cleared by the host; it falls by itself when the frame is out. */
	s->cr = (uint8_t)((value & ~CR_TXP) | (s->cr & CR_TXP));
	if (value & CR_STP) {
		s->isr |= ISR_RST;
	} else if (value & CR_STA) {
		s->isr &= (uint8_t)~ISR_RST;
		receiver_ready(s);
	}
	if (value & CR_RD2)
		s->left = 0;
	else if (value & CR_RD_MASK)
		remote_start(s);
	if ((value & CR_TXP) && running(s))
		transmit(s);
	update_irq(s);
}

static uint8_t read_page0(struct ne2000 *s, unsigned reg)
{
	uint8_t value;
	switch (reg) {
	case 0x01: return (uint8_t)s->clda;
	case 0x02: return (uint8_t)(s->clda >> 8);
	case 0x03: return s->bnry;
	case 0x04: return s->tsr;
	case 0x05: return s->ncr;
	case 0x06:
		value = s->fifo[s->fifo_pos % NE2000_FIFO];
		s->fifo_pos = (s->fifo_pos + 1) % NE2000_FIFO;
		return value;
	case 0x07: s->unseen = false; return s->isr;
	case 0x08: return (uint8_t)s->crda;
	case 0x09: return (uint8_t)(s->crda >> 8);
	case 0x0A: return s->realtek ? RTL_ID0 : 0xFF;
	case 0x0B: return s->realtek ? RTL_ID1 : 0xFF;
	case 0x0C: return s->rsr;
	default: /* 0D..0F: reading a tally clears it */
		value = s->cntr[reg - 0x0D];
		s->cntr[reg - 0x0D] = 0;
		return value;
	}
}

static uint8_t read_page2(const struct ne2000 *s, unsigned reg)
{
	switch (reg) {
	case 0x01: return s->pstart;
	case 0x02: return s->pstop;
	case 0x04: return s->tpsr;
	case 0x0C: return s->rcr;
	case 0x0D: return s->tcr;
	case 0x0E: return s->dcr;
	case 0x0F: return s->imr;
	default: return 0xFF;
	}
}

static uint8_t read_page3(const struct ne2000 *s, unsigned reg)
{
	if (!s->realtek)
		return 0xFF;
	switch (reg) {
	case 0x05: return RTL_CONFIG2;
	case 0x06: return RTL_CONFIG3_FUDUP;
	case 0x0E: return RTL_8029ID0;
	case 0x0F: return RTL_8029ID1;
	default: return 0;
	}
}

static uint8_t reg_read(struct ne2000 *s, unsigned reg)
{
	if (reg == 0)
		return s->cr;
	switch (s->cr >> CR_PAGE_SHIFT) {
	case 0: return read_page0(s, reg);
	case 1:
		if (reg < 0x07)
			return s->par[reg - 1];
		if (reg > 0x07)
			return s->mar[reg - 0x08];
		s->unseen = false;
		return s->curr;
	case 2: return read_page2(s, reg);
	default: return read_page3(s, reg);
	}
}

static void write_page0(struct ne2000 *s, unsigned reg, uint8_t value)
{
	switch (reg) {
	case 0x01: s->pstart = value; break;
	case 0x02: s->pstop = value; break;
	case 0x03:
		s->bnry = value;
		receiver_ready(s);
		break;
	case 0x04: s->tpsr = value; break;
	case 0x05: s->tbcr = (uint16_t)((s->tbcr & 0xFF00) | value); break;
	case 0x06: s->tbcr = (uint16_t)((s->tbcr & 0x00FF) | value << 8); break;
	case 0x07:
		s->isr &= (uint8_t) ~(value & ~ISR_RST);
		/*
		 * Drivers look at CURR a last time and then clear PRX. Frames come in bursts here,
		 * between any two accesses, so that one in that gap would often wait for the
		 * next to be noticed; it counts as having come after the write.
		 */
		if (s->unseen)
			s->isr |= ISR_PRX;
		break;
	case 0x08: s->rsar = (uint16_t)((s->rsar & 0xFF00) | value); break;
	case 0x09: s->rsar = (uint16_t)((s->rsar & 0x00FF) | value << 8); break;
	case 0x0A: s->rbcr = (uint16_t)((s->rbcr & 0xFF00) | value); break;
	case 0x0B: s->rbcr = (uint16_t)((s->rbcr & 0x00FF) | value << 8); break;
	case 0x0C:
		s->rcr = value & RCR_MASK;
		receiver_ready(s);
		break;
	case 0x0D:
		s->tcr = value & TCR_MASK;
		receiver_ready(s);
		break;
	case 0x0E: s->dcr = value & DCR_MASK; break;
	case 0x0F: s->imr = value & IMR_MASK; break;
	}
	update_irq(s);
}

static void reg_write(struct ne2000 *s, unsigned reg, uint8_t value)
{
	if (reg == 0) {
		write_cr(s, value);
		return;
	}
	switch (s->cr >> CR_PAGE_SHIFT) {
	case 0: write_page0(s, reg, value); break;
	case 1:
		if (reg < 0x07)
			s->par[reg - 1] = value;
		else if (reg == 0x07)
			s->curr = value;
		else
			s->mar[reg - 0x08] = value;
		break;
	default: break; /* page 2 is for factory tests, page 3 for the EEPROM */
	}
}

/* ---- Ports ---- */

static uint32_t port_read(struct ne2000 *s, unsigned reg)
{
	if (reg >= REG_RESET) {
		chip_reset(s);
		return 0;
	}
	return reg >= REG_DATA ? data_read(s) & 0xFF : reg_read(s, reg);
}

static void port_write(struct ne2000 *s, unsigned reg, uint8_t value)
{
	if (reg < REG_DATA)
		reg_write(s, reg, value);
	else if (reg < REG_RESET)
		data_write(s, value);
}

static bool is_word(const struct ne2000 *s, unsigned reg, unsigned size)
{
	return size == 2 && (s->dcr & DCR_WTS) && reg >= REG_DATA && reg < REG_RESET;
}

/* In byte mode the card does not claim a word access, and the bus makes two of it. */
static uint32_t ne2000_read(void *opaque, uint16_t port, unsigned size)
{
	struct ne2000 *s = opaque;
	unsigned reg = port & REGS_MASK;
	if (is_word(s, reg, size))
		return data_read(s);
	uint32_t value = port_read(s, reg);
	if (size == 2)
		value |= port_read(s, (reg + 1) & REGS_MASK) << 8;
	return value;
}

static void ne2000_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
	struct ne2000 *s = opaque;
	unsigned reg = port & REGS_MASK;
	if (is_word(s, reg, size)) {
		data_write(s, value);
		return;
	}
	port_write(s, reg, (uint8_t)value);
	if (size == 2)
		port_write(s, (reg + 1) & REGS_MASK, (uint8_t)(value >> 8));
}

static size_t ne2000_read_block(void *opaque, uint16_t port, unsigned size, void *buf, size_t items)
{
	uint8_t *out = buf;
	for (size_t n = 0; n < items; n++)
		store_le(out + n * size, ne2000_read(opaque, port, size), size);
	return items;
}

static size_t ne2000_write_block(void *opaque, uint16_t port, unsigned size, const void *buf,
				 size_t items)
{
	const uint8_t *in = buf;
	for (size_t n = 0; n < items; n++)
		ne2000_write(opaque, port, size, (uint32_t)load_le(in + n * size, size));
	return items;
}

const struct io_ops ne2000_io_ops = {
	.read = ne2000_read,
	.write = ne2000_write,
	.read_block = ne2000_read_block,
	.write_block = ne2000_write_block,
	.sizes = 1 | 2,
};

/* ---- The outside ---- */

static void ne2000_describe(void *opaque, struct strbuf *out)
{
	const struct ne2000 *s = opaque;
	strbuf_printf(out, "type=nic,model=%s,macaddr=%02x:%02x:%02x:%02x:%02x:%02x",
		      net_port_model(s->port), s->mac[0], s->mac[1], s->mac[2], s->mac[3],
		      s->mac[4], s->mac[5]);
}

static void ne2000_announce(void *opaque)
{
	const struct ne2000 *s = opaque;
	net_send_announcement(s->port, s->mac);
}

const struct net_port_ops ne2000_port_ops = {
	.receive = ne2000_receive,
	.announce = ne2000_announce,
	.describe = ne2000_describe,
};

void ne2000_power_on(struct ne2000 *s)
{
	chip_reset(s);
	memcpy(s->par, s->mac, sizeof(s->par));
	net_drop_backlog(s->port);
	receiver_ready(s);
}

static void ne2000_reset(void *opaque)
{
	ne2000_power_on(opaque);
}

static int ne2000_post_load(void *opaque, unsigned version, struct error *err)
{
	struct ne2000 *s = opaque;
	s->isr &= ISR_RST | IMR_MASK;
	s->imr &= IMR_MASK;
	s->dcr &= DCR_MASK;
	s->tcr &= TCR_MASK;
	s->rcr &= RCR_MASK;
	s->cr &= (uint8_t)~CR_TXP;
	s->fifo_pos %= NE2000_FIFO;
	update_irq(s);
	receiver_ready(s);
	return 0;
}

const struct state_desc ne2000_desc = {
	.name = "ne2000",
	.version = 1,
	.fields = ne2000_fields,
	.reset = ne2000_reset,
	.post_load = ne2000_post_load,
};
