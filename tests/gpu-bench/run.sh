#!/usr/bin/env bash
# Runs the tests and the benchmark of this folder on the first GPU of this machine, which needs NVIDIA's driver and cuBLASLt (of
# the CUDA toolkit, or of a Python package), but no Rust and no internet. `ci/gpu.sh` makes the folder.
#
#     ./run.sh [--smoke]     writes report/report.md and report/report.jsonl
#
# --smoke takes tiny sizes, to see whether everything runs. The benchmark compares with PyTorch and diffusers where the Python that
# PYTHON names (python3) has them. The code is 0 if everything passed, 1 if not, and 2 without a GPU.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
case "${1-}" in
"") small= ;;
--smoke) small=--smoke XDIT_GPU_TESTS=small && export XDIT_GPU_TESTS ;;
*) echo "./run.sh [--smoke]" >&2 && exit 1 ;;
esac
python=${PYTHON:-python3}
export XDIT_GOLDENS=$PWD/golden
most_seconds=1200 # for one test, and three times as long for a round of a benchmark
rounds=2

# cuBLASLt, behind the places that the environment names. Only our programs are given these: PyTorch finds its own.
libraries=${LD_LIBRARY_PATH-}
packages='import glob, sys; print("\n".join(f for p in sys.path if p for f in glob.glob(p + "/nvidia/*/lib")))'
while read -r folder; do
    compgen -G "$folder/libcublasLt.so.1[23]" >/dev/null && libraries=${libraries:+$libraries:}$folder
done < <(
    "$python" -c "$packages" 2>/dev/null
    compgen -G "/usr/local/cuda*/lib64"
)
ours() { LD_LIBRARY_PATH=$libraries timeout -k 10 "$@"; }

tar -xzf bin.tar.gz || exit 1
device=$(ours 60 bin/gpu-bench probe) || exit
rm -rf report
mkdir -p report/logs
echo "$device" >report/device.json
fact() { printf '%s\t%s\n' "$1" "$2" >>report/facts.tsv; }
fact date "$(date -u '+%Y-%m-%d %H:%M UTC')"
fact sizes "${small:-full}"
if smi=$(nvidia-smi --query-gpu=driver_version,power.limit,clocks.max.sm,clocks.max.mem,pcie.link.gen.current --format=csv,noheader 2>/dev/null); then
    fact "driver, power limit, clocks of SM and memory, PCIe" "$(head -1 <<<"$smi")"
fi
fact processor "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), $(nproc) threads"
fact kernel "$(uname -r)"

failed=0
# check NAME COMMAND…: one test in a process of its own, since a kernel that fails takes the whole process's GPU with it.
check() {
    local name=$1 start code outcome tenths seconds
    start=$(date +%s%1N)
    shift
    ours "$most_seconds" "$@" >"report/logs/${name//::/.}.txt" 2>&1
    code=$?
    case $code in
    0) outcome=passed ;;
    124 | 137) outcome="no result in $most_seconds s" ;;
    *) outcome="failed (code $code)" ;;
    esac
    [ "$outcome" = passed ] || failed=1
    tenths=$(($(date +%s%1N) - start))
    seconds=$((tenths / 10)).$((tenths % 10))
    printf '%s\t%s\t%s\n' "$name" "$outcome" "$seconds" >>report/tests.tsv
    echo "$outcome: $name ($seconds s)"
}
check xdit-cli::devices bin/xdit-cli devices
check xdit-cli::generate bin/xdit-cli generate --device cuda --model golden/pipelines/flux-schnell --prompt circle --height 32 \
    --width 32 --num-inference-steps 1 --max-sequence-length 5 --output report/picture.png
tests=$(bin/gpu-tests --ignored --list | sed -n 's/: test$//p')
[ -n "$tests" ] || { echo "bin/gpu-tests has no tests" && exit 1; }
for test in $tests; do
    check "$test" bin/gpu-tests --ignored --exact --nocapture "$test"
done

# bench SIDE COMMAND…: its lines go to the report; if it ends otherwise, so does its end.
bench() {
    local side=$1 code
    shift
    "$@" >>report/bench.jsonl 2>"report/logs/bench.$side.$round.txt"
    code=$?
    if [ "$code" != 0 ]; then
        printf '{"kind": "bench", "side": "%s", "round": %d, "error": "ended with code %d, see logs/bench.%s.%d.txt"}\n' \
            "$side" "$round" "$code" "$side" "$round" >>report/bench.jsonl
    fi
}
for round in $(seq "$rounds"); do
    echo "benchmark, round $round of $rounds"
    bench xdit ours $((3 * most_seconds)) bin/gpu-bench bench $small "$round"
    if command -v "$python" >/dev/null; then
        bench torch timeout -k 10 $((3 * most_seconds)) "$python" bench_torch.py $small --round "$round"
    elif [ "$round" = 1 ]; then
        printf '{"kind": "bench", "side": "torch", "skipped": "there is no %s"}\n' "$python" >>report/bench.jsonl
    fi
done
grep -q '"error"' report/bench.jsonl && failed=1

bin/gpu-bench report report || exit 1
echo "report/report.md"
exit "$failed"
