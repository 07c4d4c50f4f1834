#!/usr/bin/env bash
# Everything that has to be measured on a machine with an NVIDIA GPU, in under 10 minutes.
#
#     benchmarks/gpu.sh [FOLDER for the results, default gpu-results]
#
# From the checkout, with nas and its tests' needs installed; PYTHON names the
# interpreter. A part that fails or takes too long does not stop the others.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu-results}
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
exec > >(tee "$out/log.txt") 2>&1

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv

part() { # SECONDS NAME COMMAND...: run a part under a limit, tell how it went
    local limit=$1 name=$2 began=$SECONDS code=0
    shift 2
    echo "== $name"
    timeout "$limit" "$@" || code=$?
    echo "== $name: exit $code, $((SECONDS - began)) s"
}

part 60 "a recording trains as the step itself" \
    "$python" -m pytest -q -p no:cacheprovider tests/test_training.py -k "recording"
part 170 "throughput" \
    "$python" benchmarks/throughput.py --device cuda --repeats 3 --csv "$out/throughput.csv"
part 60 "throughput without recording" env NAS_CAPTURE=0 \
    "$python" benchmarks/throughput.py --device cuda --repeats 1 --nets s0 \
    --batch-sizes 64 --images 1280 --csv "$out/throughput-no-capture.csv"
part 120 "several candidates at a time" \
    "$python" benchmarks/together.py --csv "$out/together.csv"
part 180 "a search of 200 trials" \
    "$python" -c "from nas.cli import main; main()" search --budget 10000 --trials 200 --device cuda \
    --study gpu --studies "$out/studies"
