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
	local meta=$2 headers release
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

# unpack_image OUT: OUT/deb has the image's package
unpack_image() {
	local out=$1
	dpkg-deb -x "$out"/deb/*.deb "$out/deb/tree"
	mv "$out"/deb/tree/boot/vmlinuz-* "$out/vmlinuz"
	[ -d "$out/deb/tree/lib/modules" ] || mv "$out/deb/tree/usr/lib" "$out/deb/tree/lib"
	pack_modules "$out/deb/tree" "$out"
	rm -rf "$out/deb"
}
