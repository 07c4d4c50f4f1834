#!/usr/bin/env bash
# Everything that has to be measured on a machine with an NVIDIA GPU; it needs no network.
#
#     benchmarks/gpu.sh FOLDER PART...
#
# Parts, the most valuable first:
#   tests       the GPU tests (a minute)
#   together    how many candidates at a time, with MPS and without, as streams, with torch's kernels (4 minutes)
#   throughput  images a second against PyTorch's MNIST example (3 minutes)
#   search      `nas search --budget 10000 --trials 200` for each seed of $SEEDS (default 0), then `nas best`
#   published   the studies of published.py, seeds $SEEDS (default 0 1 2) at the same time, then the
#               winners of $CAPS (default 10000 5000 2500 1000); run again with the same $STATE, it
#               goes on where it was stopped (10 minutes)
#   spaces      whole searches in the spaces $SPACES (default mixed mobile residual), seeds 0 to 2 (25 minutes)
#   trainings   300 nets for 1, 3 and 15 epochs, as many as $SECONDS_FOR_TRAININGS (default 420) allow
#
# PYTHON names the interpreter, which has torch. WHEELS is a folder of wheels of what else nas
# needs; they are installed aside. MNIST is an archive (.tgz) of the folder MNIST, where the
# machine cannot fetch it. A part that fails or takes too long does not stop the others.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$1
shift
python=${PYTHON:-python3}
mkdir -p "$out"
exec > >(tee -a "$out/log.txt") 2>&1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir \
        --target "$site" "$WHEELS"/*.whl || exit
    export PYTHONPATH=$PYTHONPATH:$site
fi
if [ -n "${MNIST:-}" ]; then
    export NAS_CACHE_DIR=${NAS_CACHE_DIR:-$(mktemp -d)}
    tar -C "$NAS_CACHE_DIR" -xzf "$MNIST"
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv

part() { # SECONDS NAME COMMAND...: run a part under a limit, tell how it went
    local limit=$1 name=$2 began=$SECONDS code=0
    shift 2
    echo "== $name"
    timeout "$limit" "$@" || code=$?
    echo "== $name: exit $code, $((SECONDS - began)) s"
}

with_mps() { # COMMAND...: run it with NVIDIA's Multi-Process Service, where it starts
    local folder
    folder=$(mktemp -d)
    export CUDA_MPS_PIPE_DIRECTORY=$folder/pipe CUDA_MPS_LOG_DIRECTORY=$folder/log
    mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
    if command -v nvidia-cuda-mps-control && nvidia-cuda-mps-control -d; then
        "$@"
        echo quit | timeout 20 nvidia-cuda-mps-control
    else
        echo "no MPS on this machine"
    fi
    unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}

run_tests() {
    part 75 "GPU tests" "$python" -m pytest -q -m "" -p no:cacheprovider --timeout 25 -x --maxfail 3 \
        tests/test_gpu.py tests/test_gpu_kernels.py tests/test_training.py \
        -k "gpu and not emulated or recording"
}
run_together() {
    # The parts say why: what a training waits for before it begins, the images, the steps.
    local nets=s0,public-1936,studies/published/mnist-10000/best
    local options=(--nets "$nets" --images 27500 --epochs 2 --at-once "${AT_ONCE:-1,4,8,16}")
    with_mps part 150 "processes with MPS" "$python" benchmarks/together.py \
        --ways processes --csv "$out/together-mps.csv" "${options[@]}"
    # Whether the torch kernels that prepare images wait for the others' trainings.
    with_mps part 60 "processes with MPS, images prepared 512 batches ahead" "$python" \
        benchmarks/together.py --ways processes --csv "$out/together-ahead.csv" \
        "${options[@]}" --at-once 8 --ahead 512
    part 60 "processes and streams" "$python" benchmarks/together.py \
        --csv "$out/together.csv" "${options[@]}" --nets s0 --at-once 1,8
    NAS_KERNELS=0 with_mps part 60 "processes with MPS, torch's kernels" "$python" \
        benchmarks/together.py --ways processes --csv "$out/together-torch.csv" \
        "${options[@]}" --nets s0 --at-once 1,16
}
run_throughput() {
    part 170 "throughput" "$python" benchmarks/throughput.py --device cuda \
        --repeats 3 --csv "$out/throughput.csv"
    part 60 "throughput without recording" env NAS_CAPTURE=0 "$python" \
        benchmarks/throughput.py --device cuda --repeats 1 --nets s0 --batch-sizes 64 \
        --images 1280 --csv "$out/throughput-no-capture.csv"
}
run_spaces() {
    # shellcheck disable=SC2086 # a list of names
    part "${SECONDS_FOR_SPACES:-560}" "spaces" "$python" benchmarks/spaces.py run \
        ${SPACES:-mixed mobile residual} --seeds 0-2 --device cuda --csv "$out/spaces.csv"
}
run_search() {
    local seed studies
    studies=$(mktemp -d)
    for seed in ${SEEDS:-0}; do
        part 200 "a search of 200 trials, seed $seed" "$python" -m nas search \
            --budget 10000 --trials 200 --device cuda --seed "$seed" --study "gpu-$seed" \
            --studies "$studies" >"$out/search-$seed.txt" 2>&1
        part 100 "best of seed $seed" "$python" -m nas best "gpu-$seed" \
            --seeds "${BEST_SEEDS:-3}" --device cuda --studies "$studies" | tail -3
        tar -C "$studies" --exclude '*.html' -czf "$out/studies.tgz" .
    done
}
published_name() { # SEED: as published.py names its study
    echo "mnist-10000$([ "$1" = 0 ] || echo "-seed-$1")"
}
run_published() {
    with_mps _published
}
_published() { # each search has its own coordinator, so that some draw while others train
    local state=${STATE:-$(mktemp -d)} seeds=${SEEDS:-0 1 2} workers=${WORKERS:-4}
    local cap seed name best running=()
    export NAS_GPU_PROCESSES=$(($(wc -w <<<"$seeds") * workers))
    for seed in $seeds; do
        name=$(published_name "$seed")
        part "${SECONDS_FOR_SEARCHES:-400}" "search of $name" "$python" -m nas search \
            --budget 10000 --trials 200 --device cuda --workers "$workers" --seed "$seed" \
            --study "$name" --studies "$state" >"$out/$name.txt" 2>&1 &
        running+=($!)
    done
    wait "${running[@]}"
    for cap in ${CAPS:-10000 5000 2500 1000}; do
        running=()
        for seed in $seeds; do
            name=$(published_name "$seed")
            best=best$([ "$cap" = 10000 ] || echo "-$cap")
            [ -e "$state/$name/$best/report.json" ] && continue
            part "${SECONDS_FOR_BEST:-200}" "best of $name at $cap" "$python" -m nas best "$name" \
                --seeds 3 --max-params "$cap" --device cuda --workers "$workers" \
                --studies "$state" -o "$state/$name/$best" >"$out/$name-$cap.txt" 2>&1 &
            running+=($!)
        done
        wait "${running[@]}"
        tar -C "$state" --exclude '*.html' -czf "$out/published.tgz" .
    done
    tail -qn 2 "$out"/mnist-10000*.txt
    unset NAS_GPU_PROCESSES
}
run_trainings() {
    with_mps part "${SECONDS_FOR_TRAININGS:-420}" "trainings" "$python" \
        benchmarks/trainings.py --device cuda --jobs "${JOBS:-8}" --csv "$out/trainings.csv"
}
for name in "$@"; do
    "run_$name"
done
