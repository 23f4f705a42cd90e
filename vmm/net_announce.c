/* SPDX-License-Identifier: MIT */
#include "vmm/net_announce.h"
#include "lib/clock.h"
#include "lib/text.h"
#include "net/net.h"
#include "vmm/machine.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct announcer {
	struct machine *machine;
	struct timer timer;
	struct announcement how; /* initial: the time to the next round */
	char **name;             /* the cards; none: all */
	size_t count;
};

static void announce_one(void *opaque, struct net_port *port)
{
	const struct announcer *n = opaque;
	bool chosen = !n->count;
	for (size_t i = 0; i < n->count; i++)
		chosen = chosen || !strcmp(n->name[i], net_port_id(port));
	if (chosen && net_port_ops(port)->announce)
		net_port_ops(port)->announce(net_port_opaque(port));
}

static void forget(struct announcer *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->name[i]);
	free(n->name);
	n->name = NULL;
	n->count = 0;
}

static void announce_round(void *opaque)
{
	enum { MS = 1000000 };
	struct announcer *n = opaque;
	struct machine *m = n->machine;
	net_for_each(m->net, announce_one, n);
	if (--n->how.rounds == 0) {
		forget(n);
		return;
	}
	timer_set(&n->timer, clock_now(m->clock) + n->how.initial * MS);
	n->how.initial += n->how.step;
	if (n->how.initial > n->how.max)
		n->how.initial = n->how.max;
}

static int check(struct machine *m, const struct announcement *how, const char *const *names,
		 struct error *err)
{
	enum { MS_MAX = 100000, ROUNDS_MAX = 1000 };
	for (size_t i = 0; names && names[i]; i++)
		if (!net_find_nic(m->net, names[i]))
			return error_set(err, ENODEV, "there is no network card '%s'", names[i]);
	if (how->initial > MS_MAX || how->max > MS_MAX || how->step > MS_MAX || !how->rounds ||
	    how->rounds > ROUNDS_MAX)
		return error_set(err, EINVAL, "times must be 0 to %d ms, and rounds 1 to %d",
				 MS_MAX, ROUNDS_MAX);
	return 0;
}

int net_announce(struct machine *m, const struct announcement *how, const char *const *names,
		 struct error *err)
{
	int r = check(m, how, names, err);
	if (r < 0)
		return r;
	if (!m->announcer) {
		m->announcer = xcalloc(1, sizeof(*m->announcer));
		m->announcer->machine = m;
		timer_init(&m->announcer->timer, m->clock, announce_round, m->announcer);
	}
	struct announcer *n = m->announcer;
	timer_cancel(&n->timer);
	forget(n);
	for (size_t i = 0; names && names[i]; i++) {
		n->name = xrealloc(n->name, (i + 1) * sizeof(*n->name));
		n->name[n->count++] = xstrdup(names[i]);
	}
	n->how = *how;
	announce_round(n);
	return 0;
}

void net_announce_free(struct machine *m)
{
	if (!m->announcer)
		return;
	timer_cancel(&m->announcer->timer);
	forget(m->announcer);
	free(m->announcer);
	m->announcer = NULL;
}
