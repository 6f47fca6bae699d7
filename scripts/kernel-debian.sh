# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Kernels from Debian's packages. Sourced by scripts/kernel.

# depends_of PACKAGE: the versioned package that a kernel's meta package stands for, as installed
depends_of() {
	# shellcheck disable=SC2016
	dpkg-query -W -f '${Depends}' "$1" 2>/dev/null | grep -oE 'linux-(image|headers)-[^ ,]+' | head -n 1
}

# The headers decide: they are installed, and only a kernel of exactly their release loads what they built.
debian_kernel() {
	local meta=$1 headers release
	headers=$(depends_of "$meta") || {
		"$REPO/scripts/deps" test >&2
		headers=$(depends_of "$meta")
	}
	release=${headers#linux-headers-}
	once "$CACHE/kernels/$release" unpack_debian "$release" "$meta"
	echo "$CACHE/kernels/$release"
}

unpack_debian() {
	local release=$1 meta=$2 out=$3
	say "fetching kernel $release"
	mkdir "$out/deb"
	# The archive keeps no old kernels: then headers and image must both move on.
	(cd "$out/deb" && apt-get -qq download "linux-image-$release") 2>/dev/null ||
		die "linux-image-$release is not in the archive; run: apt-get update && apt-get install $meta"
	unpack_image "$out"
	ln -s "/usr/src/linux-headers-$release" "$out/kdir"
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
