/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the input is a qcow2 file. It is opened, read, checked, repaired, and written to.
 * With clang: -fsanitize=fuzzer,address (run it with -close_fd_mask=2: checks are talkative). With
 * -DREPLAY it is a program that runs the files named on its command line.
 */
#include "block/image.h"
#include "lib/text.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(struct image *img)
{
	static uint8_t buf[70000];
	uint64_t total = image_size(img);
	for (int i = 0; i < 8; i++) {
		/* spread over the disk, odd lengths */
		uint64_t at = total / 8 * (unsigned)i, len = sizeof(buf) - (unsigned)i * 77;
		uint64_t count;
		if (len > total - at)
			len = total - at;
		image_pread(img, buf, len, at);
		image_block_status(img, at, len, &count, NULL);
		if (!image_writable(img))
			continue;
		if (i % 4 == 0)
			image_discard(img, at, len);
		else if (i % 4 == 1)
			image_write_zeroes(img, at, len, true);
		else
			image_pwrite(img, buf, len, at);
	}
	image_flush(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char path[] = "/tmp/minivm-fuzz-XXXXXX";
	static int fd = -1;
	static const unsigned modes[] = {
		IMAGE_CHECK | IMAGE_WRITABLE | IMAGE_NO_BACKING | IMAGE_NO_FLUSH | IMAGE_NO_LOCK,
		IMAGE_NO_BACKING | IMAGE_NO_LOCK,
		IMAGE_WRITABLE | IMAGE_DISCARD | IMAGE_NO_BACKING | IMAGE_NO_FLUSH | IMAGE_NO_LOCK,
	};
	if (fd < 0)
		fd = mkstemp(path);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		struct error err = ERROR_INIT;
		if (ftruncate(fd, 0) < 0 || pwrite_full(fd, data, size, 0))
			return 0;
		struct image *img = image_open(path, "qcow2", modes[i], NULL, &err);
		if (!img)
			continue;
		struct image_info info;
		image_get_info(img, &info);
		image_info_free(&info);
		if (modes[i] & IMAGE_CHECK) {
			struct image_check r;
			image_run_check(img, 0, &r, NULL);
			image_run_check(img, IMAGE_FIX_LEAKS | IMAGE_FIX_ERRORS, &r, NULL);
		}
		use(img);
		image_close(img);
	}
	return 0;
}

#ifdef REPLAY
int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		size_t len;
		struct error err = ERROR_INIT;
		uint8_t *data = read_file(argv[i], 64 << 20, &len, &err);
		if (!data) {
			fprintf(stderr, "%s\n", err.text);
			return 1;
		}
		LLVMFuzzerTestOneInput(data, len);
		free(data);
	}
	return 0;
}
#endif
