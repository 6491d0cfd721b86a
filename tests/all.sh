#!/usr/bin/env bash
# Everything that is checked: format, lints, documentation, tests, and the quickstart in its short form.
#
#   tests/all.sh
#
# On a new Debian or Ubuntu machine, as root, it installs what the tests can use: a C compiler, a software Vulkan driver
# for the WebGPU tests, and NVIDIA's run-time compiler with its disassembler (in .venv) for the CUDA tests, which run on
# an interpreter. What it cannot install it says, and the tests that need it are skipped aloud. TLM_OFFLINE=1: install
# nothing.
#
# Every cargo command uses the release profile, so that the dependencies are built as few times as possible.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
skipped=()
skip() { skipped+=("$*"); printf 'SKIPPED: %s\n' "$*" >&2; }

step "tools"
for tool in cargo rustc; do
    if ! command -v "$tool" >/dev/null; then
        echo "no $tool: install Rust 1.90 or newer from https://rustup.rs" >&2
        exit 1
    fi
done
rustc --version
needed=1.90
found=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$needed" "${found%%-*}" | sort -V | head -n1)" != "$needed" ]; then
    echo "Rust $found is too old: $needed or newer is needed (rustup update stable)" >&2
    exit 1
fi

can_install() { [ "${TLM_OFFLINE:-0}" != 1 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
updated=
install() {
    can_install || return 1
    if [ -z "$updated" ]; then
        apt-get update -qq || return 1
        updated=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

if ! command -v cc >/dev/null; then
    install gcc libc6-dev || { echo "no C compiler: install gcc and libc6-dev" >&2; exit 1; }
fi
if ! command -v python3 >/dev/null; then
    install python3 || { echo "no python3, which checks the quickstart's report: install it" >&2; exit 1; }
fi
vulkan_driver() { compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null; }
if [ "$(uname -s)" = Linux ] && ! vulkan_driver; then
    install mesa-vulkan-drivers libvulkan1 || skip "WebGPU tests: no Vulkan driver (apt-get install mesa-vulkan-drivers libvulkan1)"
fi
nvrtc() { compgen -G '.venv/lib/python*/site-packages/nvidia/*/lib/libnvrtc.so.*' >/dev/null; }
if [ -z "${TLM_NVRTC:-}" ] && ! nvrtc && ! ldconfig -p 2>/dev/null | grep -q libnvrtc; then
    if [ "${TLM_OFFLINE:-0}" = 1 ]; then
        skip "CUDA tests: no NVRTC, and TLM_OFFLINE=1"
    else
        python3 -m venv .venv 2>/dev/null || { install python3-venv && python3 -m venv .venv; } || true
        if ! { [ -x .venv/bin/pip ] && .venv/bin/pip install --quiet nvidia-cuda-nvrtc nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm; }; then
            skip "CUDA tests: no NVRTC (python3 -m venv .venv && .venv/bin/pip install nvidia-cuda-nvrtc)"
        fi
    fi
fi

for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 || rustup component add "${component/fmt/rustfmt}"
done

step "format"
cargo fmt --check --all

step "lints"
cargo clippy --release --locked --workspace --all-targets -- -D warnings

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items

step "tests"
cargo test --release --locked --workspace

step "quickstart, short form"
target=${CARGO_TARGET_DIR:-target}
cargo build --release --locked
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# Scores must not depend on what this machine has.
"$target/release/tlm" run examples/quickstart/quickstart-short.toml --out "$out/run" --device cpu
python3 - "$out/run" <<'PYTHON'
import json
import pathlib
import sys

run = pathlib.Path(sys.argv[1])
report = json.loads((run / "report.json").read_text())
for name in ("config.toml", "selected.jsonl", "metrics.jsonl", "report.html"):
    assert (run / name).stat().st_size > 0, f"{name} is empty"
for name in ("config.json", "model.safetensors", "tokenizer.json"):
    assert (run / "model" / name).stat().st_size > 0, f"model/{name} is empty"

select, stage1, stage2, test = (report[key] for key in ("select", "stage1", "stage2", "test"))
assert report["labels"] == ["BACKGROUND", "CONCLUSIONS", "METHODS", "OBJECTIVE", "RESULTS"], report["labels"]
assert select["queries"] == 5997, select["queries"]
assert 0 < select["selected"] <= select["documents"], select
assert select["selected"] == sum(1 for _ in (run / "selected.jsonl").open()), "selected.jsonl has other lines"
assert stage1["mlm_loss_last"] < stage1["mlm_loss_first"], "the masked language model learnt nothing"
assert test["examples"] == 1500, test["examples"]
assert abs(test["micro_f1"] - test["accuracy"]) < 1e-9, "micro-F1 is accuracy for single-label data"
assert test["value"] == test[test["metric"]], test
# Always answering the most frequent label gives 37.6 %.
assert test["accuracy"] > 0.45, f"accuracy {test['accuracy']:.3f}: hardly better than the most frequent label"
print(f"test accuracy {test['accuracy']:.4f}, {report['seconds']:.1f} s")
PYTHON

step "the same on a WebGPU adapter, a few steps"
adapter=$("$target/release/tlm" devices --json | python3 -c '
import json, sys
adapters = json.load(sys.stdin)["wgpu"]["adapters"]
print(adapters[0]["index"] if adapters else "")')
if [ -z "$adapter" ]; then
    skip "training on a WebGPU adapter: there is none"
else
    TLM_CACHE="$out/cache" "$target/release/tlm" run examples/quickstart/quickstart-short.toml --out "$out/wgpu" \
        --device "wgpu:$adapter" --set stage1.steps=4 --set stage1.warmup=1 \
        --set stage2.steps=4 --set stage2.warmup=1 --set stage2.eval_every=4
    python3 - "$out/wgpu" <<'PYTHON'
import json
import math
import pathlib
import sys

report = json.loads((pathlib.Path(sys.argv[1]) / "report.json").read_text())
assert report["device"].startswith("wgpu"), report["device"]
assert report["stage1"]["steps"] == 4 and math.isfinite(report["stage1"]["mlm_loss_last"]), report["stage1"]
assert report["test"]["examples"] == 1500, report["test"]["examples"]
print(f"{report['device']}: {report['seconds']:.1f} s")
PYTHON
fi

step "done"
for what in "${skipped[@]:+${skipped[@]}}"; do
    printf 'SKIPPED: %s\n' "$what"
done
