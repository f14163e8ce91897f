#!/bin/sh
# Prints the first Python that can serve: 3.11 or later, able to make virtual environments.
# Usage: tools/find_python.sh [PYTHON]     only that one is tried, where one is named
# Every candidate is run: a name on the path may be a shim that leads nowhere.

probe='import sys
try:
    import ensurepip, venv
    print("well" if sys.version_info >= (3, 11) else "old")
except ImportError:
    print("bare" if sys.version_info >= (3, 11) else "old")'

bare=""
for candidate in ${1:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
    case $("$candidate" -c "$probe" 2>/dev/null) in
    well) echo "$candidate"; exit 0 ;;
    bare) bare=${bare:-$candidate} ;;
    esac
done

if [ -n "$bare" ]; then
    echo "$bare cannot make virtual environments: on Debian and Ubuntu, install the package python3-venv" >&2
elif [ -n "$1" ]; then
    echo "PYTHON=$1 is no Python that runs, or is older than 3.11" >&2
else
    echo "no Python 3.11 or later was found: install one, or name it with make PYTHON=/path/to/python3" >&2
fi
exit 1
