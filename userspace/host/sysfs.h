/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What sysfs says of a block device. @sys is "/sys", or a made-up tree in tests.
 * A device sysfs does not know (an anonymous one: btrfs, overlayfs, NFS) has none
 * of these properties.
 */
#ifndef QCOW_HOST_SYSFS_H
#define QCOW_HOST_SYSFS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

bool host_sysfs_zoned(const char *sys, dev_t dev);

/* The volume group of a logical volume; false if it is none. */
bool host_sysfs_vg(const char *sys, dev_t dev, char *vg, size_t room);

/* Is @dev @below, or does it stand on it: as partition, dm or md device, or loop file? */
bool host_sysfs_stands_on(const char *sys, dev_t dev, dev_t below);

#endif
