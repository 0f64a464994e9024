#!/usr/bin/env bash
# Make the virtual environment and install the project into it. Called by the Makefile; safe to run again.
set -euo pipefail
python="$1" venv="$2"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "setup: $python is missing or older than 3.11; name another with: make setup PYTHON=python3.12" >&2
    exit 2
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# Dependency groups need pip 25.1; older interpreters ship an older one.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable . --group dev
touch "$venv/.ready"
echo "setup: installed into $venv; activate it with: source $venv/bin/activate"
