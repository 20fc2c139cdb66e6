#!/bin/sh
# Make .venv hold exactly what requirements.lock names. A no-op when it already does.
set -eu
cd "$(dirname "$0")/.."

# The lock decides which packages there are, pyproject.toml how our own is installed.
packages=$(cksum < requirements.lock)
project=$(cksum < pyproject.toml)
stamp() { cat ".venv/$1" 2>/dev/null || true; }
version() { "$1" -c 'import sys; print(*sys.version_info)' 2>/dev/null; }

# A Python that is asked for by name is the one that is used, also where .venv has another already.
current=$(version .venv/bin/python) || current=
why=
if [ "$(stamp packages)" != "$packages" ] || [ -z "$current" ]; then
  why="this happens once per requirements.lock"
elif [ -n "${PYTHON:-}" ] && [ "$(version "$PYTHON")" != "$current" ]; then
  why="it had $(.venv/bin/python -V)"
fi
if [ -n "$why" ]; then
  python=$(tools/find_python.sh)
  echo "Setting up .venv with $("$python" -V 2>&1); $why." >&2
  "$python" -m venv --clear .venv

  # pip installs uv, by the hash in the lock; uv installs everything else, many times faster.
  awk '/^[a-z]/ { take = /^uv==/ } take' requirements.lock > .venv/uv.txt
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r .venv/uv.txt

  . tools/index.sh
  .venv/bin/uv pip sync --python .venv/bin/python --require-hashes requirements.lock
  printf '%s\n' "$packages" > .venv/packages
fi

if [ "$(stamp project)" != "$project" ]; then
  .venv/bin/uv pip install --python .venv/bin/python --quiet --no-deps --no-build-isolation \
    --editable .
  printf '%s\n' "$project" > .venv/project
fi
