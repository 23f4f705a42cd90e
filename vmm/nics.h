/* SPDX-License-Identifier: MIT */
/*
 * Networks of the command line: backends (-netdev), cards (-device, -nic, -net nic) and what joins
 * them. All functions need the machine lock.
 */
#ifndef VMM_NICS_H
#define VMM_NICS_H

#include "lib/error.h"
#include "lib/optstr.h"
#include "lib/strbuf.h"
#include "net/net.h"

struct machine;
struct options;
struct pci_device_type;

/* The backends: -netdev, and those of -net and -nic. Before devices and filters are made. */
int nics_open_backends(struct machine *m, struct error *err);
/* The cards of -net nic and -nic, the ISA cards of -device, and the card of a machine that was
 * told nothing about networks. After the PCI cards of -device. */
int nics_build(struct machine *m, struct error *err);
/* Says what is most likely a mistake: cards and backends connected to nothing, equal addresses. Once
 * everything is made. */
void nics_warn(struct machine *m);
/* Frees ISA cards (PCI cards are gone already), then all backends. */
void nics_free(struct machine *m);

/*
 * Reads netdev= and mac= of a card's options. The card's id is `id`, or made from the driver's
 * name when that is NULL. What `out` points to lives as long as the machine.
 */
int nic_config_parse(struct machine *m, struct opts *opts, const char *driver, const char *id,
		     struct nic_config *out, struct error *err);
/* True if this -device driver is a card that nics_build() makes. */
bool nics_is_isa_card(const char *driver);
/* What -device ne2k_isa takes; NULL-terminated. */
extern const char *const nics_isa_keys[];
/* Lines of `-device help`; `model=help`. */
void nics_device_help(void);
void nics_print_models(void);

/* Reads one -netdev, -nic or -net argument for mistakes that need no machine, and prints help.
 * OPTIONS_RUN, OPTIONS_DONE or -errno. */
int nics_check_option(struct options *o, const char *option, const char *arg, struct error *err);

/* Monitor and QMP. */
void nics_info(struct machine *m, struct strbuf *out);
void nics_info_user(struct machine *m, struct strbuf *out);
/* `netdev` may be NULL: the one user network there is. */
int nics_hostfwd(struct machine *m, bool add, const char *netdev, const char *rule,
		 struct error *err);
int nics_set_link(struct machine *m, const char *name, bool up, struct error *err);
int nics_netdev_add(struct machine *m, const char *text, struct error *err);
/* The same from options that are parsed already, with the keys type and id. */
int nics_netdev_add_opts(struct machine *m, struct opts *opts, struct error *err);
int nics_netdev_del(struct machine *m, const char *id, struct error *err);

extern const struct pci_device_type ne2k_pci_type;

#endif
