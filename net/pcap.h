/* SPDX-License-Identifier: MIT */
/* The frames of a port in a file that tcpdump and Wireshark read. */
#ifndef NET_PCAP_H
#define NET_PCAP_H

#include "net/net.h"

enum { PCAP_MAXLEN = 65536, PCAP_MAXLEN_MAX = 1 << 20 };

struct pcap_dump;

/* Which frames: both directions, or what the port receives or sends. */
enum pcap_frames { PCAP_ALL, PCAP_RECEIVED, PCAP_SENT };

/* Creates (or empties) the file and starts writing what passes the port, at most `maxlen` bytes
 * of each frame. `id` is copied. */
struct pcap_dump *pcap_dump_new(struct net_port *port, const char *id, const char *path,
				unsigned maxlen, enum pcap_frames frames, struct error *err);
void pcap_dump_free(struct pcap_dump *dump);

#endif
