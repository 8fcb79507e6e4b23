#!/usr/bin/env bash
#
# Do the tests see anything? Puts one bug after another into a copy of the sources,
# each of a kind that a review could miss, builds that into a copy of PostgreSQL and
# runs the test that is to catch it. A bug that nobody notices is a failure here.
#
#   bash test/planted/check.sh [BUG...]    claim store account channel clean_up crew without one
#
# The last line counts: a bug that was caught has passed.
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# ---- the bugs ----

# A row that another session has changed or taken meanwhile is loaded all the same.
bug_claim()
{
	plant src/effects/claim.c 'false) != TM_Ok)' 'false) == TM_BeingModified)'
	run_test 24_batch_mix EPRO_MIX_SEED=11
}

# The last row of each full slice is in the table, but in none of its indexes.
bug_store()
{
	plant src/effects/bulk.c 'for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();' 'for (int i = 0; i < n - (n == SLICE_ROWS); i++)
		{
			CHECK_FOR_INTERRUPTS();'
	run_regress 41_indexes
}

# What is rejected of a chunk goes into quarantine up to a number.
bug_account()
{
	plant src/effects/account.c 'write_tuples("quarantine", tuples, nrejected);' 'write_tuples("quarantine", tuples, Min(nrejected, 12));'
	run_test 24_batch_mix EPRO_MIX_SEED=11
}

# A process that dies while it waits takes the wake-up along that it was given.
bug_channel()
{
	plant src/effects/channel.c 'ConditionVariableSignal(own);
}' '(void) own;
}'
	run_unit
}

# A call that is canceled leaves its workers to themselves.
bug_clean_up()
{
	plant src/processes/run.c 'stop(owned, late ? OUTCOME_TIMED_OUT : OUTCOME_CANCELED, geterrcode(),' 'if (late)
			stop(owned, OUTCOME_TIMED_OUT, geterrcode(),'
	run_test 03_cancel
}

# The other workers of a run that fails go on.
bug_crew()
{
	plant src/processes/crew.c 'while (!(ended = crew_all_ended(crew)))' 'while (!(ended = crew_all_ended(crew)) && crew->n < 0)'
	run_test 23_points EPRO_POINTS=1 EPRO_POINTS_ONLY=chunk.stored,claim.chunk,session.commit
}

# ---- how they are tried ----

main()
{
	local bugs=("$@") bug

	[ ${#bugs[@]} -gt 0 ] || bugs=(claim store account channel clean_up crew)
	bash "$TOP/test/setup.sh" all
	lib_open
	good=0
	bad=0
	for bug in "${bugs[@]}"; do
		if ! declare -F "bug_$bug" >/dev/null; then
			echo "no bug \"$bug\"" >&2
			exit 2
		fi
		echo
		echo "== $bug =="
		copy_all "$WORK/$bug"
		caught=
		"bug_$bug"
		if [ -n "$caught" ]; then good=$((good + 1)); else bad=$((bad + 1)); fi
		stop_servers
		[ -n "${EPRO_KEEP:-}" ] || rm -rf "${WORK:?}/$bug"
	done
	echo
	echo "planted: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

# copy_all FOLDER: of PostgreSQL, which finds its other folders by the way from
# its programs, and of the sources.
copy_all()
{
	local part from

	here=$1
	as_server_user mkdir -p "$here/tree" "$here/tap/tmp_check"
	for part in bindir pkglibdir sharedir includedir-server; do
		from=$("$PG_CONFIG" "--$part")
		as_server_user mkdir -p "$here/pg$from"
		as_server_user cp -R "$from/." "$here/pg$from"
	done
	copy=$here/pg$PGBIN
	if [ "$("$copy/pg_config" --bindir)" != "$copy" ]; then
		echo "the PostgreSQL of $PG_CONFIG cannot be moved" >&2
		exit 1
	fi
	tar -C "$TOP" --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' -cf - . |
		as_server_user tar -C "$here/tree" --no-same-owner -xf -
}

# plant FILE OLD NEW: OLD stands in the file once, or the bug is out of date.
plant()
{
	OLD=$2 NEW=$3 perl -0777 -i -pe '
		$n = () = /\Q$ENV{OLD}\E/g;
		die "the place is there $n times\n" if $n != 1;
		s/\Q$ENV{OLD}\E/$ENV{NEW}/' "$here/tree/$1"
}

# run_test NAME [SETTING...]: sets caught to what failed.
run_test()
{
	local name=$1 log=$here/log
	shift
	build || return 0
	# what it says after its first failure is not waited for
	supervise in_tree timeout 900 env PATH="$copy:$PATH" TMPDIR="$here" PG_TEST_TIMEOUT_DEFAULT=20 "$@" \
		TESTDIR="$here/tap" TESTDATADIR="$here/tap/tmp_check" TESTLOGDIR="$here/tap/tmp_check/log" \
		PG_TEST_PORT_DIR="$here/tap/portlock" PGPORT=64432 PG_REGRESS="$PGXS_SRC/test/regress/pg_regress" \
		sh -c 'prove -I "$1" -I . -I t "$2" 2>&1 | sed "/Failed test/q"' sh "$PGXS_SRC/test/perl" "t/$name.pl" >"$log" || echo 'it was ended'
	caught=$(sed -n "s/^# *Failed test //p" "$log" | head -n 1)
	[ -n "$caught" ] || grep -q '^Result: PASS' "$log" || caught='it did not end well'
	if [ -n "$caught" ]; then
		echo "caught by $name: $caught"
	else
		tail -n 5 "$log"
		echo "$name has not noticed"
	fi
}

# run_regress NAME: a regression script, after the one that sets up what all of them use.
run_regress()
{
	build || return 0
	PGBIN=$copy cluster_start "server_$1"
	supervise as_server_user make -C "$here/tree" -s --no-print-directory PG_CONFIG="$copy/pg_config" \
		REGRESS="01_setup $1" ISOLATION= installcheck >"$here/log" 2>&1 || caught='exit code'
	[ -z "$caught" ] || caught=$(grep -m 1 -E "^(test $1 .*FAILED|not ok)" "$here/log") || caught=
	if [ -n "$caught" ]; then
		echo "caught by $1: $caught"
	else
		tail -n 5 "$here/log"
		echo "$1 has not noticed"
	fi
	unset PGHOST PGPORT PGUSER PGDATABASE
}

build()
{
	supervise as_server_user make -C "$here/tree" -s --no-print-directory -j"$(nproc)" \
		PG_CONFIG="$copy/pg_config" POINTS=1 all install >"$here/build.log" 2>&1 && return
	tail -n 20 "$here/build.log"
	echo "the bug does not compile"
	return 1
}

# The units need no server; one that hangs says where.
run_unit()
{
	local log=$here/log

	supervise as_server_user timeout 900 make -C "$here/tree/test/unit" -s --no-print-directory PG_CONFIG="$copy/pg_config" check >"$log" 2>&1 &&
		return
	caught=$(grep -m 1 -E 'hung in|FAILED|not ok' "$log") || caught=$(grep -m 1 -E 'failed' "$log") || caught='it did not end'
	echo "caught by unit: $caught"
}

in_tree()
{
	as_server_user sh -c 'cd "$1" && shift && exec "$@"' sh "$here/tree/test" "$@"
}

# A test that is ended leaves its own.
stop_servers()
{
	find "$WORK" -name postmaster.pid | while read -r pidfile; do
		as_server_user "$PGBIN/pg_ctl" -s -w -t 60 -D "$(dirname "$pidfile")" -m immediate stop || echo "no server of $pidfile"
	done
}

main "$@"
