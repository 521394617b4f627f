#!/usr/bin/env bash
# Whether two builds of xdit-cli draw the same pictures, byte for byte: 40 small runs over families, strategies, dtypes,
# instruction tiers and schedulers, about a minute each time.
#     ci/pictures.sh draw BINARY FOLDER [PATTERN]     draws with BINARY into the empty or missing FOLDER
#     ci/pictures.sh compare OLD NEW [PATTERN]        compares two such folders, and replays OLD's pictures with NEW's binary
# PATTERN (of grep -E) chooses runs by name. PIPELINES names a copy of tests/golden/pipelines: records keep the path.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
pipelines=${PIPELINES:-$repo/tests/golden/pipelines}

# NAME MODEL FLAG…
runs() {
    cat <<'RUNS'
demo-f32                 demo         --height 128 --width 96 --num-images-per-prompt 2
demo-bf16                demo         --dtype bf16 --height 96 --width 128
demo-f16                 demo         --dtype f16
demo-portable            demo         --cpu-tier portable
demo-avx2                demo         --cpu-tier avx2
demo-avx512              demo         --cpu-tier avx512
demo-guided              demo         --negative-prompt "a green star" --true-cfg-scale 2
demo-ulysses-avx2-bf16   demo         --cpu-tier avx2 --dtype bf16 --ulysses-degree 2
demo-pipefusion          demo         --num-inference-steps 5 --pipefusion-parallel-degree 2 --num-pipeline-patch 3
demo-32-ranks            demo         --num-inference-steps 5 --num-images-per-prompt 2 --data-parallel-degree 2 --negative-prompt "a green star" --true-cfg-scale 2 --use-cfg-parallel --pipefusion-parallel-degree 2 --num-pipeline-patch 4 --warmup-steps 2 --ring-degree 2 --ulysses-degree 2
flux-dev                 flux-dev     --height 80
flux-dev-ulysses         flux-dev     --ulysses-degree 2
flux-dev-ring-bf16       flux-dev     --ring-degree 2 --dtype bf16
flux-dev-usp             flux-dev     --ulysses-degree 2 --ring-degree 2 --height 80
flux-dev-pipefusion      flux-dev     --num-inference-steps 5 --pipefusion-parallel-degree 2 --num-pipeline-patch 3
flux-dev-drift           flux-dev     --num-inference-steps 8 --pipefusion-parallel-degree 2 --num-pipeline-patch 4 --attn-layer-num-for-pp 3,2 --max-drift 0.05
flux-schnell-f16         flux-schnell --dtype f16 --seed 1 2 --num-images-per-prompt 2
flux-schnell-lines       flux-schnell --prompt-file - --data-parallel-degree 2 --ulysses-degree 2
flux-schnell-one-decodes flux-schnell --ring-degree 2 --no-parallel-vae --low-memory
flux-variant             flux-variant --variant fp16 --max-sequence-length 24
sd3                      sd3-medium   --guidance-scale 5
sd3-ulysses-uneven       sd3-medium   --ulysses-degree 2 --width 80
sd3-cfg                  sd3-medium   --use-cfg-parallel --dtype bf16
sd35-medium-bf16         sd35-medium  --dtype bf16
sd35-medium-portable     sd35-medium  --cpu-tier portable
sd35-medium-avx2-f16     sd35-medium  --cpu-tier avx2 --dtype f16 --ring-degree 2
sd35-medium-skip         sd35-medium  --num-inference-steps 8 --skip-guidance-layers 1,3 --skip-layer-guidance-stop 0.6 --ring-degree 2
sd35-medium-pipefusion   sd35-medium  --num-inference-steps 5 --pipefusion-parallel-degree 2 --num-pipeline-patch 3
sd35-medium-no-t5        sd35-medium  --no-t5 --clip-skip 1 --guidance-scale 1
sd35-large-usp           sd35-large   --ulysses-degree 2 --ring-degree 2
sd35-large-hybrid        sd35-large   --num-inference-steps 5 --use-cfg-parallel --pipefusion-parallel-degree 2 --num-pipeline-patch 2 --ulysses-degree 2
hunyuan-1.1-ddpm         hunyuan-v1.1 --crops-coords-top-left 8 16 --num-inference-steps 2
hunyuan-1.1-ddim-ulysses hunyuan-v1.1 --scheduler DDIMScheduler --guidance-rescale 0.5 --ulysses-degree 2 --no-use-resolution-binning
hunyuan-1.1-euler-ring   hunyuan-v1.1 --scheduler EulerDiscreteScheduler --ring-degree 2 --dtype bf16 --no-use-resolution-binning
hunyuan-1.1-dpm-folded   hunyuan-v1.1 --scheduler DPMSolverMultistepScheduler --num-inference-steps 8 --pipefusion-parallel-degree 2 --num-pipeline-patch 3 --pipefusion-placement folded --height 96 --no-use-resolution-binning
hunyuan-1.2-ddpm-linear  hunyuan-v1.2 --num-inference-steps 5 --pipefusion-parallel-degree 2 --num-pipeline-patch 3 --pipefusion-placement linear --height 96 --no-use-resolution-binning
hunyuan-1.2-dpm-cfg-f16  hunyuan-v1.2 --scheduler DPMSolverMultistepScheduler --dtype f16 --use-cfg-parallel --no-use-resolution-binning
hunyuan-1.2-ddim-avx512  hunyuan-v1.2 --scheduler DDIMScheduler --cpu-tier avx512 --dtype bf16 --no-use-resolution-binning
hunyuan-1.2-hybrid       hunyuan-v1.2 --scheduler EulerDiscreteScheduler --num-inference-steps 5 --use-cfg-parallel --pipefusion-parallel-degree 2 --num-pipeline-patch 2 --ring-degree 2 --height 96 --no-use-resolution-binning
hunyuan-1.2-tiles        hunyuan-v1.2 --scheduler DPMSolverMultistepScheduler --vae-tiling --height 640 --width 576 --cpu-tier portable --no-use-resolution-binning
RUNS
}

# What --prompt-file - reads; other runs do not look at it.
lines='a blue star on a white background
{"prompt": "a red circle", "seed": 7, "height": 80}
{"prompt": "a green square", "num_images_per_prompt": 2}'

# Draws run $1 (of pipeline $2, flags after it) with $binary into $folder.
draw() {
    local name=$1 model=$2 default kind
    shift 2
    [ "$model" = demo ] || model=$pipelines/$model
    local flags=(--model "$model" "$@")
    for default in --height=64 --width=64 --num-inference-steps=3; do
        [[ " $* " == *" ${default%=*} "* ]] || flags+=("$default")
    done
    [[ " $* " == *" --prompt-file "* ]] || flags+=(--prompt "a red circle on a blue background")
    for kind in --no-metadata --output-type=png --output-type=latent; do
        mkdir -p "$folder/$name/$kind"
        "$binary" generate --quiet "${flags[@]}" "$kind" --output "$folder/$name/$kind/" <<<"$lines" || return
    done
}

# The SHA-256 of each file in $1, whatever its name.
contents() {
    (cd "$1" && sha256sum -- * | cut -d' ' -f1 | sort)
}

# Compares run $1 in $folder with that in $old; its pictures with a record are drawn again instead.
compare() {
    local kind picture
    for kind in --no-metadata --output-type=latent; do
        diff -q <(contents "$old/$1/$kind") <(contents "$folder/$1/$kind") >/dev/null || { echo "$1/$kind: other bytes"; return 1; }
    done
    for picture in "$old/$1/--output-type=png"/*; do
        "$binary" replay --quiet "$picture" >/dev/null || { echo "$picture: replay says $?"; return 1; }
    done
}

# `$1` for each run whose name matches $2.
each() {
    local line run passed=0 failed=0
    while IFS= read -r line <&3; do
        [[ ${line%% *} =~ $2 ]] || continue
        eval "run=($line)"
        if "$1" "${run[@]}"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "$1 ${run[0]}: failed"; fi
    done 3< <(runs)
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}

case ${1-} in
    draw)
        binary=$(realpath "$2") folder=$3
        [ -z "$(ls -A "$folder" 2>/dev/null)" ] || { echo "$folder is not empty" >&2; exit 2; }
        mkdir -p "$folder"
        echo "$binary" >"$folder/binary"
        each draw "${4-}"
        ;;
    compare)
        old=$2 folder=$3 binary=$(cat "$3/binary")
        each compare "${4-}"
        ;;
    *)
        sed -n '2,/^set/{/^#/p}' "$0" >&2
        exit 2
        ;;
esac
