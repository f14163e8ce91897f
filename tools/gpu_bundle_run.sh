#!/bin/sh
# Run where the bundle was unpacked: puts its wheels beside it, once, and runs everything that needs CUDA.
# Usage: ./run.sh [--out FILE] [--cpu] [--limit SECONDS]      PYTHON=python3.12 ./run.sh names another Python
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}

if [ ! -d "$here/site" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$here/site" "$here"/wheels/*.whl
fi
# Its wheels come first, and the package is found by this path alone, also by the ranks.
export PYTHONPATH="$here/site:$here/parallel-lab"
exec "$python" "$here/parallel-lab/tools/gpu_run.py" "$@"
