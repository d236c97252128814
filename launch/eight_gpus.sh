#!/usr/bin/env bash
# Eight processes on the eight GPUs of this machine: launch/eight_gpus.sh CONFIG.yaml … [key=value …]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=.venv/bin/python
[[ -x $PYTHON ]] || PYTHON=python3
exec "$PYTHON" -m livetrain.cli train --config_file launch/eight_gpus.yaml "$@"
