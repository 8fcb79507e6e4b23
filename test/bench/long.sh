#!/usr/bin/env bash
#
# A long sink, a row an item: responses checked, de-identified, taken out of their
# source and loaded by one worker, against one process that copies the very same
# rows from a file into the same table with the same key, and does no more.
#
#   long.sh [ROWS [ROUNDS]]    100000 responses, 30 rows each, and 3 by default; see turns.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/bench/server.sh
. "$here/server.sh"
# shellcheck source=test/bench/turns.sh
. "$here/turns.sh"

turns "${1:-${ROWS:-100000}}" "${2:-${ROUNDS:-3}}" "$here/diary.sql" "$here/long.sql"
