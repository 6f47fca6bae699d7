// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/names.h"
#include "lib/bitmap.h"
#include "lib/text.h"
#include "tools/info.h"

static void add_str(json_object *o, const char *key, const char *value)
{
	char *text = strdup(value);

	if (!text)
		return;
	qcow_text_utf8(text);
	json_object_object_add(o, key, json_object_new_string(text));
	free(text);
}

static void add_u64(json_object *o, const char *key, uint64_t value)
{
	json_object_object_add(o, key, json_object_new_uint64(value));
}

static void add_bool(json_object *o, const char *key, bool value)
{
	json_object_object_add(o, key, json_object_new_boolean(value));
}

static int visit_snapshot(const struct qcow_snapshot *s, void *arg)
{
	json_object *o = json_object_new_object();

	add_str(o, "id", s->id);
	add_str(o, "name", s->name);
	add_u64(o, "vm-state-size", s->vm_state_size);
	add_u64(o, "date-sec", s->date_sec);
	add_u64(o, "date-nsec", s->date_nsec);
	add_u64(o, "vm-clock-sec", s->vm_clock_nsec / 1000000000);
	add_u64(o, "vm-clock-nsec", s->vm_clock_nsec % 1000000000);
	if (s->icount != UINT64_MAX)
		add_u64(o, "icount", s->icount);
	return json_object_array_add(arg, o);
}

int info_add_snapshots(json_object *list, struct qcow_io *io, const struct qcow_header *h,
		       struct qcow_error *err)
{
	return qcow_snapshots_walk(io, h, visit_snapshot, list, err);
}

static int visit_bitmap(const struct qcow_bitmap *b, void *arg)
{
	json_object *o = json_object_new_object(), *flags = json_object_new_array();

	add_str(o, "name", b->name);
	add_u64(o, "granularity", 1ull << b->granularity_bits);
	if (b->in_use)
		json_object_array_add(flags, json_object_new_string("in-use"));
	if (b->enabled)
		json_object_array_add(flags, json_object_new_string("auto"));
	json_object_object_add(o, "flags", flags);
	return json_object_array_add(arg, o);
}

int info_add_bitmaps(json_object *list, struct qcow_io *io, const struct qcow_header *h,
		     struct qcow_error *err)
{
	return qcow_bitmaps_walk(io, h, visit_bitmap, list, err);
}

static void add_version_3(json_object *data, const struct qcow_header *h)
{
	add_bool(data, "lazy-refcounts", h->compatible & QCOW_COMPAT_LAZY_REFCOUNTS);
	add_bool(data, "corrupt", h->incompatible & QCOW_INCOMPAT_CORRUPT);
	add_bool(data, "extended-l2", qcow_has_extl2(h));
	if (!qcow_has_data_file(h))
		return;
	if (*h->data_file)
		add_str(data, "data-file", h->data_file);
	add_bool(data, "data-file-raw", h->autoclear & QCOW_AUTOCLEAR_DATA_RAW);
}

static int add_specific(json_object *o, const struct qcow_image *img, struct qcow_error *err)
{
	const struct qcow_header *h = qcow_image_header(img);
	json_object *specific = json_object_new_object(), *data = json_object_new_object();
	json_object *crypt, *bitmaps;

	add_str(specific, "type", "qcow2");
	json_object_object_add(specific, "data", data);
	json_object_object_add(o, "format-specific", specific);
	add_str(data, "compat", h->version == 2 ? "0.10" : "1.1");
	add_str(data, "compression-type",
		h->compression == QCOW_COMPRESSION_ZSTD ? "zstd" : "zlib");
	add_u64(data, "refcount-bits", 1ull << h->refcount_order);
	if (h->version >= 3)
		add_version_3(data, h);
	if (h->crypt_method) {
		crypt = json_object_new_object();
		add_str(crypt, "format", h->crypt_method == QCOW_CRYPT_LUKS ? "luks" : "aes");
		json_object_object_add(data, "encrypt", crypt);
	}
	if (!h->nr_bitmaps)
		return 0;
	bitmaps = json_object_new_array();
	json_object_object_add(data, "bitmaps", bitmaps);
	return info_add_bitmaps(bitmaps, qcow_image_io(img), h, err);
}

static void add_backing(json_object *o, const struct qcow_header *h, const char *parent)
{
	char *full;

	if (!h->has_backing)
		return;
	add_str(o, "backing-filename", h->backing_name);
	if (*h->backing_format)
		add_str(o, "backing-filename-format", h->backing_format);
	if (!host_join_name(parent, h->backing_name, &full, NULL)) {
		add_str(o, "full-backing-filename", full);
		free(full);
	}
}

static int add_qcow2(json_object *o, const struct qcow_image *img, const char *path,
		     struct qcow_error *err)
{
	const struct qcow_header *h = qcow_image_header(img);
	json_object *list;
	int r;

	add_u64(o, "cluster-size", qcow_cluster_size(h));
	add_bool(o, "dirty-flag", h->incompatible & QCOW_INCOMPAT_DIRTY);
	if (h->crypt_method)
		add_bool(o, "encrypted", true);
	add_backing(o, h, path);
	if (h->nr_snapshots) {
		list = json_object_new_array();
		json_object_object_add(o, "snapshots", list);
		r = info_add_snapshots(list, qcow_image_io(img), h, err);
		if (r < 0)
			return r;
	}
	return add_specific(o, img, err);
}

static int layer_object(struct host_chain *hc, size_t i, json_object **out, struct qcow_error *err)
{
	const struct host_layer *l = host_chain_layer(hc, i);
	const struct qcow_image *img = qcow_chain_layer_image(host_chain_lib(hc), i);
	json_object *o = json_object_new_object();
	struct stat st;
	int r = 0;

	add_str(o, "filename", l->path);
	add_str(o, "format", img ? "qcow2" : "raw");
	add_u64(o, "virtual-size", img ? qcow_image_size(img) : (l->size + 511) & ~511ull);
	if (!fstat(l->fd, &st))
		add_u64(o, "actual-size", (uint64_t)st.st_blocks * 512);
	if (img)
		r = add_qcow2(o, img, l->path, err);
	else
		add_bool(o, "dirty-flag", false);
	if (r < 0)
		json_object_put(o);
	else
		*out = o;
	return r;
}

int info_print_json(struct host_chain *hc, bool as_list, struct qcow_error *err)
{
	json_object *list = json_object_new_array(), *o;
	size_t i;
	int r = 0;

	for (i = 0; i < host_chain_nr_layers(hc); i++) {
		if (host_chain_layer(hc, i)->kind == QCOW_LAYER_DATA_FILE)
			continue;
		r = layer_object(hc, i, &o, err);
		if (r < 0)
			goto out_put;
		json_object_array_add(list, o);
	}
	o = as_list ? list : json_object_array_get_idx(list, 0);
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
						       JSON_C_TO_STRING_NOSLASHESCAPE));
out_put:
	json_object_put(list);
	return r;
}
