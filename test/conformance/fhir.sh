#!/usr/bin/env bash
#
# Every case of a collection of FHIR questionnaires with their responses, through
# the engine: the questionnaire (with its value sets, as a Bundle) is registered,
# the response staged, a run judges it. Compared is whether there is an error,
# with what the collection expects of the validator "brianpos", else of "java".
#
#   EPRO_DATA=FOLDER bash test/conformance/fhir.sh
#
# Needs a server with the extension installed and epro_etl.key_file set, to
# which the environment (PGHOST, ...) leads as a superuser, and the file
# $EPRO_DATA/fhir-questionnaire/cases.jsonl: a case a line, with its name,
# expected, questionnaires, response and other. Works in a database of its own.
#
# Who disagrees is printed with the reason why, from the list below; one that is
# not listed is a failure, and so is a listed one that agrees.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

cases=${EPRO_DATA:?"names the folder of the test data"}/fhir-questionnaire/cases.jsonl
database=epro_etl_fhir

declare -A reasons=(
	[choice-async-qr]='the value set is on a terminology server: the codes are not evaluated, which is told, and is no error'
	[open-choice-gender-coding-async-qr]='the value set is on a terminology server: the codes and displays are not evaluated, which is told, and is no error'
)

good=0
bad=0
explained=0

main()
{
	local name expected found why

	if [ ! -r "$cases" ]; then
		echo "fhir: cannot read $cases" >&2
		exit 1
	fi
	psql -X -q -v ON_ERROR_STOP=1 -c 'SET client_min_messages = warning' \
		-c "DROP DATABASE IF EXISTS $database" \
		-c "CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8'"
	home=${PGDATABASE:-postgres}
	export PGDATABASE=$database
	output=$(mktemp)
	trap 'rm -f "$output"' EXIT
	psql -X -f "$here/fhir.sql" <"$cases" >"$output" || {
		cat "$output"
		echo "fhir: the run broke off"
		exit 1
	}
	while IFS=$'\t' read -r name expected found why; do
		if [ "$expected" = nothing ]; then
			echo "ok      $name: no verdict is expected; $found ($why)"
			good=$((good + 1))
		elif [ "$expected" = "$found" ]; then
			if [ -n "${reasons[$name]:-}" ]; then
				echo "not ok  $name: agrees, though it is listed as one that does not"
				bad=$((bad + 1))
			else
				echo "ok      $name: $found ($why)"
				good=$((good + 1))
			fi
		elif [ -n "${reasons[$name]:-}" ]; then
			echo "differs $name: expected $expected, found $found ($why): ${reasons[$name]}"
			explained=$((explained + 1))
		else
			echo "not ok  $name: expected $expected, found $found ($why)"
			bad=$((bad + 1))
		fi
	done < <(grep . "$output")
	echo "$good of $((good + bad + explained)) cases agree; $explained differ for a reason that is given"
	if [ $((good + explained)) -ne "$(grep -c . "$cases")" ] && [ "$bad" -eq 0 ]; then
		echo "not ok  not every case was judged"
		bad=1
	fi
	if [ "$bad" -eq 0 ]; then
		PGDATABASE=$home psql -X -q -c "DROP DATABASE $database"
	fi
	echo "fhir: $good passed, $bad failed"
	[ "$bad" -eq 0 ]
}

main
