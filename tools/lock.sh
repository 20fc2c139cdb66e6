#!/bin/sh
# Resolve requirements.lock again, and say in its first line for which Pythons every package has a wheel.
# Then the lock of the scripts of `make faults`, with the same JAX.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
oldest=$(sed -n 's/^requires-python = ">=\(3\.[0-9]*\)"/\1/p' pyproject.toml)

rm -rf build/lock && mkdir -p build/lock
cp requirements.lock build/lock/pins
resolve() {
  "$uv" pip compile --quiet --upgrade --universal --python-version "$oldest" --generate-hashes --no-header \
    --no-annotate --no-emit-index-url --group "$1" pyproject.toml -o "$2" ${3:+-c "$3"}
}
resolve dev build/lock/pins

versions=
for minor in $(seq "${oldest#3.}" 30); do
  # Nothing is installed: uv says whether it could be, from wheels alone.
  "$uv" pip install --dry-run --quiet --only-binary :all: --require-hashes -r build/lock/pins \
    --python-version "3.$minor" --python-platform x86_64-manylinux_2_28 \
    --target build/lock/nowhere 2>build/lock/why || break
  versions="$versions 3.$minor"
done
[ -n "$versions" ] || { cat build/lock/why >&2; exit 1; }
{ echo "# Wheels of every package exist for Python$versions"; cat build/lock/pins; } > requirements.lock
head -n 1 requirements.lock >&2

resolve faults tests/faults/requirements.lock requirements.lock
