#!/usr/bin/env bash
# Everything that waits for a CUDA GPU, in the order in which it is worth most.
#
#     bash docs/cuda.sh          all steps
#     bash docs/cuda.sh a b      these steps
#     DRY=1 bash docs/cuda.sh    only print what each step runs
#
# Each step leaves records or a table and continues where it was stopped: run the same command again.
# The minutes are those of an NVIDIA H200; "at most" is a limit that was set, not a measurement.
# PYTHON names the interpreter (python3), ZEROINIT_DATA the folder of MNIST and CIFAR-10. If OUT names
# a folder, the records and tables so far are packed into it after each step and every EVERY seconds
# (60), so that a machine that is taken away in the middle of a step does not take them along.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
DRY=${DRY:-}

zeroinit() { "$PYTHON" -m zeroinit "$@"; }

# runs of a suite that have no record yet
suite() {
    if [ -n "$DRY" ]; then zeroinit run "$@" --dry-run; else zeroinit run "$@" --no-notebook; fi
}

call() { if [ -n "$DRY" ]; then echo "$*"; else "$@"; fi; }

# a: the tests that want CUDA; about a minute in 6 processes, 3 or more in one. The slow ones of the
# file compile for the CPU, for minutes, and want no CUDA
step_a() {
    local parallel=
    "$PYTHON" -c 'import xdist' 2>/dev/null && parallel="-n 6"
    # shellcheck disable=SC2086
    call "$PYTHON" -m pytest -q -m "not slow" $parallel tests/test_speed.py
}

# b: epochs beside their bounds, at most 3 minutes; profiles and trials, at most 4
step_b() {
    call timeout 180 "$PYTHON" -m zeroinit.publish.gpu --device cuda
    call timeout 240 "$PYTHON" -m zeroinit.publish.profiles --device cuda --seconds 230
}

# c: the CNN on CIFAR-10 with uniform biases, seeds 2 to 4, and from zero; 4 minutes
step_c() {
    suite schicho-cifar --only 'cnn (bias_uniform clean seed [2-4]|zero clean)' --gpus-per-run 0.5
}

# d: the residual CNN at full length, 5 seeds; 8 minutes on MNIST, then 6 on CIFAR-10
step_d() {
    suite seo-residual-cnn --only '^mnist residual_cnn .* clean seed [0-4]$' --gpus-per-run 0.33
    suite seo-residual-cnn --only '^cifar10 residual_cnn .* clean seed [0-4]$' --gpus-per-run 0.33
}

# e: the ResNet-50, 30 epochs in bf16, as its code did, as claimed, and from default; 2 minutes a run
step_e() {
    suite resnet50-bf16 --only 'seed 0$'
    suite resnet50-bf16
}

# f: every scheme on the ViT and the ResNet of 14 layers; 8 minutes
step_f() { suite schemes --only '(vit|resnet14) ' --gpus-per-run 0.25; }

# g: the Mixer and the ViT on CIFAR-10, 50 of 500 epochs, 3 seeds; 3 minutes a run
step_g() { suite short-mixer-vit --gpus-per-run 0.5; }

pack() {
    local part=$OUT/results.$BASHPID.part
    tar czf "$part" results 2>/dev/null # a file that is being written may be missing
    mv "$part" "$OUT/results.tar.gz"
}

keep_packing() { while sleep "${EVERY:-60}"; do pack; done; }

if [ -n "$DRY" ]; then OUT=; fi
if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT" results
    keep_packing </dev/null >/dev/null 2>&1 &
    packer=$!
    trap 'kill $packer; rm -f "$OUT"/results.*.part' EXIT
fi

failed=0
for step in "${@:-a b c d e f g}"; do
    for name in $step; do
        case $name in
            [a-g]) ;;
            *) echo "there is no step $name; choose from: a b c d e f g" >&2; exit 2 ;;
        esac
        echo "== step $name"
        begin=$(date +%s)
        "step_$name" || failed=1
        echo "== step $name took $(($(date +%s) - begin)) s"
        if [ -n "${OUT:-}" ]; then pack; fi
    done
done
exit $failed
