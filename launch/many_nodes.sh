#!/usr/bin/env bash
# One node of several, without SLURM. Start it on each of them, with the same HEAD and NODES, within half a minute:
#
#   HEAD=10.0.0.1 NODES=2 NODE=0 launch/many_nodes.sh configs/base.yaml data.shards=DIR     # on 10.0.0.1
#   HEAD=10.0.0.1 NODES=2 NODE=1 launch/many_nodes.sh configs/base.yaml data.shards=DIR     # on the other
#
# HEAD: address of node 0, as the others reach it. PORT: a free one there (29500). PROCESSES: of each node (its GPUs;
# 1 without any). The run directory and the shards must be where all nodes see them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${HEAD:?set HEAD, the address of node 0}" "${NODES:?set NODES, how many there are}" "${NODE:?set NODE, from 0}"
PYTHON=.venv/bin/python
[[ -x $PYTHON ]] || PYTHON=python3
GPUS=$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l) # no GPU, no such program
if ((GPUS == 0)); then
    export ACCELERATE_USE_CPU=1
fi
PROCESSES=${PROCESSES:-$((GPUS > 0 ? GPUS : 1))}

# Node 0 waits for the others; these try twice to reach it.
WAIT=$((NODE == 0 ? 45 : 20))

exec "$PYTHON" -m livetrain.cli train --config_file launch/many_nodes.yaml \
    --num_machines "$NODES" --machine_rank "$NODE" --num_processes $((NODES * PROCESSES)) \
    --main_process_ip "$HEAD" --main_process_port "${PORT:-29500}" --rdzv_conf "timeout=$WAIT" "$@"
