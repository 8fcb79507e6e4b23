#!/usr/bin/env bash
#
# What de-identification costs: the responses of forms.sql without any rule, and
# under the profiles. safe_harbor gives each subject a random code, which is
# looked up, or, in the first run, made.
#
#   deid.sh [ROWS [ROUNDS]]    100000 and 7 by default; see turns.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/bench/server.sh
. "$here/server.sh"
# shellcheck source=test/bench/turns.sh
. "$here/turns.sh"

turns "${1:-${ROWS:-100000}}" "${2:-${ROUNDS:-7}}" "$here/forms.sql" "$here/deid.sql"
