#!/bin/sh
# Print a Python that has a wheel of every package in requirements.lock, whose first line names them.
#
# PYTHON if it is given; else python3, python3.14 and so on as far as they run; else the newest of
# pyenv's; else one that uv installs. A pyenv shim without a version behind it, a Python without
# venv, a free-threaded one and one that is too old or too new are passed over.
set -u
cd "$(dirname "$0")/.." || exit 2
versions=$(sed -n '1s/^# Wheels of every package exist for Python //p' requirements.lock)
oldest=${versions%% *}
newest=${versions##* }
pyenv=${PYENV_ROOT:-${HOME:-}/.pyenv}/versions

what_it_is='
import sys, sysconfig
kind = "%d.%d" % sys.version_info[:2]
if sys.implementation.name != "cpython" or sys.maxsize < 2**32:
    kind += " of another kind"
elif sysconfig.get_config_var("Py_GIL_DISABLED"):
    kind += " without the GIL"
else:
    try:
        import ensurepip, venv
    except ImportError:
        kind += " without venv"
print(kind)
'
fits() {
  found=$("$1" -c "$what_it_is" 2>/dev/null) || found=
  case " $versions " in *" ${found:-none} "*) ;; *) return 1 ;; esac
}
refuse() {
  echo "Cannot set up .venv: expected Python $oldest to $newest with its venv module, got $1. $2" >&2
  exit 2
}

if [ -n "${PYTHON:-}" ]; then
  fits "$PYTHON" || refuse "PYTHON=$PYTHON, which is ${found:+Python }${found:-no Python 3 that runs}" \
    "Name another one, or none: then one is looked for."
  printf '%s\n' "$PYTHON"
  exit
fi

# Newest first, also below pyenv. What is split into words here are version numbers.
# shellcheck disable=SC2086
descending=$(printf '%s\n' $versions | sort -t . -k 2nr)
for name in 3 $descending; do
  if fits "python$name"; then echo "python$name"; exit; fi
done
for version in $descending; do
  for name in $(cd "$pyenv" 2>/dev/null && printf '%s\n' "$version"* | sort -t . -k 3nr); do
    python=$pyenv/$name/bin/python3
    if fits "$python"; then printf '%s\n' "$python"; exit; fi
  done
done

# uv, or pip, which gets uv by the hash in the lock, with whatever Python 3 there is.
get_uv() {
  uv=$(command -v uv) && return
  mkdir -p build
  awk '/^[a-z]/ { take = /^uv==/ } take' requirements.lock > build/uv.txt
  uv=build/uv/bin/uv
  for python in python3 python /usr/bin/python3 "$pyenv"/3*/bin/python3; do
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes --upgrade \
      --target build/uv -r build/uv.txt && return
  done
  return 1
}
echo "No Python $oldest to $newest found: uv installs $newest." >&2
mkdir -p build
if get_uv >build/uv.log 2>&1 && "$uv" python install "$newest" >>build/uv.log 2>&1 \
  && python=$("$uv" python find --managed-python "$newest" 2>>build/uv.log) && fits "$python"; then
  printf '%s\n' "$python"
else
  refuse "none as python3, below $pyenv or from uv (see build/uv.log)" \
    "Install one and name it: make PYTHON=python$newest ..."
fi
