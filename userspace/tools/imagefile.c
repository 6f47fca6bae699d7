// SPDX-License-Identifier: GPL-2.0-only
#include "tools/imagefile.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/direct.h"
#include "host/trust.h"

int image_file_open_fd(int *fd, const char *path, bool write, bool share, struct qcow_error *err)
{
	struct host_options none = { 0 };
	struct host_policy policy;
	struct host_request req = {
		.role = HOST_ROLE_IMAGE,
		.path = path,
		.write = write,
		.buffered_ok = true,
		.lock = write	? HOST_LOCK_WRITER
			: share ? HOST_LOCK_NONE
				: HOST_LOCK_BASE,
	};
	int r = host_policy_init(&policy, path, &none, HOST_CONF_PATH, 0, err);

	if (r < 0)
		return r;
	r = host_open_layer(&policy, &req, fd, err);
	host_policy_exit(&policy);
	return r;
}

int image_file_open(struct image_file *f, const char *path, bool write, bool share,
		    struct qcow_error *err)
{
	int r = image_file_open_fd(&f->fd, path, write, share, err);

	f->io = NULL;
	if (r < 0)
		return r;
	r = host_io_create(&f->io, f->fd, err);
	if (r < 0)
		close(f->fd);
	else
		f->io->exact_end = true;
	return r;
}

void image_file_close(struct image_file *f)
{
	if (!f->io)
		return;
	qcow_io_destroy(f->io);
	close(f->fd);
	f->io = NULL;
}

int image_file_is_layer(const struct image_file *f, const struct host_layer *l,
			struct qcow_error *err)
{
	struct stat st;

	if (fstat(f->fd, &st))
		return qcow_fail(err, errno, QCOW_NO_OFF, "%s: cannot be looked at", l->path);
	if (host_layer_is(l, &st))
		return 0;
	return qcow_fail(err, ESTALE, QCOW_NO_OFF,
			 "%s was replaced while it was being opened; try again", l->path);
}

int image_file_open_layer(struct image_file *f, const struct host_layer *l, struct qcow_error *err)
{
	int r = image_file_open(f, l->path, true, false, err);

	if (!r)
		r = image_file_is_layer(f, l, err);
	if (r < 0)
		image_file_close(f);
	return r;
}

int image_file_open_data(struct image_file *f, struct host_chain *hc, struct qcow_error *err)
{
	size_t layer = qcow_chain_data_layer(host_chain_lib(hc));

	return layer ? image_file_open_layer(f, host_chain_layer(hc, layer), err) : 0;
}

int image_edit_open(struct image_edit *e, const char *path, const struct qcow_writer_params *params,
		    struct qcow_error *err)
{
	int r;

	*e = (struct image_edit){ 0 };
	r = image_file_open(&e->f, path, true, false, err);
	if (!r)
		r = qcow_image_open(&e->img, e->f.io, err);
	if (!r)
		r = qcow_writer_create(&e->w, e->img, params, err);
	if (r < 0)
		image_edit_close(e);
	return r;
}

int image_edit_resize(struct image_edit *e, struct host_chain *hc, struct qcow_resize_params *p,
		      struct qcow_error *err)
{
	struct image_file data = { 0 };
	const struct qcow_image *img;
	size_t below;
	int r;

	p->chain = host_chain_lib(hc);
	below = qcow_chain_data_layer(p->chain) + 1;
	if (below < host_chain_nr_layers(hc)) {
		img = qcow_chain_layer_image(p->chain, below);
		p->backing_size = img ? qcow_image_size(img) : host_chain_layer(hc, below)->size;
	}
	r = image_file_open_data(&data, hc, err);
	p->data = data.io;
	if (!r)
		r = qcow_resize(e->w, p, err);
	image_file_close(&data);
	return r;
}

void image_edit_close(struct image_edit *e)
{
	qcow_writer_destroy(e->w);
	qcow_image_close(e->img);
	image_file_close(&e->f);
	*e = (struct image_edit){ 0 };
}
