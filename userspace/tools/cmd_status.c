// SPDX-License-Identifier: GPL-2.0-only
/* qcow status [NAME] [--json]: what the kernel says of our devices. */
#include "man/help.h"
#include "tools/cmd.h"
#include "tools/device.h"
#include "tools/status.h"
#include "tools/verb.h"

#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct option options[] = {
	{ "json", no_argument, NULL, VERB_JSON },
	VERB_END_OPTIONS,
};

/* ---- for people ---------------------------------------------------------------------- */

static void print_table(const struct device_target *target)
{
	struct table_words table;

	if (table_words_parse(&table, target->params)) {
		printf("  table:   %s\n", target->params);
		return;
	}
	printf("  image:   %s\n", table.words[0]);
	if (table.nr > 1)
		printf("  options:");
	for (size_t i = 1; i < table.nr; i++)
		printf(" %s%s", table.words[i], i + 1 == table.nr ? "\n" : "");
	table_words_exit(&table);
}

/* The helper's words mostly end with what the error is. */
static bool says_it(const char *text, const char *error)
{
	size_t len = strlen(text), tail = strlen(error);

	return len >= tail && !strcmp(text + len - tail, error);
}

static void print_failure(const struct status *status, const char *name, const char *title)
{
	struct status_failure f;

	if (!status_failure(status, name, &f))
		return;
	printf("  %s %s: %s", title, f.op, f.at);
	if (f.offset)
		printf(" at byte %s", f.offset);
	if (f.error && !says_it(f.at, strerror(f.error)))
		printf(": %s", strerror(f.error));
	putchar('\n');
}

static void print_status(const struct device_target *target)
{
	struct status status;

	if (!target->status || status_parse(&status, target->status)) {
		printf("  status:  %s\n", target->status ? target->status : "unknown");
		return;
	}
	printf("  mode:    %s, image %s, helper %s\n", status.mode, status.image, status.helper);
	print_failure(&status, "mode", "since:  ");
	print_failure(&status, "last", "failed: ");
	for (size_t i = 0; i < status.nr_pairs; i++)
		if (status_is_counter(&status.pairs[i]))
			printf("  %-14s %s\n", status.pairs[i].key, status.pairs[i].value);
	status_exit(&status);
}

static const char *device_state(const struct device *device)
{
	if (!device->has_table)
		return "no table";
	return device->suspended ? "suspended" : "active";
}

static int print_device(const struct device *device, void *arg)
{
	(void)arg;
	printf("%s: dm-%u (%u:%u), %s, %s, open count %d\n", device->name, device->minor,
	       device->major, device->minor, device_state(device),
	       device->read_only ? "read-only" : "read-write", device->open_count);
	for (size_t i = 0; i < device->nr_targets; i++) {
		const struct device_target *target = &device->targets[i];

		printf("  size:    %" PRIu64 " sectors", target->length);
		printf(target->start ? " from sector %" PRIu64 "\n" : "\n", target->start);
		if (strcmp(target->type, DEVICE_TARGET)) {
			printf("  target:  %s\n", target->type);
			continue;
		}
		print_table(target);
		print_status(target);
	}
	return 0;
}

/* ---- for programs --------------------------------------------------------------------- */

static void add_string(struct json_object *to, const char *key, const char *value)
{
	json_object_object_add(to, key, json_object_new_string(value));
}

static void add_uint(struct json_object *to, const char *key, uint64_t value)
{
	json_object_object_add(to, key, json_object_new_uint64(value));
}

static void add_bool(struct json_object *to, const char *key, bool value)
{
	json_object_object_add(to, key, json_object_new_boolean(value));
}

static void add_table(struct json_object *to, const struct device_target *target)
{
	struct json_object *list = json_object_new_array();
	struct table_words table;

	add_string(to, "table", target->params);
	if (!table_words_parse(&table, target->params)) {
		add_string(to, "image", table.words[0]);
		for (size_t i = 1; i < table.nr; i++)
			json_object_array_add(list, json_object_new_string(table.words[i]));
		table_words_exit(&table);
	}
	json_object_object_add(to, "options", list);
}

/* Values are numbers today; a word that is none stays a string. */
static struct json_object *pair_value(const char *text)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end)
		return json_object_new_string(text);
	return json_object_new_uint64(value);
}

static void add_failure(struct json_object *to, const char *key, const struct status *status,
			const char *name)
{
	struct json_object *out;
	struct status_failure f;

	if (!status_failure(status, name, &f))
		return;
	out = json_object_new_object();
	add_string(out, "operation", f.op);
	add_uint(out, "errno", (uint64_t)f.error);
	add_string(out, "where", f.at);
	if (f.offset)
		json_object_object_add(out, "offset", pair_value(f.offset));
	json_object_object_add(to, key, out);
}

static void add_status(struct json_object *to, const struct device_target *target)
{
	struct json_object *counters;
	struct status status;

	if (!target->status || status_parse(&status, target->status))
		return;
	add_string(to, "mode", status.mode);
	add_string(to, "helper", status.helper);
	add_string(to, "image-state", status.image);
	add_failure(to, "mode-reason", &status, "mode");
	add_failure(to, "last-error", &status, "last");
	counters = json_object_new_object();
	for (size_t i = 0; i < status.nr_pairs; i++)
		if (status_is_counter(&status.pairs[i]))
			json_object_object_add(counters, status.pairs[i].key,
					       pair_value(status.pairs[i].value));
	json_object_object_add(to, "counters", counters);
	status_exit(&status);
}

static struct json_object *json_target(const struct device_target *target)
{
	struct json_object *out = json_object_new_object();

	add_string(out, "type", target->type);
	add_uint(out, "start", target->start);
	add_uint(out, "length", target->length);
	if (strcmp(target->type, DEVICE_TARGET))
		return out;
	add_table(out, target);
	add_status(out, target);
	return out;
}

static struct json_object *json_device(const struct device *device)
{
	struct json_object *out = json_object_new_object(), *targets = json_object_new_array();

	add_string(out, "name", device->name);
	add_string(out, "uuid", device->uuid);
	add_uint(out, "major", device->major);
	add_uint(out, "minor", device->minor);
	add_string(out, "state", device_state(device));
	add_bool(out, "read-only", device->read_only);
	add_uint(out, "open-count", device->open_count > 0 ? (uint64_t)device->open_count : 0);
	for (size_t i = 0; i < device->nr_targets; i++)
		json_object_array_add(targets, json_target(&device->targets[i]));
	json_object_object_add(out, "targets", targets);
	return out;
}

static int collect_device(const struct device *device, void *arg)
{
	json_object_array_add(arg, json_device(device));
	return 0;
}

/* ---- the verb ------------------------------------------------------------------------- */

static int show_one(const char *name, bool json)
{
	struct device device;
	int r;

	r = device_read(name, &device);
	if (!r && !device_is_qcow(&device)) {
		device_exit(&device);
		r = -ENXIO;
	}
	if (r == -ENXIO)
		fprintf(stderr, "qcow: no qcow device is named '%s'\n", name);
	else if (r)
		fprintf(stderr, "qcow: cannot read device '%s': %s\n", name, strerror(-r));
	if (r)
		return 1;
	if (json)
		verb_print_json(json_device(&device));
	else
		print_device(&device, NULL);
	device_exit(&device);
	return 0;
}

static int show_all(bool json)
{
	struct json_object *list = json ? json_object_new_array() : NULL;
	int r = device_for_each(json ? collect_device : print_device, list);

	if (r)
		fprintf(stderr, "qcow: cannot list the devices: %s\n", strerror(-r));
	if (r)
		json_object_put(list);
	else if (json)
		verb_print_json(list);
	return r ? 1 : 0;
}

static int take(void *json, int opt)
{
	(void)opt; /* the only one */
	*(bool *)json = true;
	return 0;
}

static const struct verb verb = { help_status, NULL, options, take, 0, 1, 0 };

int cmd_status(int argc, char **argv)
{
	bool json = false;
	int status = verb_parse(&verb, argc, argv, &json);

	if (status >= 0)
		return status;
	if (device_init())
		return 1;
	return optind < argc ? show_one(argv[optind], json) : show_all(json);
}
