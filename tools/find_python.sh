#!/bin/sh
# Prints the first Python that can serve: 3.11 or later, able to make virtual environments.
# Usage: tools/find_python.sh [PYTHON]     only that one is tried, where one is named
# Every candidate is run: a name on the path may be a shim that leads nowhere.

probe='import sys
if sys.version_info < (3, 11): sys.exit(3)
import ensurepip, venv'

bare=""
for candidate in ${1:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
    "$candidate" -c "$probe" >/dev/null 2>&1
    case $? in
    0) echo "$candidate"; exit 0 ;;
    1) bare=${bare:-$candidate} ;;
    esac
done

if [ -n "$bare" ]; then
    echo "$bare cannot make virtual environments: on Debian and Ubuntu, install the package python3-venv" >&2
elif [ -n "$1" ]; then
    echo "PYTHON=$1 does not run, or is older than Python 3.11" >&2
else
    echo "no Python 3.11 or later was found: install one, or name it with make PYTHON=/path/to/python3" >&2
fi
exit 1
