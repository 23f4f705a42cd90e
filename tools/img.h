/* SPDX-License-Identifier: MIT */
/* minivm-img: one function a command. Command lines, output and exit codes are qemu-img's. */
#ifndef TOOLS_IMG_H
#define TOOLS_IMG_H

#include "lib/error.h"
#include <getopt.h>

struct image_info;

/* argv[0] is the command's name. Returns the exit code. */
int img_create(int argc, char **argv);
int img_info(int argc, char **argv);
int img_check(int argc, char **argv);
int img_snapshot(int argc, char **argv);
int img_resize(int argc, char **argv);
int img_convert(int argc, char **argv);
int img_compare(int argc, char **argv);

/* getopt_long() that explains a wrong option, with the nearest one; returns '?' after it did. */
int img_getopt(int argc, char **argv, const char *shorts, const struct option *longs);
/* Prints the sentence and returns 1. */
int img_fail(const struct error *err);
/* "minivm-img: " and the formatted text, then how to get help; returns 1. */
int img_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The table of `info` and `snapshot -l`. */
void img_print_snapshots(const struct image_info *info);
/* Parses --output: 1 for json, 0 for human, -1 after saying what is wrong. */
int img_output(const char *text);

#endif
