#!/usr/bin/env bash
# ./run_all.sh [profile] [-n] [notebook …] [options of Snakemake]     ./run_all.sh --help says more
set -euo pipefail
. "$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)/.ci/env.sh"
cd -- "$COMPANION_ROOT" # Python would import `helpers` from the reader's folder first
exec "$PYTHON" -m helpers.workflow "$@"
