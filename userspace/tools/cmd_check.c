// SPDX-License-Identifier: GPL-2.0-only
/* qcow check IMAGE: damage and leaks, in the words, fields and exit codes of qemu-img check. */
#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <stdio.h>
#include <string.h>

#include "lib/check.h"
#include "lib/header.h"
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/imagefile.h"
#include "tools/verb.h"

enum {
	EXIT_SOUND = 0,
	EXIT_FAILED = 1,
	EXIT_CORRUPT = 2,
	EXIT_LEAKS = 3,
	EXIT_UNSUPPORTED = 63,
	OPT_DATA = 256,
};

static const struct option options[] = {
	{ "repair", required_argument, NULL, 'r' },
	{ "data", no_argument, NULL, OPT_DATA },
	VERB_JSON_OPTIONS,
	{ "format", required_argument, NULL, 'f' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "progress", no_argument, NULL, 'p' },
	{ "force-share", no_argument, NULL, 'U' },
	VERB_END_OPTIONS,
};

struct request {
	const char *path;
	enum qcow_repair repair;
	bool data, json, quiet, progress, share, raw, is_qcow2; /* the last two by -f */
};

static int take_repair(struct request *q, const char *arg)
{
	static const char *const words[] = { "leaks", "all", NULL };
	int i = verb_pick(arg, words);

	q->repair = i ? QCOW_REPAIR_ALL : QCOW_REPAIR_LEAKS;
	return i < 0 ? verb_complain("--repair", arg) : 0;
}

static int take(void *request, int opt)
{
	struct request *q = request;

	switch (opt) {
	case 'r':
		return take_repair(q, optarg);
	case OPT_DATA:
		q->data = true;
		return 0;
	case VERB_JSON:
	case VERB_OUTPUT:
		return verb_take_output(opt, &q->json);
	case 'f':
		q->is_qcow2 = !strcmp(optarg, "qcow2");
		q->raw = !q->is_qcow2;
		return 0;
	case 'q':
		q->quiet = true;
		return 0;
	case 'p':
		q->progress = true;
		return 0;
	case 'U':
		q->share = true;
		return 0;
	}
	return -EINVAL;
}

static const struct verb verb = { help_check, "r:f:qpU", options, take, 1, 1, 0 };

static void report(void *arg, const char *text)
{
	const struct request *q = arg;

	if (!q->quiet)
		fprintf(q->json ? stderr : stdout, "%s\n", text);
}

static void progress(void *arg, uint64_t done, uint64_t total)
{
	const struct request *q = arg;

	if (q->progress && !q->quiet)
		fprintf(stderr, "\r    (%.1f/100%%)",
			total && done < total ? 100.0 * (double)done / (double)total : 100.0);
}

static void add(json_object *o, const char *key, uint64_t value, bool always)
{
	if (value || always)
		json_object_object_add(o, key, json_object_new_uint64(value));
}

static void print_json(const struct request *q, const struct qcow_check_result *r)
{
	json_object *o = json_object_new_object();

	add(o, "image-end-offset", r->image_end, false);
	add(o, "total-clusters", r->total, false);
	add(o, "check-errors", r->check_errors, true);
	add(o, "corruptions", r->corruptions, false);
	add(o, "leaks", r->leaks, false);
	add(o, "corruptions-fixed", r->corruptions_fixed, false);
	add(o, "leaks-fixed", r->leaks_fixed, false);
	add(o, "allocated-clusters", r->allocated, false);
	add(o, "fragmented-clusters", r->fragmented, false);
	add(o, "compressed-clusters", r->compressed, false);
	json_object_object_add(o, "filename", json_object_new_string(q->path));
	json_object_object_add(o, "format", json_object_new_string("qcow2"));
	verb_print_json(o);
}

static void print_shares(const struct qcow_check_result *r)
{
	double all = r->allocated ? (double)r->allocated : 1;

	if (!r->total)
		return;
	printf("%" PRIu64 "/%" PRIu64 " = %.2f%% allocated, %.2f%% fragmented, "
	       "%.2f%% compressed clusters\n",
	       r->allocated, r->total, 100.0 * (double)r->allocated / (double)r->total,
	       100.0 * (double)r->fragmented / all, 100.0 * (double)r->compressed / all);
}

static void print_human(const struct qcow_check_result *r)
{
	if (r->corruptions_fixed || r->leaks_fixed)
		printf("Repaired: %" PRIu64 " leaked clusters, %" PRIu64 " corruptions.\n",
		       r->leaks_fixed, r->corruptions_fixed);
	if (r->corruptions)
		printf("\n%" PRIu64 " errors were found on the image.\n"
		       "Data may be corrupted, or further writes to the image may corrupt it.\n",
		       r->corruptions);
	if (r->leaks)
		printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
		       "This means waste of disk space, but no harm to data.\n",
		       r->leaks);
	if (!r->corruptions && !r->leaks)
		puts("No errors were found on the image.");
	print_shares(r);
	if (r->image_end)
		printf("Image end offset: %" PRIu64 "\n", r->image_end);
}

static int judge(const struct qcow_check_result *r)
{
	if (r->check_errors)
		return EXIT_FAILED;
	if (r->corruptions)
		return EXIT_CORRUPT;
	return r->leaks ? EXIT_LEAKS : EXIT_SOUND;
}

static bool has_magic(struct qcow_io *io)
{
	char first[4];

	return qcow_io_pread(io, first, sizeof(first), 0, NULL) < 0 ||
	       qcow_header_has_magic(first, sizeof(first));
}

static int check(struct request *q)
{
	struct qcow_check_params params = { .repair = q->repair,
					    .data = q->data,
					    .report = report,
					    .progress = progress,
					    .arg = q };
	struct qcow_check_result result;
	struct qcow_error err = { 0 };
	struct image_file f = { 0 };
	bool other;
	int r = image_file_open(&f, q->path, q->repair != QCOW_REPAIR_NONE, q->share, &err);

	other = !r && !q->is_qcow2 && !has_magic(f.io);
	if (!r)
		r = qcow_check(f.io, &params, &result, &err);
	image_file_close(&f);
	if (q->progress && !q->quiet)
		fputc('\n', stderr);
	if (r < 0) {
		fprintf(stderr, "qcow: %s: %s\n", q->path, err.text);
		return other ? EXIT_UNSUPPORTED : EXIT_FAILED;
	}
	if (q->json)
		print_json(q, &result);
	else if (!q->quiet)
		print_human(&result);
	return judge(&result);
}

int cmd_check(int argc, char **argv)
{
	struct request q = { 0 };
	int status = verb_parse(&verb, argc, argv, &q);

	if (status >= 0)
		return status;
	if (q.raw) {
		fputs("qcow: only qcow2 images can be checked\n", stderr);
		return EXIT_UNSUPPORTED;
	}
	q.path = argv[optind];
	return check(&q);
}
