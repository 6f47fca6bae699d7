# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154 # the other files use or set the variables
# What is measured: up_NAME ARG... makes it and sets $dev, $offset and $size (where the data is), $raw (what
# it must be like) and, for ours, $name; down_NAME removes it.

FS=/bench
dev='' offset=0 size=0 raw='' name=''

# subject RAW: start values of the above
subject() {
	raw=$1 offset=0 name=''
	size=$(stat -c %s "$raw")
}

# ---- the ground all stand on: made once --------------------------------------------------------

image_disk='' head_size=0

# The qcow2 image lies on a RAM disk of its own; its data is in one piece, behind the metadata.
need_image_disk() {
	[ -z "$image_disk" ] || return 0
	head_size=$(stat -c %s /host/plain.head)
	ram_disk $((($(stat -c %s /host/raw) + head_size) / 1048576 + 1))
	image_disk=$disk
	cat /host/plain.head /host/raw | dd of="$image_disk" bs=1M iflag=fullblock oflag=direct status=none
}

fs_disk=''

# need_fs FILE...: an ext4 on a RAM disk that has them, as copies of those in /host
need_fs() {
	local file
	if [ -z "$fs_disk" ]; then
		ram_disk "$fs_mib"
		fs_disk=$disk
		[ "$direction" = read ] || soil "$disk" "$fs_mib"
		mkfs.ext4 -q -E lazy_itable_init=0,nodiscard "$fs_disk"
		mkdir -p "$FS"
		mount "$fs_disk" "$FS"
	fi
	for file; do
		[ -e "$FS/$file" ] || provide "$file"
	done
	sync -f "$FS"
	# Direct I/O asks the page cache first: with our copies in there it would cost more than it should.
	echo 3 >/proc/sys/vm/drop_caches
}

provide() {
	case $1 in
	plain.qcow2) cat /host/plain.head /host/raw >"$FS/plain.qcow2" ;;
	tib.qcow2) sparse tib $((1 << 40)) ;;
	big.qcow2) sparse big $((1 << 36)) ;;
	*) cp -r --sparse=never "/host/$1" "$FS/$1" ;;
	esac
}

sparse() { # sparse NAME DATA-SIZE: the image of which only the metadata is kept
	cp --sparse=never "/host/$1.head" "$FS/$1.qcow2"
	truncate -s "+$2" "$FS/$1.qcow2"
}

# ---- peers ---------------------------------------------------------------------------------------

up_ram() {
	need_image_disk
	subject /host/raw
	dev=$image_disk offset=$head_size
}

down_ram() { :; }

up_linear() {
	need_image_disk
	subject /host/raw
	dmsetup create linear --readonly --table \
		"0 $((size / 512)) linear $image_disk $((head_size / 512))"
	dev=/dev/mapper/linear
}

down_linear() {
	dmsetup remove linear
}

# Fully provisioned, 64 KiB blocks like the images' clusters.
up_thin() {
	subject /host/raw
	modprobe dm-thin-pool
	ram_disk 16
	thin_meta=$disk
	ram_disk $((size / 1048576 + 16))
	thin_data=$disk
	dmsetup create pool --table \
		"0 $(blockdev --getsz "$thin_data") thin-pool $thin_meta $thin_data 128 0 1 skip_block_zeroing"
	dmsetup message pool 0 'create_thin 0'
	dmsetup create thin --table "0 $((size / 512)) thin /dev/mapper/pool 0"
	dev=/dev/mapper/thin
	dd if="$raw" of=$dev bs=1M oflag=direct status=none
}

down_thin() {
	dmsetup remove thin
	dmsetup remove pool
	drop_ram_disk "$thin_meta"
	drop_ram_disk "$thin_data"
}

up_loop() {
	subject /host/raw
	need_fs raw
	modprobe loop
	dev=$(losetup --find --show --direct-io=on --read-only "$FS/raw")
	[ "$(losetup -n -O DIO "$dev" | tr -d ' ')" = 1 ] || die "$dev does no direct I/O"
}

down_loop() {
	losetup -d "$dev"
}

up_nbd() { # up_nbd IMAGE RAW
	subject "$2"
	serve_nbd "$1" --read-only
}

serve_nbd() { # serve_nbd IMAGE OPTION...
	local tries
	modprobe nbd nbds_max=1 max_part=0
	dev=/dev/nbd0
	qemu-nbd --format=qcow2 --cache=none --aio=native --connect="$dev" "${@:2}" "$1"
	for ((tries = 0; tries < 100; tries++)); do
		[ "$(blockdev --getsize64 $dev)" = 0 ] || return 0
		sleep 0.1
	done
	die "qemu-nbd does not serve $1"
}

down_nbd() {
	qemu-nbd --disconnect "$dev" >/dev/null
	while pgrep -x qemu-nbd >/dev/null; do sleep 0.1; done
}

# ---- ours ------------------------------------------------------------------------------------------

up_qcow() { # up_qcow IMAGE RAW
	subject "$2"
	name=bench
	qcow open --read-only $name "$1"
	dev=/dev/mapper/$name
}

down_qcow() {
	qcow close "$name"
	name=''
}
