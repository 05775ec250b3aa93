#!/usr/bin/env bash
# Every check and measurement of the CUDA engine and of training on a card, in one go, within ten minutes:
#
#     benches/gpu.sh --program PATH/inspectord [--data DIR] [--peers DIR] [--out DIR] [--minutes 10]
#
# --program  built beforehand with --features cuda (or cuda-inference, without training); needs no Rust here
# --data     holds, for each set, SET/ laid out as MVTec AD is and SET.model/, a bundle; `penalty/` with any pictures
# --peers    holds PyTorch's bench_gpu.py, which prints "S batch 1 eager 1.2 ms 800 pictures/s" and the like
# --out      gets gpu.json, gpu.txt and each command's output
#
# Prints PASS, FAIL or SKIP for each check, goes on after a failure, and ends with 0 only if nothing failed. Libraries are
# looked for where CUDA and pip put them. What the checks are: benches/gpu.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
libraries=$(python3 - <<'PYTHON' || true
import glob, site, sys
folders = site.getsitepackages() + [site.getusersitepackages()]
print(":".join(p for f in folders for p in glob.glob(f + "/nvidia/*/lib")))
PYTHON
)
export LD_LIBRARY_PATH="$libraries:/usr/local/cuda/lib64:${LD_LIBRARY_PATH:-}"
export PATH="$PATH:/usr/local/cuda/bin"
exec python3 "$here/gpu.py" "$@"
