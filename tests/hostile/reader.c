// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads whole disks through the library, for scripts that judge hostile images.
 *
 * A request is a line on stdin, its fields separated by tabs:
 *     IMAGE  OUT  LIMIT  [WORD...]
 * OUT gets the disk's bytes, at most LIMIT of them ("-": nobody wants them); WORDs
 * are those of a table line. The answer is a line on stdout:
 *     refused ERRNO TEXT
 *     read SIZE [START+LENGTH...]       what could not be read, in bytes
 *     wrong TEXT                        LOAD and FETCH tell different stories
 * The disk is read by sectors where it has to be, so that one bad entry shows as
 * just that; and once more as the kernel would, by qcow_chain_resolve().
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/chain.h"

#define PIECE	  65536
#define SECTOR	  512
#define MAX_WORDS 8
#define PAGE	  512 /* blocks, as the kernel loads them */

struct disk {
	struct host_chain *hc;
	struct qcow_chain *chain;
	struct qcow_scratch *scratch;
	uint8_t *bytes; /* the first @len of the disk */
	uint8_t *bad;	/* a byte for each sector */
	uint64_t size, len;
};

static int open_chain(struct disk *d, const char *image, char **words, size_t nr,
		      struct qcow_error *err)
{
	struct host_options o;
	struct host_policy policy;
	struct host_opener opener = host_opener_local(&policy);
	struct host_chain_params params;
	int r;

	r = host_options_parse(&o, nr, words, err);
	if (r < 0)
		return r;
	r = host_policy_init(&policy, image, &o, "/nonexistent", 0, err);
	if (!r) {
		params = host_chain_params(&o, HOST_CHAIN_LOCK | HOST_CHAIN_BUFFERED_OK);
		r = host_chain_open(&d->hc, image, &params, &opener, err);
		host_policy_exit(&policy);
	}
	host_options_exit(&o);
	return r;
}

static void read_sectors(struct disk *d, uint64_t off, uint64_t len)
{
	uint64_t i;

	if (!qcow_chain_read(d->chain, off, d->bytes + off, len, d->scratch, NULL))
		return;
	for (i = off; i < off + len; i += SECTOR)
		if (qcow_chain_read(d->chain, i, d->bytes + i, SECTOR, d->scratch, NULL)) {
			d->bad[i / SECTOR] = 1;
			memset(d->bytes + i, 0, SECTOR);
		}
}

static int any_bad(const struct disk *d, uint64_t off, uint64_t len)
{
	return memchr(d->bad + off / SECTOR, 1, len / SECTOR) != NULL;
}

/* One block of a run, as the kernel would get it; NULL or what is wrong with it. */
static const char *check_block(struct disk *d, const struct qcow_run *run, uint64_t off,
			       uint64_t block, uint8_t *buf)
{
	const struct host_layer *l = host_chain_layer(d->hc, run->layer);
	uint64_t len = off + block > d->len ? d->len - off : block;
	ssize_t n;

	memset(buf, 0, block);
	if (run->type == QCOW_RUN_FETCH) {
		if (qcow_chain_read(d->chain, off, buf, block, d->scratch, NULL))
			return any_bad(d, off, len) ? NULL : "FETCH failed, the sectors did not";
		if (any_bad(d, off, len))
			return "FETCH succeeded, a sector did not";
	} else if (run->type == QCOW_RUN_DATA) {
		n = pread(l->fd, buf, block, (off_t)(run->host_off + (off - run->guest_off)));
		if (n < 0)
			return "DATA that cannot be read";
		if (any_bad(d, off, len))
			return "DATA, but it should fail";
	} else if (any_bad(d, off, len)) {
		return "ZERO, but it should fail";
	}
	return memcmp(buf, d->bytes + off, len) ? "other bytes" : NULL;
}

static const char *check_run(struct disk *d, const struct qcow_run *run, uint64_t block,
			     uint8_t *buf, uint64_t *at)
{
	const char *what = NULL;
	uint64_t off;

	for (off = run->guest_off; !what && off < run->guest_off + run->len && off < d->len;
	     off += block)
		what = check_block(d, run, *at = off, block, buf);
	return what;
}

static const char *check_resolve(struct disk *d, uint64_t *at)
{
	uint64_t block = 1ull << qcow_chain_block_bits(d->chain), off = 0, next;
	struct qcow_run runs[PAGE];
	const char *what = NULL;
	uint8_t *buf;
	size_t nr, i;

	buf = aligned_alloc(4096, block < 4096 ? 4096 : block);
	if (!buf)
		return "no memory";
	while (!what && off < d->len) {
		*at = next = off;
		/* A table that cannot be read at all fails the LOAD. */
		if (qcow_chain_resolve(d->chain, off, PAGE * block, runs, PAGE, &nr, d->scratch,
				       NULL)) {
			off += PAGE * block;
			continue;
		}
		for (i = 0; !what && i < nr; i++) {
			if (runs[i].guest_off != next)
				what = "runs with a hole";
			else
				what = check_run(d, &runs[i], block, buf, at);
			next += runs[i].len;
		}
		if (!what && next != off + PAGE * block)
			what = "runs that do not fill the page";
		off = next;
	}
	free(buf);
	return what;
}

static int write_out(const struct disk *d, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600), r = -1;
	uint64_t done;
	ssize_t n;

	if (fd < 0)
		return -1;
	for (done = 0; done < d->len; done += (uint64_t)n) {
		n = write(fd, d->bytes + done, d->len - done);
		if (n <= 0)
			goto out_close;
	}
	r = 0;
out_close:
	close(fd);
	return r;
}

static void print_bad(const struct disk *d)
{
	uint64_t i, start, nr = d->len / SECTOR;

	printf("read %" PRIu64, d->size);
	for (i = 0; i < nr; i++) {
		if (!d->bad[i])
			continue;
		for (start = i; i < nr && d->bad[i]; i++)
			;
		printf("\t%" PRIu64 "+%" PRIu64, start * SECTOR, (i - start) * SECTOR);
	}
	putchar('\n');
}

static void read_disk(struct disk *d, const char *out)
{
	const char *what;
	uint64_t off, at = 0;

	for (off = 0; off < d->len; off += PIECE)
		read_sectors(d, off, d->len - off < PIECE ? d->len - off : PIECE);
	what = check_resolve(d, &at);
	if (!what && strcmp(out, "-") && write_out(d, out))
		what = "the output cannot be written";
	if (what)
		printf("wrong %s at guest offset %#" PRIx64 "\n", what, at);
	else
		print_bad(d);
}

static void do_image(const char *image, const char *out, uint64_t limit, char **words, size_t nr)
{
	struct qcow_error err = { 0 };
	struct disk d = { 0 };
	int r;

	r = open_chain(&d, image, words, nr, &err);
	if (!r) {
		d.chain = host_chain_lib(d.hc);
		d.size = qcow_chain_size(d.chain);
		d.len = d.size < limit ? d.size : limit;
		r = qcow_scratch_create(&d.scratch, d.chain, &err);
	}
	if (!r) {
		d.bytes = aligned_alloc(4096, (d.len + 4096) & ~4095ull);
		d.bad = calloc(1, d.len / SECTOR + 1);
		r = d.bytes && d.bad ? 0 : qcow_fail(&err, ENOMEM, QCOW_NO_OFF, "no memory");
	}
	if (r)
		printf("refused %d %s\n", -r, err.text);
	else
		read_disk(&d, out);
	free(d.bytes);
	free(d.bad);
	qcow_scratch_destroy(d.scratch);
	host_chain_close(d.hc);
}

int main(void)
{
	char line[16384], *field[3 + MAX_WORDS], *rest;
	size_t nr;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		rest = line;
		for (nr = 0; nr < 3 + MAX_WORDS && rest; nr++)
			field[nr] = strsep(&rest, "\t");
		if (nr < 3)
			return 2;
		do_image(field[0], field[1], strtoull(field[2], NULL, 0), field + 3, nr - 3);
	}
	return 0;
}
