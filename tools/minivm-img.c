/* SPDX-License-Identifier: MIT */
/* minivm-img: makes and examines disk images. All real work is in block/. */
#include "block/image.h"
#include "lib/bytes.h"
#include "lib/log.h"
#include "lib/object.h"
#include "lib/secret.h"
#include "lib/strbuf.h"
#include "lib/text.h"
#include "lib/tls.h"
#include "tools/img.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *syntax, *help;
} commands[] = {
	{"amend", img_amend, "[-p] [-q] [-f fmt] [-t cache] [--image-opts] -o options filename",
	 "changes options of an existing image"},
	{"bench", img_bench,
	 "[-c count] [-d depth] [-f fmt] [--flush-interval=n] [-i aio] [-n] [--no-drain] "
	 "[-o offset] "
	 "[--pattern=n] [-q] [-s size] [-S step] [-t cache] [-w] [-U] [--image-opts] filename",
	 "measures how fast an image is read or written"},
	{"bitmap", img_bitmap,
	 "(--merge source | --add | --remove | --clear | --enable | --disable)... "
	 "[-b source_file [-F fmt]] [-g granularity] [-f fmt] [--image-opts] filename bitmap",
	 "changes the dirty bitmaps of an image"},
	{"check", img_check,
	 "[-q] [-f fmt] [--output=human|json] [-r leaks|all] [-T cache] [-U] [--image-opts] "
	 "filename",
	 "looks for errors in an image and repairs them"},
	{"commit", img_commit,
	 "[-q] [-f fmt] [-t cache] [-b base] [-r rate] [-d] [-p] [--image-opts] filename",
	 "writes an overlay's changes into its backing file"},
	{"compare", img_compare,
	 "[-f fmt] [-F fmt] [-T cache] [-p] [-q] [-s] [-U] [--image-opts] filename1 filename2",
	 "tells whether two images have the same contents"},
	{"convert", img_convert,
	 "[-U] [-C] [-c] [-p] [-q] [-n] [--target-is-zero] [--bitmaps [--skip-broken-bitmaps]] [-f "
	 "fmt] [-t cache] [-T cache] "
	 "[-O fmt] [-B backing_file -F backing_fmt] [-o options] [-l snapshot] [-S size] [-r rate] "
	 "[-m threads] [-W] [--salvage] [--image-opts] [--target-image-opts] filename [...] "
	 "output_filename",
	 "copies images into another one, of another format"},
	{"create", img_create,
	 "[-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]",
	 "makes a new image"},
	{"dd", img_dd,
	 "[--image-opts] [-U] [-f fmt] [-O fmt] [bs=size] [count=blocks] [skip=blocks] if=input "
	 "of=output",
	 "copies a part of an image"},
	{"info", img_info,
	 "[-f fmt] [--output=human|json] [--backing-chain] [-U] [--image-opts] filename",
	 "tells about an image"},
	{"map", img_map,
	 "[-f fmt] [--start-offset=n] [--max-length=n] [--output=human|json] [-U] [--image-opts] "
	 "filename",
	 "lists which parts of a disk hold data, and where"},
	{"measure", img_measure,
	 "[--output=human|json] [-O fmt] [-o options] [--size n | [-f fmt] [-l snapshot] "
	 "[--image-opts] filename]",
	 "tells how large a new image would be"},
	{"rebase", img_rebase,
	 "[-U] [-q] [-f fmt] [-t cache] [-T cache] [-p] [-u] [--image-opts] -b backing_file "
	 "[-F backing_fmt] filename",
	 "gives an overlay another backing file"},
	{"resize", img_resize,
	 "[-q] [-f fmt] [--preallocation=mode] [--shrink] [--image-opts] filename [+|-]size",
	 "changes the size of the disk"},
	{"snapshot", img_snapshot,
	 "[-q] [-f fmt] [-U] [--image-opts] [-l | -a name | -c name | -d name] filename",
	 "lists, applies, creates or deletes internal snapshots"},
};

/* The command's line, for its -h. */
static void command_help(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(commands[i].name, name) == 0)
			printf("minivm-img %s %s\n", name, commands[i].syntax);
}

static void help(void)
{
	printf("minivm-img version %s\n"
	       "usage: minivm-img [-h | -V] command [options]\n"
	       "Makes and examines disk images.\n\n"
	       "Commands:\n",
	       MINIVM_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		printf("  %s %s\n      %s\n", commands[i].name, commands[i].syntax,
		       commands[i].help);
	printf("\nOptions:\n"
	       "  --object type,id=id,...  an object that others name by its id, such as TLS\n"
	       "      credentials; --object help lists the types\n"
	       "  -f fmt, -O fmt  format of the image and of the output; guessed if not given\n"
	       "  -o options      a list such as cluster_size=64k,compat=1.1; '-o help' lists "
	       "them\n"
	       "  -q              prints nothing but errors\n"
	       "  -p              shows the progress\n"
	       "  -t, -T cache    cache mode of the image written and of the one read: none,\n"
	       "                  writeback, writethrough, directsync or unsafe (convert's -t\n"
	       "                  unless given)\n"
	       "  -U              reads an image that another program has open for writing\n"
	       "  size            bytes, or with a suffix k, M, G, T, P or E\n\n"
	       "Exit codes of check: 0 sound, 1 not done, 2 damaged, 3 leaked clusters, 63 the\n"
	       "format has no check. Of compare: 0 same, 1 different, 2 and above not done.\n\n"
	       "Formats:");
	for (const char *const *f = image_formats(); *f; f++)
		printf(" %s", *f);
	printf("\n");
}

int img_fail(const struct error *err)
{
	if (err->text[0]) /* else it is told already */
		report("%s", err->text);
	return 1;
}

int img_usage(const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	strbuf_vprintf(&sb, fmt, ap);
	va_end(ap);
	report("%s; 'minivm-img --help' tells more", strbuf_str(&sb));
	strbuf_free(&sb);
	return 1;
}

int img_getopt(int argc, char **argv, const char *shorts, const struct option *longs)
{
	opterr = 0;
	int at = optind;
	int c = getopt_long(argc, argv, shorts, longs, NULL);
	if (c == ':') {
		img_usage("%s: '%s' needs a value", argv[0], argv[optind - 1]);
		return '?';
	}
	if (c == 'h')
		command_help(argv[0]);
	if (c != '?')
		return c;
	const char *given = argv[optind - 1];
	if (optopt && optopt < 256) {
		img_usage("%s: unknown option '-%c'", argv[0], optopt);
		return '?';
	}
	if (optind == at)
		given = argv[at];
	char word[64];
	snprintf(word, sizeof(word), "%.60s",
		 given[0] == '-' && given[1] == '-' ? given + 2 : given);
	word[strcspn(word, "=")] = '\0';
	const char *names[32];
	size_t n = 0;
	for (const struct option *o = longs; o->name && n < ARRAY_SIZE(names) - 1; o++)
		names[n++] = o->name;
	names[n] = NULL;
	const char *near = nearest_word(word, names);
	if (near)
		img_usage("%s: unknown option '%s', did you mean '--%s'?", argv[0], given, near);
	else
		img_usage("%s: unknown option '%s'", argv[0], given);
	return '?';
}

int img_output(const char *text)
{
	if (strcmp(text, "human") == 0)
		return 0;
	if (strcmp(text, "json") != 0) {
		img_usage("--output must be 'human' or 'json', not '%s'", text);
		return -1;
	}
#ifdef HAVE_JSONC
	return 1;
#else
	report("--output=json is not in this build: it was made without json-c");
	return -1;
#endif
}

/* Makes the objects of --object, which every command takes, and removes them from argv. -1 after
 * saying what is wrong, 1 after printing the list of types. */
static int take_objects(int *argc, char **argv)
{
	static const struct object_type *const types[] = {
		&secret_type, &tls_creds_x509_type, &tls_creds_psk_type, &tls_creds_anon_type, NULL,
	};
	struct error err = ERROR_INIT;
	int kept = 1;
	object_set_types(types);
	for (int i = 1; i < *argc; i++) {
		const char *value = NULL;
		if (strcmp(argv[i], "--object") == 0 && i + 1 < *argc)
			value = argv[++i];
		else if (strncmp(argv[i], "--object=", 9) == 0)
			value = argv[i] + 9;
		if (!value) {
			argv[kept++] = argv[i];
			continue;
		}
		if (strcmp(value, "help") == 0) {
			object_print_help();
			return 1;
		}
		if (object_add(NULL, value, &err) < 0) {
			error_prefix(&err, "--object %s", value);
			img_fail(&err);
			return -1;
		}
	}
	*argc = kept;
	argv[kept] = NULL;
	return 0;
}

int main(int argc, char **argv)
{
	log_set_program("minivm-img");
	int objects = take_objects(&argc, argv);
	if (objects)
		return objects < 0;
	if (argc < 2)
		return img_usage("a command is missing");
	const char *name = argv[1];
	if (strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0) {
		help();
		return 0;
	}
	if (strcmp(name, "-V") == 0 || strcmp(name, "--version") == 0) {
		printf("minivm-img version %s\n", MINIVM_VERSION);
		return 0;
	}
	const char *names[ARRAY_SIZE(commands) + 1] = {NULL};
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		names[i] = commands[i].name;
		if (strcmp(name, names[i]) == 0)
			return commands[i].run(argc - 1, argv + 1);
	}
	const char *near = nearest_word(name, names);
	if (near)
		return img_usage("unknown command '%s', did you mean '%s'?", name, near);
	return img_usage("unknown command '%s'", name);
}
