#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# Backing and data files where virtualisation managers put them: a base in another directory, a farm of symlinks to
# logical volumes, /dev/VG/LV by name. Each is refused first, by a line that says what to add; with that it opens and
# every byte is right.
# vm: --disk 512M --mem 1024
# shellcheck disable=SC2154 # use_disk sets disk1
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/devices.sh
. "$TESTS/devices.sh"
requires qemu-img qemu-io lvcreate

CONF=/etc/qcow.conf
nr=0

volume() { # volume NAME
	lvcreate -q -y -Wn -n "$1" -L 32M qcowtrust >/dev/null
	cleanup lvremove -q -f -y "qcowtrust/$1"
}

write() { # write IMAGE PATTERN OFFSET LENGTH: as whoever trusts all its names
	qemu-io -f qcow2 -c "write -q -P $2 $3 $4" "$1"
}

# refused_until WHAT REGEX IMAGE [OPTION]...: with the options, and what $CONF says by now, it opens
refused_until() {
	local what=$1 regex=$2 image=$3 conf
	shift 3
	conf=$(cat "$CONF" 2>/dev/null || true)
	rm -f "$CONF"
	refused qcow open t "$image" --read-only
	equal "lines about: $what" "$(wc -l <"$SCRATCH/said")" 1
	grep -qE -e "$regex" "$SCRATCH/said" || fail "$what: '$(cat "$SCRATCH/said")' does not match $regex"
	[ -z "$conf" ] || echo "$conf" >"$CONF"
	qemu-img convert -f qcow2 -O raw "$image" "$SCRATCH/want"
	qcow open t "$image" --read-only "$@"
	same_bytes /dev/mapper/t "$SCRATCH/want"
	qcow close t
	nr=$((nr + 1))
	note "$what: $(cat "$SCRATCH/said")"
}

other_directory() {
	mkdir -p "$SCRATCH/base" "$SCRATCH/vm"
	qemu-img create -q -f qcow2 "$SCRATCH/base/base" 8M
	write "$SCRATCH/base/base" 0x11 0 4M
	qemu-img create -q -f qcow2 -b ../base/base -F qcow2 "$SCRATCH/vm/top"
	write "$SCRATCH/vm/top" 0x22 1M 1M
	refused_until "a base in another directory" "--backing-dir $SCRATCH/base( |\$)" "$SCRATCH/vm/top" \
		--backing-dir "$SCRATCH/base"
	qemu-img create -q -f qcow2 -o "data_file=$SCRATCH/base/data,data_file_raw=on" "$SCRATCH/vm/split" 8M
	write "$SCRATCH/vm/split" 0x33 2M 2M
	refused_until "a data file in another directory" "--backing-dir $SCRATCH/base( |\$)" "$SCRATCH/vm/split" \
		--backing-dir "$SCRATCH/base"
}

volumes() {
	local name
	use_disk disk1 1 512M
	pvcreate -q "$disk1" >/dev/null
	vgcreate -q qcowtrust "$disk1" >/dev/null
	cleanup vgremove -q -f -y qcowtrust
	for name in base top data; do
		volume "$name"
	done
	qemu-img create -q -f qcow2 /dev/qcowtrust/base 16M
	write /dev/qcowtrust/base 0x44 0 8M
	qemu-img create -q -f qcow2 -b /dev/qcowtrust/base -F qcow2 "$SCRATCH/vm/on-lv"
	write "$SCRATCH/vm/on-lv" 0x55 4M 1M
	echo "volume-group qcowtrust" >"$CONF"
	refused_until "/dev/VG/LV" '"volume-group qcowtrust" to /etc/qcow.conf' "$SCRATCH/vm/on-lv"
	qemu-img create -q -f qcow2 -o data_file=/dev/qcowtrust/data,data_file_raw=on "$SCRATCH/vm/data-on-lv" 16M
	write "$SCRATCH/vm/data-on-lv" 0x66 1M 3M
	refused_until "a data file on /dev/VG/LV" '"volume-group qcowtrust" to /etc/qcow.conf' "$SCRATCH/vm/data-on-lv"
	rm "$CONF"
	refused_until "a volume the admin names" "not listed" "$SCRATCH/vm/on-lv" \
		--backing /dev/qcowtrust/base --backing-format qcow2
	echo "block-device /dev/qcowtrust/base" >"$CONF"
	refused_until "one device listed" "not listed" "$SCRATCH/vm/on-lv"
	refused qcow open t "$SCRATCH/vm/data-on-lv" --read-only
	grep -q "not listed" "$SCRATCH/said" || fail "a device that is not listed: '$(cat "$SCRATCH/said")'"
}

# domain/images/IMAGE/VOLUME -> /dev/VG/LV; an image names its base ../IMAGE/VOLUME.
farm() {
	local images=$SCRATCH/domain/images
	mkdir -p "$images/one" "$images/two"
	ln -s /dev/qcowtrust/base "$images/one/base"
	ln -s /dev/qcowtrust/top "$images/two/top"
	qemu-img create -q -f qcow2 -b ../one/base -F qcow2 "$images/two/top"
	write "$images/two/top" 0x77 6M 1M
	echo "volume-group qcowtrust" >"$CONF"
	refused_until "a farm of symlinks: its directory" "--backing-dir $images/one( |\$)" "$images/two/top" \
		--backing-dir "$images"
	rm "$CONF"
	refused qcow open t "$images/two/top" --read-only --backing-dir "$images"
	grep -q '"volume-group qcowtrust"' "$SCRATCH/said" || fail "a farm without volumes: '$(cat "$SCRATCH/said")'"
}

[ ! -e "$CONF" ] || skip "$CONF exists, and is not this test's to change"
cleanup rm -f "$CONF"
cleanup drop_device t
other_directory
volumes
farm
equal "images opened" "$nr" 7
