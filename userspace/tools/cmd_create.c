// SPDX-License-Identifier: GPL-2.0-only
/* qcow create IMAGE... [SIZE]: empty images, with the options of qemu-img create. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/options.h"
#include "host/trust.h"
#include "lib/create.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/createopts.h"
#include "tools/imagefile.h"
#include "tools/info.h"
#include "tools/size.h"
#include "tools/verb.h"

static const struct option options[] = {
	{ "backing", required_argument, NULL, 'b' },
	{ "backing-format", required_argument, NULL, 'F' },
	{ "format", required_argument, NULL, 'f' },
	{ "unsafe", no_argument, NULL, 'u' },
	{ "quiet", no_argument, NULL, 'q' },
	VERB_END_OPTIONS,
};

struct request {
	struct create_options o;
	bool unsafe, quiet;
};

static int take(void *request, int opt)
{
	struct request *q = request;

	switch (opt) {
	case 'o':
		return create_options_parse(&q->o, optarg);
	case 'b':
		q->o.p.backing_name = optarg;
		return 0;
	case 'F':
		q->o.p.backing_format = optarg;
		return 0;
	case 'f':
		return verb_take_qcow2(optarg);
	case 'u':
		q->unsafe = true;
		return 0;
	case 'q':
		q->quiet = true;
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_create, "o:b:F:f:uq", options, take, 1, INT_MAX, 0 };

/* ---- the backing file -------------------------------------------------------------- */

static int qcow2_size(struct qcow_io *io, uint64_t *size, struct qcow_error *err)
{
	struct qcow_header *h = malloc(sizeof(*h));
	int r = h ? qcow_header_read(io, h, err) : qcow_fail(err, ENOMEM, QCOW_NO_OFF, "no memory");

	if (!r)
		*size = h->size;
	free(h);
	return r;
}

/* What an image is made of. The backing file stays locked until the image is written. */
struct files {
	const char *path;
	char *base_path, *data_path; /* NULL: none, or not one that we could open */
	struct image_file base, data, image;
	bool new_image, new_data;
};

static int name_files(const struct request *q, struct files *f, struct qcow_error *err)
{
	struct qcow_error ignored = { 0 };
	int r = 0;

	if (q->o.p.backing_name)
		r = host_join_name(f->path, q->o.p.backing_name, &f->base_path,
				   q->unsafe ? &ignored : err);
	/* Unsafe: it is recorded as it is. */
	if (r < 0 && q->unsafe)
		r = 0;
	if (!r && q->o.p.data_file)
		r = host_join_name(f->path, q->o.p.data_file, &f->data_path, err);
	return r;
}

/* Opens it, so that a wrong name is seen now; its size is the default. */
static int look_at_backing(const struct request *q, struct files *f, uint64_t *size,
			   struct qcow_error *err)
{
	int r = image_file_open(&f->base, f->base_path, false, false, err);

	if (!r && host_format_parse(q->o.p.backing_format) == HOST_FORMAT_QCOW2)
		r = qcow2_size(f->base.io, size, err);
	else if (!r)
		r = qcow_io_size(f->base.io, size, err);
	if (r < 0)
		qcow_error_prefix(err, "backing file %s", f->base_path);
	return r;
}

static int find_size(struct request *q, struct files *f, struct qcow_error *err)
{
	uint64_t size = 0;
	int r;

	if (q->o.p.backing_name && !q->o.p.backing_format)
		return qcow_fail(err, EINVAL, QCOW_NO_OFF,
				 "the backing file's format is needed: -F raw or -F qcow2");
	if (q->o.p.backing_name && !q->unsafe) {
		if (host_format_parse(q->o.p.backing_format) == HOST_FORMAT_UNKNOWN)
			return qcow_fail(err, EINVAL, QCOW_NO_OFF,
					 "the backing format is raw or qcow2, not %s",
					 q->o.p.backing_format);
		r = look_at_backing(q, f, &size, err);
		if (r < 0)
			return r;
		if (!q->o.has_size)
			q->o.p.size = size;
		return 0;
	}
	return q->o.has_size ? 0 : qcow_fail(err, EINVAL, QCOW_NO_OFF, "a size is needed");
}

/* ---- making ------------------------------------------------------------------------ */

/* True: it was not there before, and is to go if anything fails. */
static bool touch(const char *path)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static bool same(const char *a, const char *b)
{
	struct stat x, y;

	if (!a || !b || stat(a, &x) < 0 || stat(b, &y) < 0)
		return false;
	if (S_ISBLK(x.st_mode))
		return S_ISBLK(y.st_mode) && x.st_rdev == y.st_rdev;
	return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Where the names lead to one file, its locks would refuse that too, but not say why. */
static int check_apart(const struct files *f, struct qcow_error *err)
{
	const char *why = NULL;

	if (same(f->path, f->base_path))
		why = "an image cannot be its own backing file";
	else if (same(f->path, f->data_path))
		why = "an image cannot be its own data file";
	else if (same(f->data_path, f->base_path))
		why = "the backing file cannot be the data file too";
	return why ? qcow_fail(err, EINVAL, QCOW_NO_OFF, "%s", why) : 0;
}

/* All of them, before any is emptied. */
static int open_files(struct files *f, struct qcow_error *err)
{
	int r;

	f->new_image = touch(f->path);
	f->new_data = f->data_path && touch(f->data_path);
	r = check_apart(f, err);
	if (!r && f->data_path)
		r = image_file_open(&f->data, f->data_path, true, false, err);
	return r < 0 ? r : image_file_open(&f->image, f->path, true, false, err);
}

static void close_files(struct files *f)
{
	image_file_close(&f->image);
	image_file_close(&f->data);
	image_file_close(&f->base);
	free(f->base_path);
	free(f->data_path);
}

static int make_data_file(const struct request *q, struct qcow_io *io, struct qcow_error *err)
{
	int r;

	if (io->fixed_end)
		return 0;
	r = qcow_io_truncate(io, 0, err);
	return r < 0 ? r : qcow_io_truncate(io, (q->o.p.size + 511) & ~511ull, err);
}

static int write_image(const struct request *q, struct qcow_io *io, struct qcow_error *err)
{
	int r = io->fixed_end ? 0 : qcow_io_truncate(io, 0, err);

	return r < 0 ? r : qcow_create(io, &q->o.p, err);
}

static void say_made(const struct request *q, const char *path)
{
	char size[32], cluster[32];

	info_size_text(q->o.p.size, size, sizeof(size));
	info_size_text(1ull << q->o.p.cluster_bits, cluster, sizeof(cluster));
	printf("%s: %s (%" PRIu64 " bytes), clusters of %s\n", path, size, q->o.p.size, cluster);
}

static int make(struct request *q, struct files *f, struct qcow_error *err)
{
	int r = name_files(q, f, err);

	if (!r)
		r = find_size(q, f, err);
	if (!r)
		r = qcow_create_check(&q->o.p, err);
	if (!r)
		r = open_files(f, err);
	if (!r && f->data.io)
		r = make_data_file(q, f->data.io, err);
	if (!r)
		r = write_image(q, f->image.io, err);
	if (r < 0 && f->new_image)
		unlink(f->path);
	if (r < 0 && f->new_data)
		unlink(f->data_path);
	return r;
}

static int make_one(struct request *q, const char *path)
{
	struct files f = { .path = path };
	struct qcow_error err = { 0 };
	int r = make(q, &f, &err);

	close_files(&f);
	if (r < 0)
		fprintf(stderr, "qcow: %s: %s\n", path, err.text);
	else if (!q->quiet)
		say_made(q, path);
	return r;
}

/* The last word is a size unless only a backing file's overlays are named. */
static int take_size(struct request *q, char **words, int *nr)
{
	int r;

	if (*nr < 2 || q->o.has_size)
		return 0;
	r = size_parse(words[*nr - 1], &q->o.p.size);
	if (r == -EINVAL && q->o.p.backing_name)
		return 0;
	if (r < 0)
		return verb_complain("size", words[*nr - 1]);
	q->o.has_size = true;
	--*nr;
	return 0;
}

int cmd_create(int argc, char **argv)
{
	struct request q = { .o = CREATE_OPTIONS_DEFAULT };
	int status = verb_parse(&verb, argc, argv, &q), nr, i;

	if (status >= 0)
		return status;
	nr = argc - optind;
	if (take_size(&q, argv + optind, &nr))
		return 1;
	if (nr > 1 && !q.o.p.backing_name)
		return verb_usage(&verb);
	status = 0;
	for (i = 0; i < nr; i++)
		if (make_one(&q, argv[optind + i]) < 0)
			status = 1;
	return status;
}
