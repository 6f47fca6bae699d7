// SPDX-License-Identifier: GPL-2.0-only
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "host/trust.h"
#include "lib/bitmap.h"
#include "lib/text.h"
#include "tools/info.h"

void info_size_text(uint64_t bytes, char *out, size_t room)
{
	static const char *const units[] = { "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" };
	double value = (double)bytes;
	size_t i = 0;

	/* The next unit from 1000 on, so that three digits are enough. */
	while (value >= 1000 && i < 6) {
		value /= 1024;
		i++;
	}
	snprintf(out, room, "%0.3g %sB", value, units[i]);
}

/* Text from an image must not drive the terminal. */
static void print_text(const char *key, const char *text)
{
	char *clean = strdup(text);

	if (clean)
		qcow_text_clean(clean);
	printf("%s%s", key, clean ? clean : "?");
	free(clean);
}

static int visit_snapshot(const struct qcow_snapshot *s, void *arg)
{
	char size[24], date[32] = "", clock[40], icount[24] = "";
	uint64_t sec = s->vm_clock_nsec / 1000000000;
	time_t when = (time_t)s->date_sec;
	char name[400];
	struct tm tm;

	(void)arg;
	info_size_text(s->vm_state_size, size, sizeof(size));
	if (localtime_r(&when, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(clock, sizeof(clock), "%02" PRIu64 ":%02u:%02u.%03u", sec / 3600,
		 (unsigned int)(sec / 60 % 60), (unsigned int)(sec % 60),
		 (unsigned int)(s->vm_clock_nsec / 1000000 % 1000));
	if (s->icount != UINT64_MAX)
		snprintf(icount, sizeof(icount), "%" PRIu64, s->icount);
	snprintf(name, sizeof(name), "%-9s %-16s", s->id, s->name);
	qcow_text_clean(name);
	printf("%s %8s%20s%13s%11s\n", name, size, date, clock, icount);
	return 0;
}

int info_print_snapshots(struct qcow_io *io, const struct qcow_header *h, struct qcow_error *err)
{
	if (!h->nr_snapshots)
		return 0;
	printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE",
	       "VM CLOCK", "ICOUNT");
	return qcow_snapshots_walk(io, h, visit_snapshot, NULL, err);
}

static int visit_bitmap(const struct qcow_bitmap *b, void *arg)
{
	unsigned int *nr = arg, flag = 0;

	printf("        [%u]:\n            flags:\n", (*nr)++);
	if (b->in_use)
		printf("                [%u]: in-use\n", flag++);
	if (b->enabled)
		printf("                [%u]: auto\n", flag);
	print_text("            name: ", b->name);
	printf("\n            granularity: %u\n", 1u << b->granularity_bits);
	return 0;
}

static const char *yes_no(bool b)
{
	return b ? "true" : "false";
}

static int print_specific(const struct qcow_image *img, struct qcow_error *err)
{
	const struct qcow_header *h = qcow_image_header(img);
	unsigned int nr = 0;
	int r = 0;

	printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
	       h->version == 2 ? "0.10" : "1.1",
	       h->compression == QCOW_COMPRESSION_ZSTD ? "zstd" : "zlib");
	if (h->version >= 3)
		printf("    lazy refcounts: %s\n",
		       yes_no(h->compatible & QCOW_COMPAT_LAZY_REFCOUNTS));
	if (h->nr_bitmaps) {
		puts("    bitmaps:");
		r = qcow_bitmaps_walk(qcow_image_io(img), h, visit_bitmap, &nr, err);
	}
	printf("    refcount bits: %u\n", 1u << h->refcount_order);
	if (*h->data_file) {
		print_text("    data file: ", h->data_file);
		putchar('\n');
	}
	if (qcow_has_data_file(h))
		printf("    data file raw: %s\n", yes_no(h->autoclear & QCOW_AUTOCLEAR_DATA_RAW));
	if (h->crypt_method)
		printf("    encrypt:\n        format: %s\n",
		       h->crypt_method == QCOW_CRYPT_LUKS ? "luks" : "aes");
	if (h->version >= 3)
		printf("    corrupt: %s\n    extended l2: %s\n",
		       yes_no(h->incompatible & QCOW_INCOMPAT_CORRUPT), yes_no(qcow_has_extl2(h)));
	return r;
}

static void print_backing(const struct qcow_header *h, const char *parent)
{
	char *full;

	if (!h->has_backing)
		return;
	print_text("backing file: ", h->backing_name);
	if (host_join_name(parent, h->backing_name, &full, NULL)) {
		fputs(" (cannot be opened: not a plain path)", stdout);
	} else {
		if (strcmp(full, h->backing_name)) {
			print_text(" (actual path: ", full);
			putchar(')');
		}
		free(full);
	}
	putchar('\n');
	if (*h->backing_format) {
		print_text("backing file format: ", h->backing_format);
		putchar('\n');
	}
}

static int print_qcow2(const struct qcow_image *img, const char *path, struct qcow_error *err)
{
	const struct qcow_header *h = qcow_image_header(img);
	int r;

	if (h->crypt_method)
		puts("encrypted: yes");
	printf("cluster_size: %" PRIu64 "\n", qcow_cluster_size(h));
	if (h->incompatible & QCOW_INCOMPAT_DIRTY)
		puts("cleanly shut down: no");
	print_backing(h, path);
	r = info_print_snapshots(qcow_image_io(img), h, err);
	return r < 0 ? r : print_specific(img, err);
}

static int print_layer(struct host_chain *hc, size_t i, struct qcow_error *err)
{
	const struct host_layer *l = host_chain_layer(hc, i);
	const struct qcow_image *img = qcow_chain_layer_image(host_chain_lib(hc), i);
	uint64_t size = img ? qcow_image_size(img) : (l->size + 511) & ~511ull;
	char text[32], disk[32];
	struct stat st;

	info_size_text(size, text, sizeof(text));
	info_size_text(!fstat(l->fd, &st) ? (uint64_t)st.st_blocks * 512 : 0, disk, sizeof(disk));
	print_text("image: ", l->path);
	printf("\nfile format: %s\nvirtual size: %s (%" PRIu64 " bytes)\ndisk size: %s\n",
	       img ? "qcow2" : "raw", text, size, disk);
	return img ? print_qcow2(img, l->path, err) : 0;
}

int info_print_human(struct host_chain *hc, struct qcow_error *err)
{
	size_t i;
	int r = 0;

	for (i = 0; !r && i < host_chain_nr_layers(hc); i++) {
		if (host_chain_layer(hc, i)->kind == QCOW_LAYER_DATA_FILE)
			continue;
		if (i)
			putchar('\n');
		r = print_layer(hc, i, err);
	}
	return r;
}
