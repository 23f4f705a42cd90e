/* SPDX-License-Identifier: MIT */
/* The host's time (clock.h). Apart from the virtual clock, which tests replace by one of their
 * own. */
#include "lib/clock.h"
#include <time.h>

uint64_t host_clock_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}
