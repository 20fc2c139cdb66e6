#!/bin/sh
# To be sourced: uv does not read pip's configuration. Hand on the index that pip was told to use.
index=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)
if [ -n "${PIP_INDEX_URL:-$index}" ] && [ -z "${UV_DEFAULT_INDEX:-}" ]; then
  export UV_DEFAULT_INDEX="${PIP_INDEX_URL:-$index}"
fi
