/* SPDX-License-Identifier: MIT */
/*
 * Files over datagrams, for guests:
 *
 *   netfile udp HOST PORT SIZE    sends standard input to an echo server, in datagrams of SIZE bytes,
 *                                 each behind its number (32 bits, big-endian)
 *   netfile ping HOST SIZE        sends it in ICMP echo requests with SIZE bytes of data (RFC 792)
 *
 * What comes back goes to standard output, in order. Up to WINDOW pieces are under way; what does not
 * come back in RETRY_MS is sent again. Says on standard error how often that was, or what is wrong.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WINDOW = 8, RETRY_MS = 3000, RETRIES_MAX = 100, FILE_MAX = 1 << 20, PACKET_MAX = 65536 };

struct piece {
	int64_t sent_ms; /* 0: not yet */
	int done;
};

static uint8_t file[FILE_MAX], back[FILE_MAX];
static struct piece piece[FILE_MAX];
static size_t size, total;
static unsigned pieces;
static int fd, is_ping;

static void fail(const char *what)
{
	fprintf(stderr, "netfile: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + 1;
}

static size_t length_of(unsigned n)
{
	return n + 1 < pieces ? size : total - (size_t)n * size;
}

/* RFC 1071. */
static uint16_t checksum(const uint8_t *data, size_t len)
{
	uint32_t sum = 0;
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? data[i] : (uint32_t)data[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void send_piece(unsigned n)
{
	static uint8_t packet[PACKET_MAX];
	size_t head = 4, len = length_of(n);

	if (is_ping) {
		struct icmphdr icmp = {.type = ICMP_ECHO};
		icmp.un.echo.id = htons((uint16_t)getpid());
		icmp.un.echo.sequence = htons((uint16_t)n);
		head = sizeof(icmp);
		memcpy(packet, &icmp, head);
		memcpy(packet + head, file + (size_t)n * size, len);
		icmp.checksum = checksum(packet, head + len);
		memcpy(packet, &icmp, head);
	} else {
		uint32_t number = htonl(n);
		memcpy(packet, &number, head);
		memcpy(packet + head, file + (size_t)n * size, len);
	}
	piece[n].sent_ms = now_ms();
	/* A full buffer and a host that is not found yet are loss. */
	if (send(fd, packet, head + len, 0) < 0 && errno != ENOBUFS && errno != EAGAIN &&
	    errno != EHOSTUNREACH)
		fail("send");
}

/* The piece that a packet carries, and its data; -1: none of ours. */
static int piece_of(const uint8_t *packet, size_t len, const uint8_t **data, size_t *data_len)
{
	struct icmphdr icmp;
	uint32_t number;

	if (!is_ping) {
		if (len < sizeof(number))
			return -1;
		memcpy(&number, packet, sizeof(number));
		*data = packet + sizeof(number);
		*data_len = len - sizeof(number);
		return (int)ntohl(number);
	}
	size_t ip = (packet[0] & 15) * 4u;
	if (len < ip + sizeof(icmp))
		return -1;
	memcpy(&icmp, packet + ip, sizeof(icmp));
	if (icmp.type != ICMP_ECHOREPLY || icmp.un.echo.id != htons((uint16_t)getpid()))
		return -1;
	*data = packet + ip + sizeof(icmp);
	*data_len = len - ip - sizeof(icmp);
	return ntohs(icmp.un.echo.sequence);
}

static int receive_piece(void)
{
	static uint8_t packet[PACKET_MAX];
	const uint8_t *data;
	size_t data_len;
	ssize_t len = recv(fd, packet, sizeof(packet), 0);

	if (len < 0)
		return 0; /* an ICMP error for an earlier one: it will be sent again */
	int n = piece_of(packet, (size_t)len, &data, &data_len);
	if (n < 0 || (unsigned)n >= pieces || piece[n].done)
		return 0;
	if (data_len != length_of((unsigned)n)) {
		errno = EMSGSIZE;
		fail("a piece came back with another length");
	}
	memcpy(back + (size_t)n * size, data, data_len);
	piece[n].done = 1;
	return 1;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	unsigned retries = 0, first = 0, left;
	size_t got;

	is_ping = argc == 4 && !strcmp(argv[1], "ping");
	if (!is_ping && (argc != 5 || strcmp(argv[1], "udp"))) {
		fprintf(stderr, "usage: netfile udp HOST PORT SIZE | ping HOST SIZE\n");
		return 2;
	}
	size = (size_t)atoi(argv[argc - 1]);
	while (total < FILE_MAX && (got = fread(file + total, 1, FILE_MAX - total, stdin)))
		total += got;
	if (!total || !size || size > PACKET_MAX - 100)
		fail("nothing to send");
	left = pieces = (unsigned)((total + size - 1) / size);
	fd = is_ping ? socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) : socket(AF_INET, SOCK_DGRAM, 0);
	to.sin_port = is_ping ? 0 : htons((uint16_t)atoi(argv[3]));
	inet_pton(AF_INET, argv[2], &to.sin_addr);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		fail("connect");
	while (left) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		while (piece[first].done)
			first++;
		/* The first goes alone: it finds the other end's address, and begins the file there. */
		for (unsigned n = first; n < pieces && n < first + (first ? WINDOW : 1); n++) {
			if (piece[n].done ||
			    (piece[n].sent_ms && now_ms() - piece[n].sent_ms < RETRY_MS))
				continue;
			if (piece[n].sent_ms && retries++ == RETRIES_MAX) {
				errno = ETIMEDOUT;
				fail("too many pieces are lost");
			}
			send_piece(n);
		}
		if (poll(&p, 1, RETRY_MS / 4) > 0)
			left -= (unsigned)receive_piece();
	}
	fwrite(back, 1, total, stdout);
	fprintf(stderr, "%u pieces, %u sent again\n", pieces, retries);
	return fflush(stdout) ? 1 : 0;
}
