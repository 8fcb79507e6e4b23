#!/usr/bin/env bash
#
# Judges every case of the JSON Schema test suite (draft 2020-12 and its formats)
# by the engine itself, and prints passed and failed a file. What cannot come out
# as the suite has it is listed by name in json_schema.sql, with the reason.
#
#   EPRO_DATA=FOLDER bash test/conformance/json_schema.sh
#
# Needs a server with the extension installed and epro_etl.key_file set, to
# which the environment (PGHOST, ...) leads as a superuser, and the suite: the
# folder $EPRO_DATA/json-schema/draft2020-12. Works in a database of its own,
# which is dropped at the end unless something failed. No function on json can
# take a NUL escape apart: another character stands for it on the way.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
database=epro_etl_json_schema

main()
{
	local suite=${EPRO_DATA:?"names the folder of the test data"}/json-schema/draft2020-12 file

	if [ ! -d "$suite" ]; then
		echo "json-schema: cannot read $suite" >&2
		exit 1
	fi
	psql -X -q -v ON_ERROR_STOP=1 -c 'SET client_min_messages = warning' \
		-c "DROP DATABASE IF EXISTS $database" \
		-c "CREATE DATABASE $database TEMPLATE template0 ENCODING 'UTF8'"
	home=${PGDATABASE:-postgres}
	export PGDATABASE=$database
	output=$(mktemp)
	trap 'rm -f "$output"' EXIT

	psql -X -q -v ON_ERROR_STOP=1 -c 'CREATE EXTENSION epro_etl' -c 'CREATE TABLE suite (name text, content json)'
	while IFS= read -r file; do
		SUITE_FILE=$suite/$file psql -X -q -v ON_ERROR_STOP=1 -v name="$file" <<-'SQL'
			\set content `cat "$SUITE_FILE"`
			INSERT INTO suite VALUES (:'name', replace(:'content', '\u0000', '\uE000')::json);
		SQL
	done < <(cd "$suite" && find . -name '*.json' | sed 's|^\./||' | sort)
	psql -X -q -A -t -f "$here/json_schema.sql" 2>&1 | tee "$output"
	grep -qE '^json-schema: [1-9][0-9]* passed, 0 failed' "$output"
	PGDATABASE=$home psql -X -q -c "DROP DATABASE $database"
}

main
