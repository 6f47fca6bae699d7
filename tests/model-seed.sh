# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # variables of the test that sources this, and of one_seed
# One seed of the model test: everything below runs in one_seed, whose variables it uses.

# ---- what happens meanwhile ----------------------------------------------------------------------

take_snapshot() {
	local name=s${#taken[@]}
	if ! variant_can "$variant" snapshots || [ "${#taken[@]}" -ge 4 ]; then
		return
	fi
	suspended
	qemu-img snapshot -c "$name" "$image"
	qemu-img convert -f qcow2 -O raw -l "snapshot.name=$name" "$image" "$dir/$name"
	dmsetup resume "$dev"
	taken+=("$name")
}

drop_snapshot() {
	local name=${taken[0]-}
	if [ -z "$name" ] || [ ! -e "$dir/$name" ]; then
		return
	fi
	suspended
	qemu-img snapshot -d "$name" "$image"
	dmsetup resume "$dev"
	rm "$dir/$name"
}

# A killed helper of either stream may leave leaks behind.
kills() {
	wc -l <"$SCRATCH/kills"
}

leaks_allowed() {
	[ "$(kills)" = "$kills_before" ] || echo leaks
}

suspended() {
	dmsetup suspend "$dev"
	equal "image word after suspend" "$(dmsetup status "$dev" | cut -d' ' -f6)" closed
	checked "$image" "$(leaks_allowed)"
}

act() {
	echo "action $1"
	case $1 in
	suspend)
		suspended
		dmsetup resume "$dev"
		;;
	snapshot) take_snapshot ;;
	unsnapshot) drop_snapshot ;;
	reload)
		suspended
		# The other stream may just have killed the supervisor: without one a table is refused.
		eventually 20 dmsetup load "$dev" --table "$(dmsetup table "$dev")"
		dmsetup resume "$dev"
		;;
	worker | supervisor | both | stop)
		echo "$1" >>"$SCRATCH/kills"
		kill_helpers "$1"
		echo "$1" >>"$SCRATCH/kills"
		;;
	evict) dmsetup message "$dev" 0 drop_caches ;;
	esac
	echo "$1" >>"$SCRATCH/acts"
}

# ---- the model beside it -----------------------------------------------------------------------------

run_model() {
	local line pid words
	read -ra words <<<"$ACTIONS"
	rm -f "$dir/to" "$dir/from"
	mkfifo "$dir/to" "$dir/from"
	model run --seed "$seed" --ops "$OPS" --threads $((RANDOM % 6 + 1)) --hooks $((RANDOM % 3)) --break "$BREAK" \
		--initial "$made/raw" --state "$dir/state" "$(node "$dev")" <"$dir/to" >"$dir/from" &
	pid=$!
	exec 5>"$dir/to" 6<"$dir/from"
	while read -r line <&6; do
		echo "$line"
		[[ $line == hook* ]] || continue
		act "${words[RANDOM % ${#words[@]}]}"
		echo >&5
	done
	exec 5>&- 6<&-
	wait "$pid"
}

compare_with_qemu() {
	local file
	qemu-img convert -f qcow2 -O raw "$image" "$dir/raw"
	model verify --state "$dir/state" "$dir/raw"
	for file in "$dir"/s[0-9]*; do
		[ -e "$file" ] || continue
		qemu-img convert -f qcow2 -O raw -l "snapshot.name=${file##*/}" "$image" "$dir/raw"
		cmp "$file" "$dir/raw"
	done
}

# Both ways to a clean image, in turn: closing, and suspending, after which all goes on.
finish() {
	if [ "$SUBJECT" = qcow ] && [ $((seed % 2)) = 0 ]; then
		suspended
		compare_with_qemu
		dmsetup resume "$dev"
		model verify --state "$dir/state" "$(node "$dev")"
		equal "errors" "$(counter "$dev" errors)" 0
		close_rw "$dev"
		return
	fi
	close_rw "$dev"
	checked "$image" "$(leaks_allowed)"
	compare_with_qemu
}

# Sets image: a copy of the variant in a file, or on the block device.
place() {
	image=$dir/top
	cp --sparse=always "$made/top" "$dir"
	if [ -e "$made/data" ]; then
		cp --sparse=always "$made/data" "$dir"
		(cd "$dir" && qemu-img amend -q -f qcow2 -o "data_file=$dir/data" top)
	fi
	if [ $((seed / ${#VARIANTS[@]} % 2)) = 1 ] && variant_can "$variant" device; then
		image=$disk
		dd if="$dir/top" of="$disk" bs=1M conv=nocreat,fsync status=none
		rm "$dir/top"
	fi
}

# one_seed SEED DEVICE DISK
one_seed() {
	local seed=$1 dev=$2 disk=$3 dir=$SCRATCH/$2 variant made image kills_before options=() taken=()
	RANDOM=$seed
	variant=${VARIANT:-$(variant_of "$seed")}
	made=$VARIANTS_AT/$variant
	rm -rf "$dir"
	mkdir "$dir"
	place
	[ $((RANDOM % 2)) = 0 ] || options=(--map-budget 16 --cache-budget 64)
	echo "seed $seed: $variant in $image ${options[*]-}"
	echo "seed $seed: $variant in $image ${options[*]-}" >>"$SCRATCH/seeds"
	kills_before=$(kills)
	open_rw "$dev" "$image" --backing-dir "$VARIANTS_AT" --helper-timeout 120 ${options[@]+"${options[@]}"}
	run_model
	finish
	echo "$seed $variant" >>"$SCRATCH/results"
}
