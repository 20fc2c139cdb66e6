#!/bin/sh
# Make build/faults/venv hold what tests/faults/requirements.lock names. A no-op when it does.
# The package is not installed there: a script's Python may be another environment than ours.
set -eu
cd "$(dirname "$0")/.."
venv=build/faults/venv
wanted="$(cksum < tests/faults/requirements.lock) $(.venv/bin/python -V)"
[ "$(cat "$venv/packages" 2>/dev/null || true)" = "$wanted" ] && exit
. tools/index.sh
echo "Setting up $venv; this happens once per tests/faults/requirements.lock." >&2
.venv/bin/uv venv --quiet --allow-existing --python .venv/bin/python "$venv"
.venv/bin/uv pip sync --quiet --python "$venv/bin/python" --require-hashes tests/faults/requirements.lock
printf '%s\n' "$wanted" > "$venv/packages"
