#!/usr/bin/env bash
# One node of several, without SLURM. Start it on each of them, with the same HEAD and NODES, within half a minute:
#
#   HEAD=10.0.0.1 NODES=2 NODE=0 launch/many_nodes.sh configs/base.yaml data.shards=DIR     # on 10.0.0.1
#   HEAD=10.0.0.1 NODES=2 NODE=1 launch/many_nodes.sh configs/base.yaml data.shards=DIR     # on the other
#
# HEAD: address of node 0, as the others reach it. PORT: a free one there (29500). PROCESSES: of each node (its GPUs;
# 1 without any). The run directory and the shards must be where all nodes see them.
#
# Where a node or a process is lost, each node starts again by itself, RESTARTS times (3), and waits RESTART_WAIT
# seconds (600) for the others: start the lost one again with the same command, and the run resumes from its newest
# checkpoint. Not by torchrun's own restarts: for those a stop on request, or a mistake, is a fault too. (Exit codes:
# livetrain train --help.) A first attempt that ends within RESTART_AFTER seconds (75), as where nodes do not meet, is
# not repeated.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
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
child=""
asked=""
ask() { # bash has what runs in the background ignore Ctrl-C
    asked=yes
    [[ -z $child ]] || kill -s "$1" "$child" 2>/dev/null
}
trap 'ask TERM' INT TERM
trap 'ask HUP' HUP
trap 'ask USR1' USR1

for ((attempt = 0; ; attempt++)); do
    began=$SECONDS
    "$PYTHON" -m livetrain.cli train --config_file launch/many_nodes.yaml \
        --num_machines "$NODES" --machine_rank "$NODE" --num_processes $((NODES * PROCESSES)) \
        --main_process_ip "$HEAD" --main_process_port "${PORT:-29500}" --rdzv_conf "timeout=$WAIT" "$@" &
    child=$!
    wait "$child"
    code=$?
    while kill -0 "$child" 2>/dev/null; do # `wait` ends at each signal; the run may need time to save
        wait "$child"
        code=$?
    done
    case $code in 0 | 2 | 3 | 75) exit $code ;; esac
    if [[ -n $asked ]] || ((attempt >= ${RESTARTS:-3})) || ((attempt == 0 && SECONDS - began < ${RESTART_AFTER:-75})); then
        exit $code
    fi
    WAIT=$((NODE == 0 ? ${RESTART_WAIT:-600} : ${RESTART_WAIT:-600} / 2))
    echo "many_nodes.sh: exit code $code; starting again ($((attempt + 1)) of ${RESTARTS:-3})" >&2
done
