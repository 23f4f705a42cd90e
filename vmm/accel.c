/* SPDX-License-Identifier: MIT */
/*
 * The choice of the engine. KVM that is present but cannot run a PC (see kvm_probe.c) is passed
 * over when the user did not insist; who asks for it by name gets it, with a warning, since small
 * guests do run there.
 */
#include "vmm/accel.h"
#include "lib/text.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const accel_names[] = {"kvm", "soft", "tcg", NULL};

int accel_add(struct options *o, const char *name, struct error *err)
{
	if (!strcmp(name, "tcg"))
		name = "soft";
	if (strcmp(name, "kvm") && strcmp(name, "soft")) {
		const char *near = nearest_word(name, accel_names);
		return error_set(err, EINVAL, "-accel %s: unknown accelerator; %s%s%s", name,
				 near ? "did you mean '" : "there are kvm and soft",
				 near ? near : "", near ? "'?" : "");
	}
	arg_list_add(&o->accel, xstrdup(name));
	return 0;
}

void accel_help(void)
{
	char reason[256] = "";
	enum kvm_verdict verdict = kvm_probe(reason);
	static const char *const verdicts[] = {
		[KVM_ABSENT] = "not available",
		[KVM_CANNOT_RUN_PC] = "present, but cannot run a PC",
		[KVM_USABLE] = "usable",
	};
	printf("kvm    the kernel's virtual machines: %s: %s\n", verdicts[verdict], reason);
	printf("soft   the software CPU (also called tcg): usable; %s\n",
	       soft_can_translate() ? "it translates to x86-64 (jit=off: it interprets)"
				    : "it interprets, as this host's CPU has no BMI2");
	printf("Without -accel: %s\n", verdict == KVM_USABLE ? "kvm" : "soft");
}

static struct engine *create_named(const char *name, const struct options *o,
				   const struct engine_config *config, struct strbuf *notes,
				   struct error *err)
{
	if (!strcmp(name, "soft"))
		return engine_new_soft(config, &o->soft, err);
	if (o->soft.perf_map) {
		error_set(
			err, ENOTSUP,
			"-perfmap names translated code, and KVM translates none; use -accel soft");
		return NULL;
	}
	if (kvm_check_access(err) < 0)
		return NULL;
	char reason[256] = "";
	if (kvm_probe(reason) == KVM_CANNOT_RUN_PC)
		strbuf_printf(
			notes,
			"warning: this host's KVM cannot run a PC (%s); only small guests will "
			"work, use -accel soft\n",
			reason);
	return engine_new_kvm(config, err);
}

static struct engine *create_from_list(const struct options *o, const struct engine_config *config,
				       struct strbuf *notes, struct error *err)
{
	for (size_t n = 0; n < o->accel.count; n++) {
		*err = ERROR_INIT;
		struct engine *e = create_named(o->accel.item[n], o, config, notes, err);
		if (e)
			return e;
		if (n + 1 < o->accel.count)
			strbuf_printf(notes, "warning: %s; trying %s\n", err->text,
				      o->accel.item[n + 1]);
	}
	return NULL;
}

struct engine *accel_create(const struct options *o, const struct engine_config *config,
			    struct strbuf *notes, struct error *err)
{
	if (o->accel.count)
		return create_from_list(o, config, notes, err);
	char reason[256] = "";
	if (kvm_probe(reason) == KVM_USABLE) {
		struct engine *e = engine_new_kvm(config, err);
		if (e)
			return e;
		snprintf(reason, sizeof(reason), "%.255s", err->text);
		*err = ERROR_INIT;
	}
	strbuf_printf(notes, "using the software CPU: %s\n", reason);
	return engine_new_soft(config, &o->soft, err);
}
