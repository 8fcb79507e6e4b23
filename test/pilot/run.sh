#!/usr/bin/env bash
#
# Loads the CDISC pilot study, 5,071 filled-in forms of six instruments, with
# 0, 1, 2 and 4 workers, and compares what arrived, and what was found, with
# counts taken in plain SQL from the raw JSON.
#
#   EPRO_DATA=FOLDER bash test/pilot/run.sh
#
# Needs a server with the extension installed and epro_etl.key_file set, to
# which the environment (PGHOST, ...) leads as a superuser, and the data: the
# files staging_forms.jsonl.gz, dm.csv.gz, sv.csv.gz and cm.csv.gz in
# $EPRO_DATA/cdisc-pilot. Works in a database of its
# own, which is dropped at the end unless something failed.
#
#   raw.sql        the file as it is, and the functions that print verdicts
#   expected.sql   what must come out, from the raw file alone
#   forms.sql      the six forms (forms/*.json) and their edit checks
#   load.sql       staging, pipeline, sinks and run for one number of workers
#   check.sql      one load, and a dry run before it, against what was expected
#   compare.sql    one load against the one with workers => 0
#   safe_harbor.sql    the same study under a de-identification profile
#   rules.sql      scores, visit windows and partial dates, declared by their kinds
#
# Each verdict is a line "ok ..." or "not ok ...". A script that breaks off is
# a failure more, and ends the test.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

worker_counts=(0 1 2 4)
database=epro_etl_pilot
good=0
bad=0

main()
{
	local workers

	export PILOT_DATA=${EPRO_DATA:?"names the folder of the test data"}/cdisc-pilot/staging_forms.jsonl.gz
	export PILOT_FORMS=$here/forms
	if [ ! -r "$PILOT_DATA" ]; then
		echo "pilot: cannot read $PILOT_DATA" >&2
		exit 1
	fi
	output=$(mktemp)
	trap 'rm -f "$output"' EXIT

	psql -X -q -v ON_ERROR_STOP=1 -c 'SET client_min_messages = warning' \
		-c "DROP DATABASE IF EXISTS $database" \
		-c "CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8'"
	home=${PGDATABASE:-postgres}
	export PGDATABASE=$database

	script raw.sql
	script expected.sql
	script forms.sql
	for workers in "${worker_counts[@]}"; do
		script load.sql -v workers="$workers"
		script check.sql -v workers="$workers"
	done
	for workers in "${worker_counts[@]:1}"; do
		script compare.sql -v workers="$workers"
	done
	for workers in 0 2; do
		script safe_harbor.sql -v workers="$workers"
	done
	script rules.sql
	closing
}

# script FILE [OPTION...]: runs it, shows what it prints and counts verdicts.
script()
{
	local file=$1 status=0
	shift

	psql -X -q -A -t -v ON_ERROR_STOP=1 "$@" -f "$here/$file" >"$output" 2>&1 || status=$?
	cat "$output"
	good=$((good + $(grep -c '^ok ' "$output" || [ $? -eq 1 ])))
	bad=$((bad + $(grep -c '^not ok ' "$output" || [ $? -eq 1 ])))
	# Whatever the server says to a client may reach a log: no subject in it.
	if grep -vE '^((not )?ok |      )' "$output" | grep -qE '01-7[0-9]{2}-[0-9]{4}'; then
		echo "not ok $file $*: the server's messages name a subject"
		bad=$((bad + 1))
	fi
	if [ "$status" -ne 0 ]; then
		echo "not ok $file $*: broke off (psql's exit code is $status)"
		bad=$((bad + 1))
		closing
	fi
}

closing()
{
	export PGDATABASE=$home
	if [ "$bad" -eq 0 ]; then
		psql -X -q -v ON_ERROR_STOP=1 -c "DROP DATABASE $database" || bad=$((bad + 1))
	fi
	echo "pilot: $good passed, $bad failed"
	if [ "$bad" -eq 0 ] && [ "$good" -gt 0 ]; then exit 0; else exit 1; fi
}

main
