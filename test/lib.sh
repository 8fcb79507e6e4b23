# shellcheck shell=bash
#
# Shell functions for whatever needs a throwaway server: the demo and the
# suites of check-all. To be sourced, with `set -euo pipefail` in force.
#
#   lib_open              finds the server's programs, makes the work folder,
#                         and sees to it that all is stopped and removed at exit
#   tree_copy             a copy of the sources that the server's user can read
#   cluster_start NAME [SETTING...]    initdb and start; sets PGHOST, PGPORT, ...
#   cluster_stop NAME     stop, and fail if its log tells of a crash
#   as_server_user CMD    run as a user that may run a server
#   supervise CMD         run, ended with all its children when this script is
#
# A server refuses to run as root. Root therefore acts through the user
# "postgres" (EPRO_SERVER_USER), anybody else is that user already.
#
# What is set afterwards: TOP (the checkout), PG_CONFIG, PGBIN, PGXS_SRC (the
# tools that PGXS brings), WORK (the work folder, removed at exit unless
# EPRO_KEEP is set), TREE (after tree_copy),
# EPRO_KEY_FILE and, where test data stands beside the checkout, EPRO_DATA.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PG_CONFIG=${PG_CONFIG:-pg_config}
SERVER_USER=${EPRO_SERVER_USER:-postgres}
SUPERVISED=
WORK=

# Servers answer in English and sort by code point, whoever calls. A make that
# called us has flags and a job server of its own, which are not ours; nor are
# a stray PGDATABASE or PGOPTIONS.
export LC_ALL=C.UTF-8
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES LANGUAGE
unset PGHOST PGHOSTADDR PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGOPTIONS PGDATA PGTZ PGSSLMODE

lib_open()
{
	trap lib_close EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap 'exit 129' HUP

	PGBIN=$("$PG_CONFIG" --bindir)
	PGXS_SRC=$(dirname "$("$PG_CONFIG" --pgxs)")/..
	PGXS_SRC=$(cd "$PGXS_SRC" && pwd)
	if [ ! -x "$PGBIN/initdb" ]; then
		echo "no server programs in $PGBIN; bash test/setup.sh demo installs them" >&2
		return 1
	fi
	export PG_CONFIG PATH="$PGBIN:$PATH"

	# Not under TMPDIR: that may be closed to the server's user, and the path
	# of a socket may have 107 bytes.
	WORK=$(mktemp -d /tmp/epro_etl.XXXXXX)
	chmod 755 "$WORK"
	if [ "$(id -u)" -eq 0 ]; then
		chown "$SERVER_USER" "$WORK"
	fi
	export EPRO_KEY_FILE="$WORK/pseudonym.key"
	write_key_file "$EPRO_KEY_FILE"
}

# The way out, whatever the reason. Nothing may be left running, so a step
# that fails does not keep the next from being tried.
lib_close()
{
	local status=$? pidfile

	trap - EXIT
	trap '' INT TERM HUP
	set +e
	if [ -n "$SUPERVISED" ]; then
		end_group "$SUPERVISED"
	fi
	# The ones of TAP tests too: a test that is killed leaves its servers.
	for pidfile in $([ -z "$WORK" ] || find "$WORK" -name postmaster.pid); do
		as_server_user "$PGBIN/pg_ctl" -s -w -t 60 -D "$(dirname "$pidfile")" -m immediate stop
	done
	if [ -n "$WORK" ]; then
		if [ -n "${EPRO_KEEP:-}" ]; then
			echo "kept: $WORK"
		else
			rm -rf "$WORK"
		fi
	fi
	exit "$status"
}

# Ends the process group of a supervised command; at first politely, so that
# test programs stop the servers that they have started themselves.
end_group()
{
	local pid=$1 turns=0

	kill -TERM -- "-$pid" 2>/dev/null
	while kill -0 -- "-$pid" 2>/dev/null; do
		turns=$((turns + 1))
		if [ "$turns" -gt 100 ]; then
			kill -KILL -- "-$pid" 2>/dev/null
			break
		fi
		sleep 0.1
	done
}

# Runs a command in a process group of its own and waits for it: bash runs a
# trap at once during `wait`, but only after a foreground command has ended.
supervise()
{
	local status=0

	set -m
	"$@" </dev/null &
	SUPERVISED=$!
	set +m
	wait "$SUPERVISED" || status=$?
	SUPERVISED=
	return "$status"
}

# Runs a command as the server's user, in the work folder (which it can enter;
# it may not be able to enter the caller's).
as_server_user()
{
	if [ "$(id -u)" -eq 0 ]; then
		(cd "$WORK" && HOME=$WORK exec runuser -u "$SERVER_USER" -- "$@")
	else
		(cd "$WORK" && exec "$@")
	fi
}

# A pseudonym key: 32 random bytes in hex, readable by the server alone, and
# outside the data directory, which is what a backup takes along.
write_key_file()
{
	as_server_user sh -c \
		'umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d " \n" >"$1" && echo >>"$1"' \
		sh "$1"
}

# Sets TREE to a copy of the checkout, without what was built in it, that
# belongs to the server's user: the checkout may be closed to it, and the
# tests write results beside their inputs. Test data that is kept beside the
# checkout stays beside the copy.
tree_copy()
{
	TREE=$WORK/tree
	mkdir "$TREE"
	tar -C "$TOP" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' \
		--exclude=./results --exclude=./output_iso --exclude='tmp_check*' --exclude='./regression.*' \
		--exclude=./test/unit/build --exclude=./test/fuzz/build \
		-cf - . | tar -C "$TREE" -xf -
	if [ -d "$TOP/../shared/data" ]; then
		mkdir "$WORK/shared"
		export EPRO_DATA=$WORK/shared/data
		tar -C "$TOP/../shared" -cf - data | tar -C "$WORK/shared" -xf -
		chmod -R u+rwX,go+rX "$WORK/shared"
	fi
	chmod -R u+rwX,go+rX "$TREE"
	if [ "$(id -u)" -eq 0 ]; then
		chown -R "$SERVER_USER" "$TREE"
		[ ! -d "$WORK/shared" ] || chown -R "$SERVER_USER" "$WORK/shared"
	fi
}

# cluster_start NAME [SETTING...]: a server of its own for one purpose, heard
# on a socket in the work folder only. The settings are lines of
# postgresql.conf and win over the ones here; those of the file TEMP_CONFIG, which
# PostgreSQL's own test programs know too, win over all. Returns 1, with the log shown,
# when it does not come up (and can therefore be used in a condition).
cluster_start()
{
	local name=$1 folder=$WORK/$1
	shift

	as_server_user mkdir "$folder" "$folder/socket" || return 1
	as_server_user "$PGBIN/initdb" --no-sync -A trust -U postgres -E UTF8 --locale=C.UTF-8 \
		-D "$folder/data" >"$WORK/$name.initdb.log" 2>&1 || {
		cat "$WORK/$name.initdb.log"
		return 1
	}
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$folder/socket'"
		echo "port = 5432"
		echo "timezone = 'UTC'"
		echo "log_timezone = 'UTC'"
		echo "epro_etl.key_file = '$EPRO_KEY_FILE'"
		printf '%s\n' "$@"
		[ -z "${TEMP_CONFIG:-}" ] || cat "$TEMP_CONFIG"
	} | as_server_user tee -a "$folder/data/postgresql.conf" >/dev/null || return 1

	as_server_user "$PGBIN/pg_ctl" -s -w -t 60 -D "$folder/data" -l "$folder/server.log" start || {
		cluster_log_tail "$name"
		return 1
	}
	export PGHOST=$folder/socket PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
}

# cluster_stop NAME: returns 1 if it does not stop, or if a process of it
# crashed, which a test that tolerates a lost connection would not tell.
cluster_stop()
{
	local name=$1 log=$WORK/$1/server.log

	as_server_user "$PGBIN/pg_ctl" -s -w -t 60 -D "$WORK/$name/data" -m fast stop || {
		cluster_log_tail "$name"
		return 1
	}
	if grep -nE 'PANIC:|TRAP:|\(PID [0-9]+\) was terminated by signal|terminating any other active server processes' "$log"; then
		echo "a server process crashed (the log of cluster $name, above)" >&2
		return 1
	fi
}

cluster_log_tail()
{
	local log=$WORK/$1/server.log

	echo "--- the end of the server log of cluster $1:"
	[ ! -f "$log" ] || tail -n 40 "$log"
}

# build_and_install [MAKE VARIABLE...]: from the checkout into the server's
# folders, which takes root for Debian's server.
build_and_install()
{
	local jobs
	jobs=$(nproc)

	# Joined, not in sequence: `set -e` is off in a function whose result is asked.
	make -C "$TOP" -s -j"$jobs" --no-print-directory PG_CONFIG="$PG_CONFIG" "$@" all &&
		make -C "$TOP" -s --no-print-directory PG_CONFIG="$PG_CONFIG" install
}
