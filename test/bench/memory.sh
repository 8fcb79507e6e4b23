#!/usr/bin/env bash
# A worker's own memory over the number of rows: memory.sh ROWS...
#
# Needs the race's tables (bench.*, made by its workload) and setup.sql in the
# database that the libpq variables name, on this machine. Stages ROWS copies
# of the workload's rows and runs one worker. Prints a line a number of rows:
# the highest reading (see peak.sh), and the rows a second.
set -euo pipefail
# shellcheck source=test/bench/peak.sh
. "$(dirname "${BASH_SOURCE[0]}")/peak.sh"
sql=(psql -XqAt -v ON_ERROR_STOP=1)
printf '%10s %14s %10s\n' rows 'peak RssAnon' rows/s
for rows in "$@"; do
  "${sql[@]}" <<SQL
TRUNCATE bench.staging, bench.clinical;
INSERT INTO bench.staging (study, form, subject, visit, authored, payload)
  SELECT s.study, s.form, s.subject, s.visit, s.authored, s.payload
  FROM generate_series(1, ($rows + 99999) / 100000), (SELECT * FROM bench.staging_src ORDER BY id LIMIT 100000) s LIMIT $rows;
VACUUM ANALYZE bench.staging;
SQL
  start=$(date +%s.%N)
  peak_memory "${sql[@]}" -c "SELECT 1 FROM epro_etl.run('daily', workers => 1)"
  end=$(date +%s.%N)
  printf '%10s %11s kB %10.0f\n' "$rows" "$peak" "$(echo "$rows $start $end" | awk '{print $1 / ($3 - $2)}')"
done
