/* SPDX-License-Identifier: MIT */
/* What the NBD client makes of replies, good and bad ones, that are written down beforehand. */
#include "tests/unit/block/nbd_words.h"

enum { READ_LEN = 4096, READ_AT = 8192 };

/* The first request, a read, is answered with `words`. */
static int read_answered(struct strbuf *words, uint8_t buf[READ_LEN])
{
	struct strbuf sb = STRBUF_INIT;
	whole_handshake(&sb, true, SIZE);
	strbuf_append(&sb, strbuf_str(words), words->len);
	strbuf_free(words);
	struct nbd_client *c = must_connect(&sb, "disk");
	/* In two pieces that do not lie together. */
	struct iovec iov[] = {{buf, 1000}, {buf + 1000, READ_LEN - 1000}};
	int rc = nbd_client_read(c, iov, 2, READ_AT);
	nbd_client_close(c);
	return rc;
}

static void a_read_is_put_together_from_its_chunks(void **state)
{
	uint8_t buf[READ_LEN];
	struct strbuf sb = STRBUF_INIT;
	memset(buf, 0xee, sizeof(buf));
	/* Out of order, with a hole, the last chunk empty. */
	data_chunk(&sb, false, 1, READ_AT + 3000, 1096, 'c');
	hole_chunk(&sb, false, 1, READ_AT + 500, 2500);
	data_chunk(&sb, false, 1, READ_AT, 500, 'a');
	chunk(&sb, true, NBD_REPLY_TYPE_NONE, 1, 0);
	assert_int_equal(read_answered(&sb, buf), 0);
	for (int i = 0; i < READ_LEN; i++)
		assert_int_equal(buf[i], i < 500 ? 'a' : i < 3000 ? 0 : 'c');
	/* A byte at a time, every second first. */
	for (uint32_t i = 0; i < 512; i += 2)
		data_chunk(&sb, false, 1, READ_AT + i, 1, (uint8_t)i);
	for (uint32_t i = 1; i < 512; i += 2)
		data_chunk(&sb, false, 1, READ_AT + i, 1, (uint8_t)i);
	hole_chunk(&sb, true, 1, READ_AT + 512, READ_LEN - 512);
	assert_int_equal(read_answered(&sb, buf), 0);
	for (int i = 0; i < 512; i++)
		assert_int_equal(buf[i], (uint8_t)i);
}

static void errors_of_a_read_are_passed_on(void **state)
{
	uint8_t buf[READ_LEN];
	struct strbuf sb = STRBUF_INIT;
	chunk(&sb, true, NBD_REPLY_TYPE_ERROR, 1, 6 + 4);
	put(&sb, NBD_ENOSPC, 4);
	put(&sb, 4, 2);
	strbuf_puts(&sb, "full");
	assert_int_equal(read_answered(&sb, buf), -ENOSPC);
	/* In the middle of data; the first one counts. */
	data_chunk(&sb, false, 1, READ_AT, 512, 'a');
	chunk(&sb, false, NBD_REPLY_TYPE_ERROR_OFFSET, 1, 6 + 8);
	put(&sb, NBD_EIO, 4);
	put(&sb, 0, 2);
	put(&sb, READ_AT + 512, 8);
	chunk(&sb, false, NBD_REPLY_TYPE_ERROR, 1, 6);
	put(&sb, NBD_ENOMEM, 4);
	put(&sb, 0, 2);
	chunk(&sb, true, NBD_REPLY_TYPE_NONE, 1, 0);
	assert_int_equal(read_answered(&sb, buf), -EIO);
	/* Of a type that is not known yet. */
	chunk(&sb, true, 0x8123, 1, 10);
	put(&sb, NBD_EPERM, 4);
	put_zeroes(&sb, 6);
	assert_int_equal(read_answered(&sb, buf), -EPERM);
}

static void replies_that_break_the_protocol_fail_the_read(void **state)
{
	uint8_t buf[READ_LEN];
	for (int row = 0;; row++) {
		struct strbuf sb = STRBUF_INIT;
		switch (row) {
		case 0: break; /* hangs up */
		case 1: data_chunk(&sb, true, 2, READ_AT, READ_LEN, 'x'); break;
		case 2: data_chunk(&sb, true, 1, READ_AT - 1, READ_LEN, 'x'); break;
		case 3: data_chunk(&sb, true, 1, READ_AT, READ_LEN + 1, 'x'); break;
		case 4: data_chunk(&sb, true, 1, UINT64_MAX - 10, READ_LEN, 'x'); break;
		case 5: data_chunk(&sb, true, 1, READ_AT, READ_LEN - 1, 'x'); break;
		case 6: data_chunk(&sb, true, 1, READ_AT, 0, 'x'); break;
		case 7:
			data_chunk(&sb, false, 1, READ_AT, 2048, 'x');
			data_chunk(&sb, false, 1, READ_AT + 2047, 2049, 'x');
			break;
		case 8:
			data_chunk(&sb, false, 1, READ_AT, READ_LEN, 'x');
			hole_chunk(&sb, true, 1, READ_AT, READ_LEN);
			break;
		case 9: hole_chunk(&sb, true, 1, READ_AT, UINT32_MAX); break;
		case 10: chunk(&sb, true, NBD_REPLY_TYPE_NONE, 1, 0); break;
		case 11: chunk(&sb, false, NBD_REPLY_TYPE_NONE, 1, 0); break;
		case 12: chunk(&sb, true, NBD_REPLY_TYPE_OFFSET_DATA, 1, UINT32_MAX); break;
		case 13: chunk(&sb, true, 77, 1, 0); break;
		case 14:
			chunk(&sb, true, NBD_REPLY_TYPE_BLOCK_STATUS, 1, 12);
			put_zeroes(&sb, 12);
			break;
		case 15: /* an error that is none */
			chunk(&sb, true, NBD_REPLY_TYPE_ERROR, 1, 6);
			put_zeroes(&sb, 6);
			break;
		case 16: /* a message longer than its chunk */
			chunk(&sb, true, NBD_REPLY_TYPE_ERROR, 1, 6);
			put(&sb, NBD_EIO, 4);
			put(&sb, 100, 2);
			break;
		case 17: simple_reply(&sb, 0, 1); break;
		case 18: put_zeroes(&sb, 64); break;
		case 19: /* pieces without end */
			for (uint32_t i = 0; i < READ_LEN; i += 2)
				data_chunk(&sb, false, 1, READ_AT + i, 1, 'x');
			break;
		default: return;
		}
		int rc = read_answered(&sb, buf);
		if (rc != -EIO)
			fail_msg("row %d: %d", row, rc);
	}
}

static void simple_replies_serve_old_servers(void **state)
{
	uint8_t buf[512];
	struct iovec iov = {buf, sizeof(buf)};
	struct strbuf sb = STRBUF_INIT;
	whole_handshake(&sb, false, SIZE);
	simple_reply(&sb, 0, 1);
	for (int i = 0; i < 512; i++)
		put(&sb, 'r', 1);
	simple_reply(&sb, NBD_ENOSPC, 2);
	simple_reply(&sb, 12345, 3);
	chunk(&sb, true, NBD_REPLY_TYPE_NONE, 4, 0); /* which was not negotiated */
	struct nbd_client *c = must_connect(&sb, "disk");
	assert_int_equal(nbd_client_read(c, &iov, 1, 0), 0);
	assert_int_equal(buf[0], 'r');
	assert_int_equal(buf[511], 'r');
	assert_int_equal(nbd_client_write(c, &iov, 1, 0, 0), -ENOSPC);
	assert_int_equal(nbd_client_command(c, NBD_CMD_FLUSH, 0, 0, 0), -EINVAL);
	assert_int_equal(nbd_client_command(c, NBD_CMD_FLUSH, 0, 0, 0), -EIO);
	nbd_client_close(c);
}

static int status_answered(uint32_t context, uint32_t len, uint32_t flags, uint32_t *count)
{
	struct strbuf sb = STRBUF_INIT;
	uint32_t found = 99;
	whole_handshake(&sb, true, SIZE);
	chunk(&sb, true, NBD_REPLY_TYPE_BLOCK_STATUS, 1, 4 + 16);
	put(&sb, context, 4);
	put(&sb, len, 4);
	put(&sb, flags, 4);
	put(&sb, 1000, 4); /* a second extent, not of interest */
	put(&sb, 0, 4);
	struct nbd_client *c = must_connect(&sb, "disk");
	int rc = nbd_client_status(c, 0, 8192, &found, count);
	nbd_client_close(c);
	return rc < 0 ? rc : (int)found;
}

static void block_status_is_checked(void **state)
{
	uint32_t count;
	assert_int_equal(status_answered(CONTEXT, 512, NBD_STATE_ZERO, &count), NBD_STATE_ZERO);
	assert_int_equal(count, 512);
	/* More than was asked for is as much as was. */
	assert_int_equal(status_answered(CONTEXT, UINT32_MAX, 0, &count), 0);
	assert_int_equal(count, 8192);
	assert_int_equal(status_answered(CONTEXT + 1, 512, 0, &count), -EIO);
	assert_int_equal(status_answered(CONTEXT, 0, 0, &count), -EIO);
}

struct submitted {
	struct nbd_request req;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	int result;
};

static void submitted_done(struct nbd_request *req, int result)
{
	struct submitted *s = container_of(req, struct submitted, req);
	pthread_mutex_lock(&s->lock);
	s->result = result;
	s->done = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static int submitted_result(struct submitted *s)
{
	pthread_mutex_lock(&s->lock);
	while (!s->done)
		pthread_cond_wait(&s->cond, &s->lock);
	pthread_mutex_unlock(&s->lock);
	return s->result;
}

static void an_answer_to_half_a_write_is_none(void **state)
{
	enum { LEN = 4 * 1024 * 1024 }; /* more than the socket takes */
	struct strbuf sb = STRBUF_INIT;
	struct error err = ERROR_INIT;
	struct iovec iov = {calloc(1, LEN), LEN};
	whole_handshake(&sb, true, 2 * LEN);
	chunk(&sb, true, NBD_REPLY_TYPE_NONE, 1, 0);
	struct nbd_client *c = connect_to(&sb, "disk", true, &err);
	assert_non_null(c);
	/* The reader is another thread than the one that sends. */
	struct submitted write = {.req = {.type = NBD_CMD_WRITE,
					  .len = LEN,
					  .iov = &iov,
					  .iovcnt = 1,
					  .done = submitted_done}};
	pthread_mutex_init(&write.lock, NULL);
	pthread_cond_init(&write.cond, NULL);
	assert_true(nbd_client_submit(c, &write.req));
	assert_int_equal(submitted_result(&write), -EIO);
	/* It tries to connect, and finds nobody. */
	assert_int_equal(nbd_client_command(c, NBD_CMD_FLUSH, 0, 0, 0), -EIO);
	nbd_client_close(c);
	free(iov.iov_base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_is_put_together_from_its_chunks),
		cmocka_unit_test(errors_of_a_read_are_passed_on),
		cmocka_unit_test(replies_that_break_the_protocol_fail_the_read),
		cmocka_unit_test(simple_replies_serve_old_servers),
		cmocka_unit_test(block_status_is_checked),
		cmocka_unit_test(an_answer_to_half_a_write_is_none),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, enter_scratch, leave_scratch);
}
