#!/bin/sh
# Makes build/gpu_bundle.tar.gz for a machine with a GPU and without a network: the committed tree, the wheels that
# such a machine lacks beside its own Python 3.12, torch 2.11, pytest, matplotlib and scikit-learn, and run.sh.
# Usage: tools/gpu_bundle.sh [PYTHON]      whose pip downloads the wheels; that of .venv where none is named
# There: tar xzf gpu_bundle.tar.gz && gpu_bundle/run.sh --out gpu.md
set -eu
cd "$(dirname "$0")/.."

wheels="cloudpickle ipython ipython-pygments-lexers prompt-toolkit wcwidth jedi parso stack-data asttokens executing
    pure-eval matplotlib-inline pexpect ptyprocess traitlets comm ipywidgets anywidget psygnal typing-extensions
    nbformat fastjsonschema jsonschema jsonschema-specifications referencing rpds-py jupyter-core platformdirs"

rm -rf build/gpu_bundle build/gpu_bundle.tar.gz
mkdir -p build/gpu_bundle/parallel-lab build/gpu_bundle/wheels
git archive HEAD | tar -x -C build/gpu_bundle/parallel-lab
cp tools/gpu_bundle_run.sh build/gpu_bundle/run.sh

for name in $wheels; do grep "^$name==" requirements.lock; done > build/gpu_bundle/wheels.txt
"${1:-.venv/bin/python}" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 \
    --platform manylinux2014_x86_64 --dest build/gpu_bundle/wheels --requirement build/gpu_bundle/wheels.txt

tar -czf build/gpu_bundle.tar.gz -C build gpu_bundle
rm -r build/gpu_bundle
du -h build/gpu_bundle.tar.gz
