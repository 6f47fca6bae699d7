#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
# A machine whose root is a writable device, an overlay on a compressed image, grows its file system, installs packages
# with apt, and works with them. Booted again it has all of it; QEMU boots the same image by itself, and finds the same;
# the image and the file system on it are sound.
# kernels: 6.12
# host: tests/install/stage
# after: tests/install/again
# timeout: 900
# shellcheck source=tests/install/lib.sh
. "$(dirname "$0")/../install/lib.sh"
set -euo pipefail

[ -d /host/packages ] || { echo "skip: this machine was not made for it"; exit 77; }
[ "$(findmnt -n -o SOURCE /)" = /dev/mapper/root ] || fail "the root is $(findmnt -n -o SOURCE /)"
[ "$(dmsetup table root | cut -d' ' -f3)" = qcow ] || fail "the root is no qcow device"
resize2fs /dev/mapper/root

cd /host/packages
# shellcheck disable=SC2046 # several files
DEBIAN_FRONTEND=noninteractive dpkg -i $(cat first)
echo "deb [trusted=yes] file:/host/packages ./" >/etc/apt/sources.list
apt-get -q update
# shellcheck disable=SC2046 # several packages
DEBIAN_FRONTEND=noninteractive apt-get -q -y install $(cat wanted)
[ -z "$(dpkg --audit)" ] || fail "$(dpkg --audit)"

mkdir /root/repository
cd /root/repository
cp -r /usr/share/perl /etc .
git init -q
git add .
git -c user.name=test -c user.email=test@localhost commit -q -m "what there was"
git gc -q
sqlite3 /root/database 'create table t (n integer); with recursive c(n) as (select 1 union all select n + 1 from c
	limit 1000) insert into t select n from c'
cd /

# As in life, a helper dies meanwhile.
kill -KILL "$(pgrep -n -x qcowd)"
manifest >/root/manifest
qcow status root
[ "$(dmsetup status root | grep -o ' errors [0-9]*')" = " errors 0" ] || fail "the device had errors"
leave
