# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the machines share that have their root on an image.

fail() {
	echo "FAIL: $*"
	exit 1
}

# The hash of every file that the packages, and who worked with them, have left. What a boot itself changes is not in it.
manifest() {
	find /etc /usr /var/lib /root -xdev -type f -not -path '/root/ma*' -not -path '/usr/local/*' \
		-not -path '/etc/modprobe.d/*' -print0 | sort -z | xargs -0 sha256sum
}

# The machine ends as if its plug was pulled, so nothing must be left to write.
leave() {
	sync
	mount -o remount,ro /
}
