# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154 # variables of the test that sources this, and of one_seed
# One seed of the model test: everything below runs in one_seed, whose variables it uses.

# ---- what happens meanwhile ----------------------------------------------------------------------

happened() {
	echo "$1" >>"$SCRATCH/acts"
}

can_snapshot() {
	variant_can "$variant" snapshots && [ "${#taken[@]}" -lt 4 ]
}

take_snapshot() {
	local name=s${#taken[@]}
	suspended
	qemu-img snapshot -c "$name" "$image"
	qemu-img convert -f qcow2 -O raw -l "snapshot.name=$name" "$image" "$dir/$name"
	dmsetup resume "$dev"
	taken+=("$name")
	happened snapshot
}

# The oldest that is there; if there is none, one is taken first.
drop_snapshot() {
	local name
	[ -n "$(snapshots)" ] || take_snapshot
	name=$(snapshots | head -n 1)
	suspended
	qemu-img snapshot -d "$name" "$image"
	dmsetup resume "$dev"
	rm "$dir/$name"
	happened unsnapshot
}

# Those of the guest's own that are there.
snapshots() {
	local name
	for name in ${taken[@]+"${taken[@]}"}; do
		[ ! -e "$dir/$name" ] || echo "$name"
	done
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
		happened "$1"
		;;
	snapshot) ! can_snapshot || take_snapshot ;;
	unsnapshot) ! can_snapshot || drop_snapshot ;;
	reload)
		suspended
		# The other stream may just have killed the supervisor: without one a table is refused.
		eventually 20 dmsetup load "$dev" --table "$(dmsetup table "$dev")"
		dmsetup resume "$dev"
		happened "$1"
		;;
	worker | supervisor | both | stop)
		echo "$1" >>"$SCRATCH/kills"
		kill_helpers "$1"
		echo "$1" >>"$SCRATCH/kills"
		happened "$1"
		;;
	evict)
		dmsetup message "$dev" 0 drop_caches
		happened "$1"
		;;
	esac
}

# What the table that is loaded has counted: a reload loses that of the one before.
note_counters() {
	[ "$SUBJECT" = qcow ] || return 0
	echo "$(counter "$dev" helper_deaths) $(counter "$dev" map_evicted)" >>"$SCRATCH/counters"
}

# happenings_suffice LEAST: each of ACTIONS happened so often, helpers died and pages were evicted
happenings_suffice() {
	local action nr deaths evicted
	for action in $ACTIONS; do
		nr=$(grep -cx "$action" "$SCRATCH/acts" || true)
		[ "$nr" -ge "$1" ] || fail "$action happened $nr times, not $1"
	done
	read -r deaths evicted < <(awk '{ d += $1; e += $2 } END { print d + 0, e + 0 }' "$SCRATCH/counters")
	note "$deaths deaths of helpers, $evicted pages evicted"
	# Two actions of two kinds each.
	[ "$deaths" -ge $((2 * $1)) ] || fail "too few helpers have died"
	[ "$evicted" -ge "$1" ] || fail "hardly anything was evicted"
}

# ---- the model beside it -----------------------------------------------------------------------------

run_model() {
	local line pid words
	read -ra words <<<"$ACTIONS"
	rm -f "$dir/to" "$dir/from"
	mkfifo "$dir/to" "$dir/from"
	model run --seed "$seed" --ops "$OPS" --threads $((RANDOM % 6 + 1)) --hooks $((RANDOM % (HOOKS + 1))) --break "$BREAK" \
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
		note_counters
		equal "errors" "$(counter "$dev" errors)" 0
		close_rw "$dev"
		return
	fi
	note_counters
	close_rw "$dev"
	checked "$image" "$(leaks_allowed)"
	compare_with_qemu
}

# Sets image: a copy of the variant in a file, or on the block device; if it has a data file it is that one.
place() {
	local data=$dir/data on_device=$((seed / ${#VARIANTS[@]} % 2))
	image=$dir/top
	cp --sparse=always "$made/top" "$dir"
	if [ -e "$made/data" ]; then
		cp --sparse=always "$made/data" "$dir"
		[ "$on_device" = 0 ] || data=$disk
		(cd "$dir" && qemu-img amend -q -f qcow2 -o "data_file=$data" top)
		[ "$on_device" = 0 ] || to_device "$dir/data"
	elif [ "$on_device" = 1 ]; then
		image=$disk
		to_device "$dir/top"
	fi
}

to_device() { # to_device FILE
	dd if="$1" of="$disk" bs=1M conv=nocreat,fsync status=none
	rm "$1"
	happened device
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
