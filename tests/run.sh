#!/usr/bin/env bash
# The one test command: lint, types, tests. Further arguments go to pytest, e.g. tests/run.sh -k noise
set -euo pipefail
COMPANION_NEEDS=tests
. "$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)/.ci/env.sh"
cd -- "$COMPANION_ROOT"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg
failed=0
"$PYTHON" -m ruff check . || failed=1
"$PYTHON" -m ruff format --check . || failed=1
"$PYTHON" -m mypy || failed=1
[ "$failed" = 0 ] || echo "Lint or types failed: see above. The tests run all the same, the status will be 1."
"$PYTHON" -m pytest -n 2 --dist worksteal "$@" || failed=1
exit "$failed"
