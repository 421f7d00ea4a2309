#!/usr/bin/env bash
# Makes the virtual environment: install.sh VENV cpu|cuda|core [extra,extra…]
# vLLM's CPU build wants the CPU build of torch, and breaks if torch's media packages (CUDA builds on PyPI) lie beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 engine=$2 more=${3:-}
torch_version=2.13.0
torch_cpu_index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

is_supported() { "$1" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 14)))' 2>/dev/null; }
# venv wants ensurepip; the engine compiles against the headers.
is_complete() { "$1" -c 'import ensurepip, os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null; }

# A distribution's own Python is built with optimisations, which those that pyenv compiles lack unless told otherwise.
python=${PYTHON:-/usr/bin/python3}
if [ -z "${PYTHON:-}" ] && ! { is_supported "$python" && is_complete "$python"; }; then
  ! is_supported "$python" || echo "==> $python lacks venv or headers (apt install python3-venv python3-dev); python3 it is"
  python=python3
fi
is_supported "$python" || {
  echo "Loam needs Python 3.11, 3.12 or 3.13; '$python' is $("$python" --version 2>&1)." >&2
  echo "Install one and name it: make install PYTHON=python3.12" >&2
  exit 1
}
[ -x "$venv/bin/python" ] || echo "==> $("$python" --version), $(command -v "$python")"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
  rm -rf "$venv"
  echo "No virtual environment could be made. On Debian and Ubuntu: apt install python3-venv" >&2
  exit 1
}
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
# pip tells of each package it fetches; what it has already would only be noise.
install() { pip install "$@" 2>&1 | { grep --line-buffered -vE '^(Requirement already|WARNING: Location|Looking in|  )' || true; }; }

extras=$engine${more:+,$more}
if [ "$engine" = core ]; then
  extras=$more
elif [ "$engine" = cpu ]; then
  echo "==> 1/2 torch $torch_version, CPU build"
  install "torch==$torch_version+cpu" || {
    echo "==> not in the configured index; trying PyTorch's own"
    install "torch==$torch_version+cpu" --index-url "$torch_cpu_index"
  }
fi
echo "==> 2/2 loam${extras:+[$extras]}; the first time takes a few minutes"
install -e ".${extras:+[$extras]}"
if [[ ",$extras," == *,dev,* ]]; then
  # It asks for an older jiter and rich than openai's client and the server do, and runs with theirs.
  install --no-deps "instructor==1.17.0"
  # Its kernels are CUDA's; the tests run them in Triton's interpreter. With its dependencies it would fetch a torch.
  install --no-deps "liger-kernel==0.8.5"
fi
if [ "$engine" = cpu ]; then
  pip uninstall -q -y torchvision torchaudio torchcodec 2>/dev/null
fi
echo "==> installed: $venv/bin/loam"
