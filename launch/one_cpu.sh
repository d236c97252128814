#!/usr/bin/env bash
# One process on the CPU: launch/one_cpu.sh CONFIG.yaml … [key=value …]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=.venv/bin/python
[[ -x $PYTHON ]] || PYTHON=python3
exec "$PYTHON" -m livetrain.cli train --config_file launch/one_cpu.yaml "$@"
