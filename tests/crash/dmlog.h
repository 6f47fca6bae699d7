/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The log that the kernel's dm-log-writes target writes: a sector with the head, then for each
 * entry a sector that describes it and the sectors it wrote, in the order in which writes were
 * known to be on the disk. Writes without FUA stand before the flush that covers them.
 */
#ifndef TESTS_DMLOG_H
#define TESTS_DMLOG_H

#include "../integration/expect.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DMLOG_MAGIC   0x6a736677736872ULL
#define DMLOG_FLUSH   (1U << 0)
#define DMLOG_FUA     (1U << 1)
#define DMLOG_DISCARD (1U << 2)
#define DMLOG_MARK    (1U << 3)

struct dmlog_head_disk {
	uint64_t magic, version, nr_entries;
	uint32_t sector_size;
} __attribute__((packed));

struct dmlog_entry_disk {
	uint64_t sector, nr_sectors, flags, data_len;
};

/* In 512-byte sectors. */
struct dmlog_entry {
	uint64_t sector, nr;
	unsigned int flags;
	uint32_t mark; /* MARK: its number, 0 for one that has none */
	bool paused;   /* between the marks "pause" and "go": somebody else wrote */
	uint32_t goes; /* how often that was, up to here */
	const unsigned char *data;
	bool *overtaken; /* for each sector, or NULL: see overtaken.h */
};

struct dmlog {
	uint64_t nr_entries;
	struct dmlog_entry *entries;
};

static inline void *map_file(const char *path, size_t *size, bool writable)
{
	int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	struct stat st;
	void *map;

	if (fd < 0 || fstat(fd, &st))
		die("%s: cannot open", path);
	*size = (size_t)st.st_size;
	map = mmap(NULL, *size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("%s: cannot map", path);
	close(fd);
	return map;
}

static inline void dmlog_mark(struct dmlog_entry *entry, const unsigned char *sector,
			      uint64_t length)
{
	char text[32] = { 0 };

	if (length >= sizeof(text))
		return;
	memcpy(text, sector + sizeof(struct dmlog_entry_disk), length);
	entry->mark = (uint32_t)strtoul(text, NULL, 10);
	if (!strcmp(text, "pause"))
		entry->paused = true;
	if (strcmp(text, "go"))
		return;
	entry->paused = false;
	entry->goes++;
}

static inline void dmlog_open(struct dmlog *log, const char *path)
{
	struct dmlog_head_disk head;
	uint64_t pos, unit;
	const unsigned char *map;
	size_t size;

	map = map_file(path, &size, false);
	memcpy(&head, map, sizeof(head));
	unit = le32toh(head.sector_size);
	if (le64toh(head.magic) != DMLOG_MAGIC || unit < SECTOR)
		die("%s: no log in there", path);
	log->nr_entries = le64toh(head.nr_entries);
	log->entries = calloc(log->nr_entries, sizeof(log->entries[0]));
	if (!log->entries)
		die("out of memory");
	pos = unit;
	for (uint64_t i = 0; i < log->nr_entries; i++) {
		struct dmlog_entry *entry = &log->entries[i];
		struct dmlog_entry_disk disk;

		if (pos + unit > size)
			die("%s: ends in entry %llu", path, (unsigned long long)i);
		memcpy(&disk, map + pos, sizeof(disk));
		entry->sector = le64toh(disk.sector) * (unit / SECTOR);
		entry->nr = le64toh(disk.nr_sectors) * (unit / SECTOR);
		entry->flags = (unsigned int)le64toh(disk.flags);
		entry->paused = i > 0 && entry[-1].paused;
		entry->goes = i > 0 ? entry[-1].goes : 0;
		if (entry->flags & DMLOG_MARK)
			dmlog_mark(entry, map + pos, le64toh(disk.data_len));
		pos += unit;
		entry->data = map + pos;
		if (!(entry->flags & DMLOG_DISCARD))
			pos += entry->nr * SECTOR;
		if (pos > size)
			die("%s: ends in entry %llu", path, (unsigned long long)i);
	}
}

#endif
