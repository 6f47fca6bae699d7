/* SPDX-License-Identifier: GPL-2.0-only */
/* A folder of images, and short words to try to open them. */
#ifndef HOSTRIG_H
#define HOSTRIG_H

#include "memimg.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/chain.h"

#define BITS 16
#define DISK (1u << 20)

static char dir[PATH_MAX];

static inline char *at(const char *name)
{
	static char path[32][PATH_MAX + 256];
	static int next;

	next = (next + 1) % 32;
	snprintf(path[next], sizeof(path[next]), "%s/%s", dir, name);
	return path[next];
}

static inline void put_file(const char *name, const void *data, size_t len)
{
	FILE *f = fopen(at(name), "w");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	fclose(f);
}

static inline void put_image(const char *name, const char *backing, const char *format)
{
	struct memimg m;

	memimg_init(&m, 3, BITS, DISK);
	memimg_data(&m, 1, 0x11);
	if (backing)
		memimg_backing(&m, backing, format);
	put_file(name, m.bytes, m.size);
	memimg_exit(&m);
}

static inline void put_raw(const char *name)
{
	static uint8_t bytes[DISK];

	memset(bytes, 0x22, sizeof(bytes));
	put_file(name, bytes, sizeof(bytes));
}

static inline int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/test_host.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	mkdir(at("own"), 0755);
	mkdir(at("own/sub"), 0755);
	mkdir(at("other"), 0755);
	mkdir(at("other/deep"), 0755);
	put_raw("own/base.raw");
	put_raw("own/sub/base.raw");
	put_raw("other/base.raw");
	put_raw("other/deep/base.raw");
	return 0;
}

static inline int teardown(void **state)
{
	char command[PATH_MAX + 16];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

struct attempt {
	const char *image;
	const char *conf;
	dev_t own_device;
	unsigned int flags;
	char *words[4];
	size_t nr_words;
	struct host_chain *hc;
	struct qcow_error err;
};

static inline int try_open(struct attempt *a)
{
	struct host_options o;
	struct host_policy p = { 0 };
	struct host_chain_params params;
	struct host_opener opener = host_opener_local(&p);
	int r;

	a->hc = NULL;
	qcow_error_clear(&a->err);
	r = host_options_parse(&o, a->nr_words, a->words, &a->err);
	if (r < 0)
		return r;
	r = host_policy_init(&p, a->image, &o, a->conf ? a->conf : "/nonexistent", a->own_device,
			     &a->err);
	if (!r) {
		params = host_chain_params(&o, a->flags);
		r = host_chain_open(&a->hc, a->image, &params, &opener, &a->err);
		host_policy_exit(&p);
	}
	host_options_exit(&o);
	if (r < 0)
		assert_int_equal(a->err.code, -r);
	return r;
}

/* @want 0: opens, with 2 layers. Else: that errno, and @text in the message. */
static inline void expect_with(struct attempt a, int want, const char *text)
{
	int r = try_open(&a);

	if (r != -want)
		fail_msg("%s: %d, want %d (%s)", a.image, r, -want, a.err.text);
	if (!want)
		assert_int_equal(host_chain_nr_layers(a.hc), 2);
	if (text && !strstr(a.err.text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, a.err.text);
	host_chain_close(a.hc);
}

static inline void expect(int want, const char *text)
{
	expect_with((struct attempt){ .image = at("own/top.qcow2") }, want, text);
}

static inline void expect_word(char *word, int want, const char *text)
{
	expect_with(
		(struct attempt){ .image = at("own/top.qcow2"), .words = { word }, .nr_words = 1 },
		want, text);
}

static inline char *word(const char *name, const char *path)
{
	static char text[PATH_MAX + 100];

	snprintf(text, sizeof(text), "%s:%s", name, at(path));
	return text;
}

#endif
