/* SPDX-License-Identifier: MIT */
/* What QMP's query-* commands answer, in QEMU's schema. Each returns a new object. Lock held. */
#ifndef VMM_QUERY_H
#define VMM_QUERY_H

struct json_object;
struct error;
struct machine;

struct json_object *query_version(void);
struct json_object *query_status(struct machine *m);
struct json_object *query_name(struct machine *m);
struct json_object *query_uuid(struct machine *m);
struct json_object *query_kvm(struct machine *m);
/* NULL if the engine translates nothing. */
struct json_object *query_jit(struct machine *m);
struct json_object *query_block(struct machine *m);
struct json_object *query_chardev(struct machine *m);
/* The receive filters of all cards, or of the one with this id; NULL with an error. */
struct json_object *query_rx_filter(struct machine *m, const char *name, struct error *err);
struct json_object *query_cpus(struct machine *m);

#endif
