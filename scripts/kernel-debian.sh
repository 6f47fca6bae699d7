# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Kernels from Debian's packages. Sourced by scripts/kernel.

# depends_of PACKAGE REGEX: what a package in the archive depends on, as far as it matches
depends_of() {
	apt-cache depends --important "$1" 2>/dev/null | sed -nE "s/^[ |]*Depends: ($2)\$/\\1/p"
}

# Nothing of a kernel is installed: Debian's headers depend on the image, whose installation would make the
# machine boot another kernel.
debian_kernel() {
	local meta=$1 headers release
	headers=$(depends_of "$meta" 'linux-headers-.*')
	if [ -z "$headers" ] && [ "$(id -u)" = 0 ]; then
		apt-get -q -o DPkg::Lock::Timeout=600 update >&2
		headers=$(depends_of "$meta" 'linux-headers-.*')
	fi
	[ -n "$headers" ] || die "apt knows no $meta: are bookworm and bookworm-security among its sources?"
	release=${headers#linux-headers-}
	once "$CACHE/kernels/debian-$release" unpack_debian "$release"
	echo "$CACHE/kernels/debian-$release"
}

unpack_debian() {
	local release=$1 out=$2 parts
	say "fetching kernel $release"
	mapfile -t parts < <(depends_of "linux-headers-$release" 'linux-(headers|kbuild)-.*')
	mkdir "$out/deb"
	# The archive keeps no old kernels.
	(cd "$out/deb" && apt-get -qq download "linux-image-$release" "linux-headers-$release" "${parts[@]}") 2>/dev/null ||
		die "linux-image-$release is not in the archive any more; run: apt-get update"
	mkdir "$out/headers" "$out/deb/headers"
	mv "$out"/deb/linux-{headers,kbuild}-*.deb "$out/deb/headers"
	unpack_headers "$out" "$release"
	unpack_image "$out"
}

# Wherever they lie, not below /usr.
unpack_headers() {
	local out=$1 release=$2 deb makefile
	for deb in "$out"/deb/headers/*.deb; do
		dpkg-deb -x "$deb" "$out/headers"
	done
	makefile=$out/headers/usr/src/linux-headers-$release/Makefile
	# shellcheck disable=SC2016 # for make
	sed -i 's|^include /usr/src/|include $(dir $(lastword $(MAKEFILE_LIST)))../|' "$makefile"
	! grep -q '^include /' "$makefile" || die "the Makefile of linux-headers-$release is not as expected"
	ln -s "headers/usr/src/linux-headers-$release" "$out/kdir"
}

# unpack_image OUT: OUT/deb has the image's packages
unpack_image() {
	local out=$1 deb
	for deb in "$out"/deb/*.deb; do
		dpkg-deb -x "$deb" "$out/deb/tree"
	done
	find "$out/deb/tree" -name 'vmlinuz*' -type f -exec mv {} "$out/vmlinuz" \;
	[ -d "$out/deb/tree/lib/modules" ] || mv "$out/deb/tree/usr/lib" "$out/deb/tree/lib"
	pack_modules "$out/deb/tree" "$out"
	rm -rf "$out/deb"
}

# The newest kernel: its headers want a newer compiler than bookworm's, so its Debian comes along.
backports_kernel() {
	once "$CACHE/kernels/7.2" unpack_backports
	echo "$CACHE/kernels/7.2"
}

unpack_backports() {
	local out=$1 uri release
	[ "$(id -u)" = 0 ] || die "making the build root of kernel 7.2 needs root"
	uri=$(debian_uri)
	[ -n "$uri" ] || die "apt knows no Debian archive (apt-get update?)"
	say "making the build root of kernel 7.2 (trixie), once; some minutes"
	# shellcheck disable=SC2016
	mmdebstrap --quiet --variant=apt --include=gcc,libc6-dev,make,linux-headers-cloud-amd64/trixie-backports \
		--customize-hook='cd "$1" && mkdir deb && chmod 777 deb && chroot . sh -euc "cd deb
			release=\$(ls /usr/src | sed -n s/linux-headers-//p | grep cloud)
			for part in base binary modules; do apt-get -qq download linux-\$part-\$release; done"' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		trixie "$out/root" "deb $uri trixie main" "deb $uri trixie-backports main" >&2
	mv "$out/root/deb" "$out/deb"
	rm -rf "$out"/root/var/lib/apt/lists/*
	unpack_image "$out"
	release=$(cat "$out/release")
	[[ $release == 7.2* ]] || say "note: trixie-backports has moved on to $release"
	ln -s "/usr/src/linux-headers-$release" "$out/kdir"
}
