#!/usr/bin/env bash
# The limit of two processes: each moves half of the ready-made rows, without
# any check, as bench/limit.sql does it for all of them. It says how much of
# two processes the disk of the log leaves.
set -euo pipefail
items=$(printf 'q%d, ' {1..30})
half()
{
	psql -Xq -v ON_ERROR_STOP=1 -c "BEGIN;
		INSERT INTO bench.clinical (response_id, study, subject_key, age, ${items}authored) SELECT * FROM bench.ready WHERE id $1;
		DELETE FROM bench.staging WHERE id $1; COMMIT"
}
middle=$(psql -XqAt -c 'SELECT max(id) / 2 FROM bench.staging')
half "<= $middle" &
first=$!
half "> $middle"
wait "$first"
