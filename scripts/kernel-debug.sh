# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The kernel with every checker on, built from Debian's source package. Sourced by scripts/kernel.

DEBUG_FRAGMENT=$REPO/tests/vm/debug.config
# Where and when it was built must not get into the kernel: the same input, the same kernel.
DEBUG_MAKE=(make ARCH=x86_64 LOCALVERSION=-debug KBUILD_BUILD_TIMESTAMP=2025-01-01 KBUILD_BUILD_USER=dm-qcow
	KBUILD_BUILD_HOST=dm-qcow)

debug_kernel() {
	local version key
	# shellcheck disable=SC2016
	version=$(dpkg-query -W -f '${Version}' linux-source-6.12 2>/dev/null) || {
		"$REPO/scripts/deps" test >&2
		version=$(dpkg-query -W -f '${Version}' linux-source-6.12)
	}
	# To be raised when what is built from the same fragment changes.
	key=$( { cat "$DEBUG_FRAGMENT"; echo recipe 1; } | hash_of)
	once "$CACHE/kernels/debug-$version-$key" build_debug "$CACHE/build/linux-$version-$key"
	echo "$CACHE/kernels/debug-$version-$key"
}

build_debug() {
	local src=$1 out=$2
	say "building the debug kernel, once; ten minutes on two processors (log: $src.log)"
	# An interrupted build is continued: the source tree stays until it is done.
	if [ ! -d "$src" ]; then
		mkdir -p "$src.partial"
		tar -xf /usr/src/linux-source-6.12.tar.xz -C "$src.partial" --strip-components=1
		mv "$src.partial" "$src"
	fi
	configure_debug "$src"
	(cd "$src" && nice "${DEBUG_MAKE[@]}" -j"$(nproc)" bzImage modules) >"$src.log" 2>&1 || {
		tail -n 30 "$src.log" >&2
		return 1
	}
	(cd "$src" && "${DEBUG_MAKE[@]}" -s INSTALL_MOD_PATH="$out/tree" modules_install)
	# The unpacked image: QEMU enters it directly, and decompressing is slow without KVM.
	cp "$src/vmlinux" "$out/vmlinuz"
	pack_modules "$out/tree" "$out"
	rm -rf "$out/tree"
	(cd "$src" && SRCARCH=x86 srctree=. KCONFIG_CONFIG=.config CC=gcc HOSTCC=gcc MAKE=make \
		scripts/package/install-extmod-build "$out/kdir")
	rm -rf "$src"
}

# A fragment line that kconfig drops for an unmet dependency would quietly switch a checker off.
configure_debug() {
	local line
	cd "$1" || return
	"${DEBUG_MAKE[@]}" -s tinyconfig
	KCONFIG_CONFIG=.config scripts/kconfig/merge_config.sh -m .config "$DEBUG_FRAGMENT" >/dev/null
	"${DEBUG_MAKE[@]}" -s olddefconfig
	grep -E '^CONFIG_' "$DEBUG_FRAGMENT" | while read -r line; do
		grep -qxF "$line" .config || die "kconfig dropped $line"
	done
}
