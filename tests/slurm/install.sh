#!/usr/bin/env bash
# Installs what the tests of SLURM jobs need, where it can; without it they are skipped and say so.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"
if command -v slurmctld >/dev/null && command -v munged >/dev/null; then
    exit 0
fi
if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
    echo "tests: installing Debian packages: slurm-wlm munge"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge; } >/dev/null
else
    echo "tests: without slurm-wlm and munge (Debian: sudo apt-get install slurm-wlm munge) the two-node run is skipped"
fi
