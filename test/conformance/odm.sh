#!/usr/bin/env bash
#
# Imports the ODM 1.3.2 example of CDISC and tries each of its range checks,
# code lists, conditions, units, lengths and mandatory items with a response
# that passes and one that fails, made from what the file says; then holds the
# report of the import against the file: nothing may be left out.
#
#   EPRO_DATA=FOLDER bash test/conformance/odm.sh
#
# Needs a server with the extension installed and epro_etl.key_file set, to
# which the environment (PGHOST, ...) leads as a superuser, and the file
# $EPRO_DATA/odm/metadata-1.3.2.xml. Works in a database of its own, which is
# dropped at the end unless something failed. odm.sql prints a line a verdict.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
database=epro_etl_odm

main()
{
	local status=0 good bad output

	export ODM_FILE=${EPRO_DATA:?"names the folder of the test data"}/odm/metadata-1.3.2.xml
	output=$(mktemp)
	# shellcheck disable=SC2064 # the name is known now
	trap "rm -f '$output'" EXIT

	psql -X -q -v ON_ERROR_STOP=1 -c 'SET client_min_messages = warning' \
		-c "DROP DATABASE IF EXISTS $database" \
		-c "CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8'"
	psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$database" -f "$here/odm.sql" >"$output" 2>&1 || status=$?
	cat "$output"
	good=$(grep -c '^ok ' "$output" || [ $? -eq 1 ])
	bad=$(grep -c '^not ok ' "$output" || [ $? -eq 1 ])
	if [ "$status" -ne 0 ]; then
		echo "not ok odm.sql broke off (psql's exit code is $status)"
		bad=$((bad + 1))
	fi
	[ "$bad" -gt 0 ] || psql -X -q -v ON_ERROR_STOP=1 -c "DROP DATABASE $database"
	echo "odm: $good passed, $bad failed"
	[ "$bad" -eq 0 ] && [ "$good" -gt 0 ]
}

main
