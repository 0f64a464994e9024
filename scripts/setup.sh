#!/usr/bin/env bash
# Make the virtual environment and install the project into it. Called by the Makefile; safe to run again.
set -euo pipefail
wanted="$1" venv="$2"

# Prints how many microseconds the interpreter takes to parse something, if it will do at all.
# Parsing tells most plainly whether it was built with profile-guided optimisation, which makes
# this project a fifth faster.
probe='
import sys
import ast, ensurepip, time, timeit, venv
if sys.version_info >= (3, 11):
    source = "def f(a, b):\n  return [a + i for i in range(b) if i % 2]\n" * 10
    took = timeit.repeat(lambda: ast.parse(source), time.process_time, number=20, repeat=50)
    print(int(min(took) * 1e6))'

python="" best=0
for candidate in ${wanted:-python3 /usr/bin/python3 /usr/local/bin/python3}; do
    took=$("$candidate" -c "$probe" 2>/dev/null) || continue
    # The first that will do, or one that is faster by a tenth.
    if [ -n "$took" ] && { [ -z "$python" ] || [ $((took * 10)) -lt $((best * 9)) ]; }; then
        python="$candidate" best="$took"
    fi
done
if [ -z "$python" ]; then
    echo "setup: ${wanted:-python3} is missing, older than 3.11, or without the venv module;" \
         "name another with: make setup PYTHON=python3.12" >&2
    exit 2
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# Dependency groups need pip 25.1; older interpreters ship an older one.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable . --group dev
touch "$venv/.ready"
echo "setup: installed into $venv ($("$venv/bin/python" -V), $python); activate it with: source $venv/bin/activate"
