#!/usr/bin/env bash
# An entrant of the race: a stream over what is staged, from its start until all
# of it has left the source.
#
#   stream.sh [STAGES]    such as '{"deidentify": 1, "store": 1}'; without: not cut
set -euo pipefail
psql -Xqt -v stages="${1:-}" <<'SQL' >/dev/null
SET client_min_messages = warning;
SELECT count(*) AS rows FROM bench.staging \gset
SELECT epro_etl.start_stream('daily', stages => nullif(:'stages', '')::jsonb);
DO $$ BEGIN
    WHILE EXISTS (SELECT FROM bench.staging) LOOP
        PERFORM pg_sleep(0.02);
        COMMIT;
    END LOOP;
END $$;
SELECT epro_etl.stop_stream('daily');
SQL
