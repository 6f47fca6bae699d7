// SPDX-License-Identifier: GPL-2.0-only
#include "lib/foreign.h"

#include <errno.h>
#include <string.h>

#include "lib/window.h"

struct signature {
	const char *what, *qemu_name;
	uint16_t off, len;
	const char *bytes;
};

static const struct signature signatures[] = {
	{ "a VMDK image", "vmdk", 0, 4, "KDMV" },
	{ "a VMDK image", "vmdk", 0, 4, "COWD" },
	{ "a VMDK descriptor", "vmdk", 0, 21, "# Disk DescriptorFile" },
	{ "a VDI image", "vdi", 64, 4, "\x7f\x10\xda\xbe" },
	{ "a VHD image", "vpc", 0, 8, "conectix" },
	{ "a VHDX image", "vhdx", 0, 8, "vhdxfile" },
	{ "a Parallels image", "parallels", 0, 16, "WithoutFreeSpace" },
	{ "a Parallels image", "parallels", 0, 16, "WithouFreSpacExt" },
	{ "a QED image", "qed", 0, 4, "QED" },
	{ "a LUKS container", "luks", 0, 6, "LUKS\xba\xbe" },
};

static int fail_with(const char *what, const char *qemu_name, struct qcow_error *err)
{
	if (!strcmp(qemu_name, "luks"))
		return qcow_fail(err, ENOTSUP, 0,
				 "not a qcow2 image but %s; decrypt it with: " QCOW_LUKS_CONVERT,
				 what);
	return qcow_fail(err, ENOTSUP, 0,
			 "not a qcow2 image but %s; convert it with: "
			 "qemu-img convert -f %s -O qcow2 OLD NEW",
			 what, qemu_name);
}

/* A VHD of fixed size says so at its end only. */
static int has_vhd_footer(struct qcow_window *w, bool *has, struct qcow_error *err)
{
	uint64_t size;
	char buf[8];
	int r = qcow_io_size(w->io, &size, err);

	*has = false;
	if (r < 0 || size < 512)
		return r;
	r = qcow_window_read(w, buf, sizeof(buf), size - 512, err);
	*has = !r && !memcmp(buf, "conectix", sizeof(buf));
	return r;
}

int qcow_foreign_fail(struct qcow_io *io, struct qcow_error *err)
{
	const struct signature *s;
	struct qcow_window w;
	char buf[128];
	bool has;
	int r;

	qcow_window_init(&w, io);
	r = qcow_window_read(&w, buf, sizeof(buf), 0, err);
	if (r < 0)
		return r;
	for (s = signatures; s < signatures + sizeof(signatures) / sizeof(*signatures); s++)
		if (!memcmp(buf + s->off, s->bytes, s->len))
			return fail_with(s->what, s->qemu_name, err);
	r = has_vhd_footer(&w, &has, err);
	if (r < 0)
		return r;
	if (has)
		return fail_with("a VHD image of fixed size", "vpc", err);
	return qcow_fail(err, EINVAL, 0, "not a qcow2 image: no qcow2 magic at its beginning");
}
