#!/usr/bin/env bash
#
# Runs the suites on other versions of PostgreSQL: those of Debian's later
# releases, each with its own compilers, in a root of its own.
#
#   bash test/versions/check.sh                   trixie (17) and forky (18)
#   bash test/versions/check.sh RELEASE...        these; any release of Debian's
#   SUITES='build pg_regress' ...                 some suites of check-all.sh
#   EPRO_MIRROR=URL ...                           another mirror
#   EPRO_KEEP=1 ...                               leaves the roots
#
# Takes root, about 2 GB for a root and the time of check-all.sh for each. A
# root has its own processes and mounts, which end with it, however it ends. The
# system's own PostgreSQL is not touched. The last lines have one of each root's,
# with the version; the exit code is 0 only if nothing failed in any.
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

mirror=${EPRO_MIRROR:-http://deb.debian.org/debian}
scripts=/usr/share/debootstrap/scripts
sources=/usr/local/src
# without lint: later analysers know more checks, and this release's are the ones it is held to
suites=${SUITES:-build layers hygiene readme unit unit-tsan unit-helgrind spin fuzz pg_regress isolation pgtap json-schema fhir odm pilot tap}
closings=()
good=0
bad=0

main()
{
	local releases=("$@") release

	[ ${#releases[@]} -gt 0 ] || releases=(trixie forky)
	if [ "$(id -u)" -ne 0 ]; then
		echo "versions: only root can make a root to run in" >&2
		exit 1
	fi
	bash "$TOP/test/setup.sh" versions
	trap close_roots EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/epro_versions.XXXXXX")
	chmod 755 "$WORK"
	for release in "${releases[@]}"; do
		check "$release"
	done

	echo
	printf '%s\n' "${closings[@]}"
	echo "versions: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

close_roots()
{
	local status=$?

	trap - EXIT
	trap '' INT TERM
	set +e
	if [ -n "$SUPERVISED" ]; then
		end_group "$SUPERVISED"
	fi
	if [ -n "${EPRO_KEEP:-}" ]; then
		echo "kept: $WORK"
	else
		rm -rf --one-file-system "$WORK"
	fi
	exit "$status"
}

# check RELEASE: adds its line to closings[].
check()
{
	local release=$1 root=$WORK/$1 log=$WORK/$1.log status=0 closing

	echo
	echo "==== $release ===="
	if ! make_root "$release" "$root" >"$log" 2>&1; then
		tail -n 20 "$log"
		settle 1 "$release: no root could be made from $mirror"
		return
	fi
	copy_tree "$root"

	# shellcheck disable=SC2086 # a list of words
	supervise with_log "$log" in_root "$root" bash $sources/epro_etl/test/check-all.sh $suites || status=$?
	closing=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1) || {
		closing="did not come to its closing line (exit code $status)"
		status=1
	}
	settle "$status" "$release ($(in_root "$root" pg_config --version || echo 'no PostgreSQL')): $closing"
	[ -n "${EPRO_KEEP:-}" ] || rm -rf --one-file-system "$root"
}

# settle STATUS LINE
settle()
{
	if [ "$1" -eq 0 ]; then good=$((good + 1)); else bad=$((bad + 1)); fi
	closings+=("$2")
	echo "$2"
}

# make_root RELEASE FOLDER. A release that is younger than this debootstrap is
# made as unstable is, which is how debootstrap makes every one.
make_root()
{
	local release=$1 root=$2 script=$scripts/$1

	[ -e "$script" ] || script=$scripts/sid
	supervise debootstrap --variant=minbase "$release" "$root" "$mirror" "$script" || return 1
	# A mirror that has stood still for a while is good enough for these.
	echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/50-old-mirror" || return 1
	cp /etc/resolv.conf "$root/etc/resolv.conf"
}

# The sources, and the test data that is kept beside them.
copy_tree()
{
	local root=$1

	mkdir "$root$sources/epro_etl"
	tar -C "$TOP" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' -cf - . |
		tar -C "$root$sources/epro_etl" --no-same-owner -xf -
	if [ -d "$TOP/../shared/data" ]; then
		mkdir "$root$sources/shared"
		tar -C "$TOP/../shared" -cf - data | tar -C "$root$sources/shared" --no-same-owner -xf -
	fi
}

# in_root FOLDER COMMAND...: with process ids, /proc, /dev and shared memory that
# are gone when the command, or this script, is.
in_root()
{
	# shellcheck disable=SC2016 # for the inner shell
	unshare --mount --propagation private --pid --fork --kill-child sh -euc '
		root=$1
		shift
		mount -t proc proc "$root/proc"
		mount --bind /dev "$root/dev"
		mount -t tmpfs shm "$root/dev/shm"
		exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
			${http_proxy:+"http_proxy=$http_proxy"} "$@"' sh "$@"
}

with_log()
{
	local log=$1
	shift
	"$@" 2>&1 | tee "$log"
}

main "$@"
