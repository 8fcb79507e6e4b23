#!/usr/bin/env bash
#
# The race, with nothing but this repository: the same job by a set-based
# statement (peer_sql) and by this extension, and the bare move of ready-made
# rows by one process (limit); then by the general road, which a sink with
# triggers, foreign keys, row security or partitions needs, and into a sink that
# holds some of the keys already.
#
#   bench.sh [ROWS [ROUNDS]]    200000 and 3 by default; see turns.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/bench/server.sh
. "$here/server.sh"
# shellcheck source=test/bench/turns.sh
. "$here/turns.sh"

turns "${1:-${ROWS:-200000}}" "${2:-${ROUNDS:-3}}" "$here/diary.sql" "$here/race.sql"
