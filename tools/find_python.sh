#!/bin/sh
# Print a Python that has a wheel of every package in requirements.lock, whose first line names them.
#
# PYTHON if it is given; else python3, python3.14 and so on as far as they run; else one of pyenv's;
# else one that uv installs. A pyenv shim without a version behind it, a Python without venv, a
# free-threaded one and one that is too old or too new are passed over.
set -u
cd "$(dirname "$0")/.."
versions=$(sed -n '1s/^# Wheels of every package exist for Python //p' requirements.lock)
oldest=${versions%% *}
newest=${versions##* }

what_it_is='
import sys, sysconfig
import ensurepip, venv
plain = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print("%d.%d" % sys.version_info[:2] if plain and sys.maxsize > 2**32 else "of another kind")
'
fits() {
  found=$("$1" -c "$what_it_is" 2>/dev/null) || return 1
  case " $versions " in *" $found "*) ;; *) return 1 ;; esac
}
refuse() {
  echo "Cannot set up .venv: expected Python $oldest to $newest with its venv module, got $1. $2" >&2
  exit 2
}

if [ -n "${PYTHON:-}" ]; then
  fits "$PYTHON" || refuse "PYTHON=$PYTHON ($("$PYTHON" -V 2>&1 | head -n 1))" \
    "Name another one, or none: then one is looked for."
  echo "$PYTHON"
  exit
fi

# Newest first, also below pyenv.
descending=$(printf '%s\n' $versions | sort -t . -k 2nr)
for python in python3 $(printf 'python%s\n' $descending); do
  if fits "$python"; then echo "$python"; exit; fi
done
for version in $descending; do
  for python in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version"*/bin/python3; do
    if fits "$python"; then echo "$python"; exit; fi
  done
done

echo "No Python $oldest to $newest found: uv installs $newest." >&2
uv=$(command -v uv) || {
  # pip installs uv, by the hash in the lock, with whatever Python 3 there is.
  mkdir -p build
  awk '/^[a-z]/ { take = /^uv==/ } take' requirements.lock > build/uv.txt
  python3 -m pip install --quiet --disable-pip-version-check --require-hashes --upgrade \
    --target build/uv -r build/uv.txt >&2
  uv=build/uv/bin/uv
}
"$uv" python install "$newest" >&2
python=$("$uv" python find --managed-python "$newest" 2>/dev/null) && fits "$python" || refuse \
  "$(python3 -V 2>&1 | head -n 1) as python3, none below ${PYENV_ROOT:-$HOME/.pyenv}, and none from uv" \
  "Install one and name it: make PYTHON=python$newest ..."
echo "$python"
