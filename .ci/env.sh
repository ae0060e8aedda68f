# shellcheck shell=bash
# Sourced by run_all.sh, tests/run.sh and .ci/run: leaves in $PYTHON a Python that has everything.
#
# COMPANION_PYTHON=/path/to/python   that environment is checked and used as it is; nothing is installed
# UV_TORCH_BACKEND=cpu|cu126|…       passed on to uv, for a torch other than PyPI's

COMPANION_ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"

companion_is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

companion_find_python() {
    local name
    for name in "$COMPANION_ROOT/.venv/bin/python" python3 python3.13 python3.12 python3.11 python3.14 python; do
        if command -v "$name" >/dev/null 2>&1 && companion_is_new_enough "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# The scripts go on in the project's folder, so paths are made whole while the reader's is known.
companion_whole() {
    case "$1" in
        */*) printf '%s\n' "$(cd -- "$(dirname -- "$1")" 2>/dev/null && pwd || dirname -- "$1")/$(basename -- "$1")" ;;
        *) printf '%s\n' "$1" ;;
    esac
}
for name in DATA_ROOT CHECKPOINTS INCEPTION_WEIGHTS; do
    case "${!name:-}" in
        "" | /*) ;;
        *) export "$name=$PWD/${!name}" ;;
    esac
done

if [ -n "${COMPANION_PYTHON:-}" ]; then
    COMPANION_PYTHON="$(companion_whole "$COMPANION_PYTHON")"
    PYTHON="$COMPANION_PYTHON"
    if ! command -v "$PYTHON" >/dev/null 2>&1 || ! companion_is_new_enough "$PYTHON"; then
        echo "COMPANION_PYTHON=$PYTHON: expected a Python 3.11 or later" >&2
        exit 1
    fi
    "$PYTHON" "$COMPANION_ROOT/.ci/environment.py" check ${COMPANION_NEEDS:-} || exit 1
else
    if ! COMPANION_BASE="$(companion_find_python)"; then
        echo "No Python 3.11 or later was found ($(python3 --version 2>&1 || echo 'no python3 at all')):" \
            "install one, or name one by COMPANION_PYTHON=/path/to/python" >&2
        exit 1
    fi
    "$COMPANION_BASE" "$COMPANION_ROOT/.ci/environment.py" install || exit 1
    PYTHON="$COMPANION_ROOT/.venv/bin/python"
fi
export PYTHONPATH="$COMPANION_ROOT${PYTHONPATH:+:$PYTHONPATH}"
