# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034 # who sources this uses the variables
# The images that power is cut under, and how their disks are laid out; for the guest and the host.

# number, variant of tests/variants.sh, what the image is on
CRASH_CASES=(
	'0 backed-part device'
	'1 v3-4k device'
	'2 extended-backed device'
	'3 snapshots device'
	'4 compressed device'
	'5 backed ext4'
	'6 data-file data'
)
CRASH_DISK=80M
# Where an image with a data file has it, on the same disk.
CRASH_DATA_MIB=16
CRASH_LOG=256M
# On a disk of its own, from 0 on: the journal; from the following MiB on: the contents of the snapshot "cut".
CRASH_NOTES=64M
CRASH_CONTENTS_MIB=16
