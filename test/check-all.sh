#!/usr/bin/env bash
#
# Runs every suite: on throwaway servers, as a user that is not root, on a copy
# of the tree. Each suite closes with a line "NAME: N passed, N failed"; one
# that fails does not keep the others from running. The last line counts over
# all suites, and the exit code is 0 only if nothing failed.
#
#   bash test/check-all.sh              everything
#   bash test/check-all.sh SUITE...     some suites (see below), for a quick look
#   EPRO_KEEP=1 ...                     leaves servers' folders, logs and results
#
# What counts as one test is what the suite's own runner counts: a regression
# script, an isolation spec, an assertion of TAP or pgTAP, a rule of layers and
# hygiene, a compiler of build. A suite that ran no test has failed: a suite
# that nobody sees stop running protects nothing.
set -euo pipefail
# shellcheck source=test/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

all_suites=(build lint layers hygiene sqlcheck readme unit unit-tsan unit-helgrind spin fuzz pg_regress isolation pgtap json-schema fhir odm pilot tap points)
passed=0
failed=0
skipped=0
failures=()

main()
{
	local suites=("$@") suite

	[ ${#suites[@]} -gt 0 ] || suites=("${all_suites[@]}")
	for suite in "${suites[@]}"; do
		if ! declare -F "suite_$suite" >/dev/null; then
			echo "no suite \"$suite\"; there are: ${all_suites[*]}" >&2
			exit 2
		fi
	done

	bash "$TOP/test/setup.sh" all
	lib_open
	tree_copy
	built=
	for suite in "${suites[@]}"; do
		echo
		echo "== $suite =="
		SECONDS=0
		"suite_$suite"
		echo "($suite took $SECONDS s)"
	done
	closing
}

closing()
{
	echo
	if [ ${#failures[@]} -gt 0 ]; then
		echo "failed: ${failures[*]}"
	fi
	echo "$passed passed, $failed failed$([ $skipped -eq 0 ] || echo ", $skipped skipped")"
	[ $failed -eq 0 ] && [ $passed -gt 0 ]
}

# report SUITE PASSED FAILED [SKIPPED]: closes a suite.
report()
{
	local suite=$1 good=$2 bad=$3 not_run=${4:-0}

	if [ $((good + bad + not_run)) -eq 0 ]; then
		echo "$suite: ran no test"
		bad=1
	fi
	echo "$suite: $good passed, $bad failed$([ "$not_run" -eq 0 ] || echo ", $not_run skipped")"
	tally "$suite" "$good" "$bad" "$not_run"
}

# tally SUITE PASSED FAILED SKIPPED: for the last line.
tally()
{
	passed=$((passed + $2))
	failed=$((failed + $3))
	skipped=$((skipped + $4))
	[ "$3" -eq 0 ] || failures+=("$1")
}

# fail SUITE REASON: closes a suite that could not be run.
fail()
{
	echo "$1: $2"
	report "$1" 0 1
}

# skip SUITE REASON
skip()
{
	echo "$1: skipped: $2"
	report "$1" 0 0 1
}

# logged SUITE COMMAND...: runs it with its output shown and kept in
# $WORK/SUITE.log; the exit code goes to `status`, since a failure is a result
# here and not the end.
logged()
{
	local suite=$1
	shift
	status=0
	supervise with_log "$WORK/$suite.log" "$@" || status=$?
}

with_log()
{
	local log=$1
	shift
	"$@" 2>&1 | tee "$log"
}

# count_closing SUITE: takes the counts from the suite's own closing line,
# "SUITE: N passed, N failed" (a word may follow the suite's name). No such
# line: it died on the way. And the exit code must agree with the line.
count_closing()
{
	local suite=$1 line good bad

	line=$(grep -E "^$suite( [a-z]+)?: [0-9]+ passed, [0-9]+ failed" "$WORK/$suite.log" | tail -n 1) || {
		fail "$suite" "did not come to its closing line (exit code $status)"
		return
	}
	good=$(sed -E 's/.*: ([0-9]+) passed.*/\1/' <<<"$line")
	bad=$(sed -E 's/.* ([0-9]+) failed.*/\1/' <<<"$line")
	if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
		fail "$suite" "exit code $status, though nothing failed by its own count"
	elif [ $((good + bad)) -eq 0 ]; then
		report "$suite" 0 0
	else
		tally "$suite" "$good" "$bad" 0
	fi
}

# The database suites test what is installed: only after a build of this very
# tree are their results about it. `built` is empty, yes or no.
needs_build()
{
	if [ -z "$built" ]; then
		install_build >"$WORK/build.quiet.log" 2>&1 || tail -n 40 "$WORK/build.quiet.log"
	fi
	[ "$built" = yes ] || {
		fail "$1" "not run: the extension could not be built and installed"
		return 1
	}
}

install_build()
{
	built=no
	supervise build_clean_and_install || return 1
	built=yes
}

# From clean, so that every file is compiled under -Werror.
build_clean_and_install()
{
	make -C "$TOP" -s --no-print-directory clean && build_and_install WERROR=1
}

# start SUITE [SETTING...]: the suite's own server.
start()
{
	local suite=$1
	cluster_start "$@" || {
		fail "$suite" "its server did not start"
		return 1
	}
}

# A server that crashed fails its suite even if each test was content.
stop()
{
	cluster_stop "$1" || status=99
}

# Files of a kind in a folder of the tree, as a count.
count_files()
{
	find "$1" -maxdepth 1 -name "$2" 2>/dev/null | wc -l
}

# ---- the suites ------------------------------------------------------------

suite_build()
{
	local good=0 bad=0

	echo "gcc, installed into $("$PG_CONFIG" --pkglibdir):"
	if install_build; then good=$((good + 1)); else bad=$((bad + 1)); fi

	# A second opinion, in a copy and not installed.
	if command -v clang >/dev/null; then
		echo "clang, not installed:"
		cp -R "$TREE" "$WORK/clang"
		if supervise make -C "$WORK/clang" -s -j"$(nproc)" --no-print-directory CC=clang WERROR=1 all; then
			good=$((good + 1))
		else
			bad=$((bad + 1))
		fi
	else
		echo "clang: not there, not tried"
	fi
	report build $good $bad
}

# What two analysers say of the sources, each file with each.
suite_lint()
{
	logged lint bash "$TREE/test/lint/run.sh"
	count_closing lint
}

suite_layers()
{
	logged layers bash "$TREE/test/layers.sh"
	count_closing layers
}

suite_hygiene()
{
	logged hygiene bash "$TREE/test/hygiene.sh"
	count_closing hygiene
}

suite_sqlcheck()
{
	logged sqlcheck bash "$TREE/test/sqlcheck.sh"
	count_closing sqlcheck
}

suite_readme()
{
	logged readme bash "$TREE/test/readme.sh"
	count_closing readme
}

suite_unit()
{
	logged unit as_server_user make -C "$TREE/test/unit" --no-print-directory PG_CONFIG="$PG_CONFIG" check
	count_closing unit
}

# The channel between threads, under two tools that look for races; and its
# protocol as a model, all states of it.
suite_unit-tsan()
{
	logged unit-tsan as_server_user make -C "$TREE/test/unit" --no-print-directory PG_CONFIG="$PG_CONFIG" check-tsan
	count_closing unit-tsan
}

suite_unit-helgrind()
{
	logged unit-helgrind as_server_user make -C "$TREE/test/unit" --no-print-directory PG_CONFIG="$PG_CONFIG" check-helgrind
	count_closing unit-helgrind
}

suite_spin()
{
	logged spin as_server_user bash "$TREE/test/spin/run.sh"
	count_closing spin
}

suite_fuzz()
{
	if [ ! -f "$TREE/test/fuzz/Makefile" ]; then
		skip fuzz "there is no test/fuzz/Makefile"
		return
	fi
	logged fuzz as_server_user make -C "$TREE/test/fuzz" --no-print-directory PG_CONFIG="$PG_CONFIG" replay
	count_closing fuzz
	# What needs a server, in a server of one process.
	logged 'fuzz server' as_server_user make -C "$TREE/test/fuzz/server" -s --no-print-directory PG_CONFIG="$PG_CONFIG" replay
	count_closing 'fuzz server'
}

suite_pg_regress()
{
	needs_build pg_regress || return 0
	start pg_regress 'fsync = off' || return 0
	logged pg_regress as_server_user make -C "$TREE" -s --no-print-directory \
		PG_CONFIG="$PG_CONFIG" ISOLATION= installcheck
	stop pg_regress
	show_diffs "$TREE/regression.diffs"
	count_pg_regress pg_regress "$(count_files "$TREE/test/sql" '*.sql')"
}

suite_isolation()
{
	needs_build isolation || return 0
	start isolation 'fsync = off' || return 0
	logged isolation as_server_user make -C "$TREE" -s --no-print-directory \
		PG_CONFIG="$PG_CONFIG" REGRESS= installcheck
	stop isolation
	show_diffs "$TREE/output_iso/regression.diffs"
	count_pg_regress isolation "$(count_files "$TREE/test/isolation/specs" '*.spec')"
}

show_diffs()
{
	if [ -s "$1" ]; then
		echo "--- $(basename "$1"), its first 400 lines:"
		head -n 400 "$1"
	fi
}

# count_pg_regress SUITE FILES: reads pg_regress's result lines, which are
# "test NAME ... ok" up to version 15 and TAP's "ok N - NAME" from 16. What
# was scheduled and has no result has failed too.
count_pg_regress()
{
	local suite=$1 files=$2 log=$WORK/$1.log good

	good=$(grep -cE '^(test .*\.\.\. ok( |$)|ok [0-9]+ )' "$log") || good=0
	if [ "$files" -eq 0 ]; then
		report "$suite" 0 0
	elif [ "$status" -ne 0 ] && [ "$good" -ge "$files" ]; then
		fail "$suite" "exit code $status, though each test passed"
	else
		report "$suite" "$good" $((files - good))
	fi
}

# The database has both extensions; each file plans its own tests.
suite_pgtap()
{
	local files

	files=$(count_files "$TREE/test/pgtap" '*.sql')
	if [ "$files" -eq 0 ]; then
		report pgtap 0 0
		return
	fi
	needs_build pgtap || return 0
	start pgtap 'fsync = off' || return 0
	logged pgtap pgtap_run
	stop pgtap
	count_prove pgtap "$files"
}

pgtap_run()
{
	as_server_user psql -X -q -v ON_ERROR_STOP=1 -d postgres -c 'CREATE DATABASE pgtap' &&
		as_server_user psql -X -q -v ON_ERROR_STOP=1 -d pgtap \
			-c 'CREATE EXTENSION pgtap' -c 'CREATE EXTENSION epro_etl' &&
		as_server_user pg_prove -d pgtap "$TREE"/test/pgtap/*.sql
}

# The JSON Schema test suite, which is not part of the repository either.
suite_json-schema()
{
	if [ ! -d "$WORK/shared/data/json-schema" ]; then
		skip json-schema "there is no ../shared/data/json-schema beside the checkout"
		return
	fi
	needs_build json-schema || return 0
	start json-schema 'fsync = off' || return 0
	logged json-schema as_server_user bash "$TREE/test/conformance/json_schema.sh"
	stop json-schema
	count_closing json-schema
}

# The CDISC pilot study: real data that is not part of the repository.
suite_pilot()
{
	if [ ! -d "$WORK/shared/data/cdisc-pilot" ]; then
		skip pilot "there is no ../shared/data/cdisc-pilot beside the checkout"
		return
	fi
	if [ ! -f "$TREE/test/pilot/run.sh" ]; then
		report pilot 0 0
		return
	fi
	needs_build pilot || return 0
	start pilot 'fsync = off' || return 0
	logged pilot as_server_user bash "$TREE/test/pilot/run.sh"
	stop pilot
	count_closing pilot
}

# CDISC's ODM example: likewise.
suite_odm()
{
	if [ ! -d "$WORK/shared/data/odm" ]; then
		skip odm "there is no ../shared/data/odm beside the checkout"
		return
	fi
	needs_build odm || return 0
	start odm 'fsync = off' || return 0
	logged odm as_server_user bash "$TREE/test/conformance/odm.sh"
	stop odm
	count_closing odm
}

# Questionnaires and responses that other validators have judged: not part of
# the repository either.
suite_fhir()
{
	if [ ! -d "$WORK/shared/data/fhir-questionnaire" ]; then
		skip fhir "there is no ../shared/data/fhir-questionnaire beside the checkout"
		return
	fi
	needs_build fhir || return 0
	start fhir 'fsync = off' || return 0
	logged fhir as_server_user bash "$TREE/test/conformance/fhir.sh"
	stop fhir
	count_closing fhir
}

# The environment is the one that PGXS's prove_installcheck makes, for every
# version: up to 15 logs go below TESTDIR, later below TESTLOGDIR. The lock
# files of the ports in use must not go into the server's own folders, and the
# folders of its sockets go where a killed test's are removed too.
suite_tap()
{
	local files

	files=$(count_files "$TREE/test/t" '*.pl')
	if [ "$files" -eq 0 ]; then
		report tap 0 0
		return
	fi
	needs_build tap || return 0
	as_server_user mkdir "$WORK/tap" "$WORK/tap/tmp_check"
	# These tests make servers of their own.
	unset PGHOST PGUSER PGDATABASE
	# The two mixes have five minutes in sum; test/chaos/mix.sh gives them more.
	logged tap as_server_user sh -c 'cd "$1" && shift && exec "$@"' sh "$TREE/test" \
		env EPRO_MIX_MINUTES="${EPRO_MIX_MINUTES:-2.5}" TMPDIR="$WORK" TESTDIR="$WORK/tap" TESTDATADIR="$WORK/tap/tmp_check" TESTLOGDIR="$WORK/tap/tmp_check/log" \
		PG_TEST_PORT_DIR="$WORK/tap/portlock" PGPORT=65432 \
		PG_REGRESS="$PGXS_SRC/test/regress/pg_regress" \
		prove -j 2 -I "$PGXS_SRC/test/perl" -I "$TREE/test" -I "$TREE/test/t" "$TREE"/test/t/*.pl
	if [ "$status" -ne 0 ]; then
		tap_logs
	fi
	count_prove tap "$files"
}

# The points in the code where tests order errors: a build of its own, in a copy
# of PostgreSQL.
suite_points()
{
	unset PGHOST PGUSER PGDATABASE
	logged points as_server_user env TMPDIR="$WORK" PG_CONFIG="$PG_CONFIG" bash "$TREE/test/points.sh"
	count_prove points 1
}

# The two mixes in their long form: make chaos, which see.
suite_chaos()
{
	needs_build chaos || return 0
	unset PGHOST PGUSER PGDATABASE
	logged chaos as_server_user env TMPDIR="$WORK" PG_CONFIG="$PG_CONFIG" sh "$TREE/test/chaos/mix.sh"
	count_prove chaos 2
}

# The logs of the files that failed: the test's own and its servers'.
tap_logs()
{
	local name log

	for name in $(sed -nE 's|^.*/([^/ ]+)\.pl +\(Wstat: .*|\1|p' "$WORK/tap.log" | sort -u); do
		for log in "$WORK"/tap/tmp_check/log/regress_log_"$name" "$WORK"/tap/tmp_check/log/"$name"_*.log; do
			[ -s "$log" ] || continue
			if grep -q ' not ok ' "$log"; then
				echo "--- what failed, in $(basename "$log"):"
				grep -n -m 5 -B 20 -A 12 ' not ok ' "$log"
			fi
			echo "--- the end of $(basename "$log"):"
			tail -n 40 "$log"
		done
	done
}

# count_prove SUITE FILES: reads prove's summary. A file that broke otherwise
# than by a failed assertion (died, another number of tests than planned) is one
# failure.
count_prove()
{
	local suite=$1 files=$2 log=$WORK/$1.log tests asserted bad not_run

	tests=$(sed -nE 's/^Files=[0-9]+, Tests=([0-9]+),.*/\1/p' "$log" | tail -n 1)
	if [ -z "$tests" ] || ! grep -q "^Files=$files, " "$log"; then
		fail "$suite" "prove did not come to the end of its $files files (exit code $status)"
		return
	fi
	# "FILE (Wstat: 256 (exited 1) Tests: 3 Failed: 2)", then indented details
	read -r asserted bad < <(awk '
		/ \(Wstat: .* Tests: [0-9]+ Failed: [0-9]+\)$/ {
			n = $NF + 0; asserted += n; bad += n
			broke = (n == 0 && $0 !~ /Wstat: 0 /); bad += broke; open = (n == 0 && !broke)
			next
		}
		/^  Parse errors:/ && open { bad++; open = 0 }
		END { print asserted + 0, bad + 0 }' "$log")
	not_run=$(grep -cE '\.\. skipped: ' "$log") || not_run=0
	if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
		echo "$suite: exit code $status, though each assertion held"
		bad=1
	elif [ "$tests" -eq 0 ] && [ "$bad" -eq 0 ]; then
		echo "$suite: ran no test"
		bad=1
	fi
	report "$suite" $((tests - asserted)) "$bad" "$not_run"
}

main "$@"
