#!/usr/bin/env bash
# Two processes on the CPU: launch/two_cpus.sh CONFIG.yaml … [key=value …]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=.venv/bin/python
[[ -x $PYTHON ]] || PYTHON=python3
export ACCELERATE_USE_CPU=1
exec "$PYTHON" -m livetrain.cli train --config_file launch/two_cpus.yaml "$@"
