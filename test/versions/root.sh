# shellcheck shell=bash
#
# Shell functions for whatever runs in a root of another Debian release. To be
# sourced after test/lib.sh, with `set -euo pipefail` in force.
#
#   roots_open NAME            looks for root and debootstrap, makes the work folder, and
#                              sees to it that all is ended and removed at exit
#   make_root RELEASE FOLDER   a minimal system
#   copy_tree FOLDER           the sources in it, at $sources/epro_etl
#   in_root FOLDER CMD         run in it, with processes and mounts that end with it
#
# EPRO_MIRROR is the mirror, EPRO_KEEP leaves the roots.

mirror=${EPRO_MIRROR:-http://deb.debian.org/debian}
scripts=/usr/share/debootstrap/scripts
sources=/usr/local/src

roots_open()
{
	if [ "$(id -u)" -ne 0 ]; then
		echo "$1: only root can make a root to run in" >&2
		exit 1
	fi
	bash "$TOP/test/setup.sh" versions
	trap close_roots EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap 'exit 129' HUP
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/epro_$1.XXXXXX")
	chmod 755 "$WORK"
}

close_roots()
{
	local status=$?

	trap - EXIT
	trap '' INT TERM HUP
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
