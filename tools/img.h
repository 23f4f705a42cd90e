/* SPDX-License-Identifier: MIT */
/* minivm-img: one function a command. Command lines, output and exit codes are qemu-img's. */
#ifndef TOOLS_IMG_H
#define TOOLS_IMG_H

#include "lib/error.h"
#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image;
struct image_info;

/* argv[0] is the command's name. Returns the exit code. */
int img_amend(int argc, char **argv);
int img_bench(int argc, char **argv);
int img_bitmap(int argc, char **argv);
int img_check(int argc, char **argv);
int img_commit(int argc, char **argv);
int img_compare(int argc, char **argv);
int img_convert(int argc, char **argv);
int img_create(int argc, char **argv);
int img_dd(int argc, char **argv);
int img_info(int argc, char **argv);
int img_map(int argc, char **argv);
int img_measure(int argc, char **argv);
int img_rebase(int argc, char **argv);
int img_resize(int argc, char **argv);
int img_snapshot(int argc, char **argv);

/* Long options that every command takes; put them first into its table. --object and --image-opts
 * need no value of their own in the commands: see img_open(). */
enum { OPT_OUTPUT = 256, OPT_IMAGE_OPTS, OPT_FIRST_OWN };

/* getopt_long() that explains a wrong option, with the nearest one; returns '?' after it did. -h
 * and --help print the command's line and return 'h'. */
int img_getopt(int argc, char **argv, const char *shorts, const struct option *longs);
/* Prints the sentence and returns 1. */
int img_fail(const struct error *err);
/* "minivm-img: " and the formatted text, then how to get help; returns 1. */
int img_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The table of `info` and `snapshot -l`. */
void img_print_snapshots(const struct image_info *info);
/* Parses --output: 1 for json, 0 for human, -1 after saying what is wrong. */
int img_output(const char *text);

/* Whether -o asks which options there are; and the answer: 0, or 1 after saying what is wrong.
 * `with_file`: those of the host's files, too. `amend`: those that can be changed. */
bool img_wants_option_help(const char *text);
int img_option_help(const char *format, bool with_file, bool amend);

/* Opens `name`; with image_opts it is an option string such as driver=qcow2,file.filename=x. */
struct image *img_open(const char *name, const char *format, bool image_opts, unsigned flags,
		       struct error *err);
/* The flags of a cache mode (-t, -T); false after saying what is wrong. NULL: `otherwise`. */
bool img_cache_flags(const char *mode, const char *otherwise, unsigned *flags);
/* First byte at which they differ; len if none. */
size_t img_differ(const uint8_t *a, const uint8_t *b, size_t len);
/* Shows "    (12.34/100%)" on the terminal's line while `shown` is set. */
void img_progress(bool shown, uint64_t done, uint64_t total);
/* The final 100 % and the end of the line. */
void img_progress_end(bool shown);
#ifdef HAVE_JSONC
struct json_object;
/* Prints it with qemu-img's indentation and lets go of it. */
void img_print_json(struct json_object *o);
#endif
/* convert --bitmaps, before anything is copied: are there bitmaps on both sides, and are they sound? 0, or
 * -errno with what is wrong. */
int img_bitmaps_check(struct image *from, struct image *to, bool skip_broken, struct error *err);
/* The same after the contents, whose writing marked nothing in them: copies the bitmaps. */
int img_bitmaps_copy(struct image *from, struct image *to, struct error *err);
/* Keeps the rate: call it after each transfer; rate 0 means no limit. */
struct img_rate {
	uint64_t bytes_per_second, done, start_ns;
};
void img_rate_wait(struct img_rate *rate, uint64_t bytes);

#endif
