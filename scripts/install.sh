#!/usr/bin/env bash
# Makes the virtual environment: install.sh VENV cpu|cuda|core [extra,extra…]
# vLLM's CPU build wants the CPU build of torch, and breaks if torch's media packages (CUDA builds on PyPI) lie beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 engine=$2 more=${3:-}
python=${PYTHON:-python3}
torch_version=2.13.0
torch_cpu_index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

"$python" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 14)))' || {
  echo "Loam needs Python 3.11, 3.12 or 3.13; '$python' is $("$python" --version 2>&1)." >&2
  echo "Install one and say which: make install PYTHON=python3.12" >&2
  exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || {
  echo "No virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2
  exit 1
}
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

extras=$engine${more:+,$more}
case $engine in
  core) extras=$more ;;
  cpu)
    echo "==> torch $torch_version, CPU build"
    pip install -q "torch==$torch_version+cpu" || pip install -q "torch==$torch_version+cpu" --index-url "$torch_cpu_index"
    ;;
esac
echo "==> loam${extras:+[$extras]}; the first time takes a few minutes"
pip install -q -e ".${extras:+[$extras]}"
if [ "$engine" = cpu ]; then
  pip uninstall -q -y torchvision torchaudio torchcodec
fi
