#!/usr/bin/env bash
#
# What the way a form is declared costs: the same responses through JSON Schema,
# FHIR and ODM, and what forty conditional checks a response add to each.
#
#   front_ends.sh [ROWS [ROUNDS]]    100000 and 7 by default; see turns.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=test/bench/server.sh
. "$here/server.sh"
# shellcheck source=test/bench/turns.sh
. "$here/turns.sh"

turns "${1:-${ROWS:-100000}}" "${2:-${ROUNDS:-7}}" "$here/forms.sql"
