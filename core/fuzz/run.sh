#!/usr/bin/env bash
# Fuzzes the core: every target for SECONDS, one after the other.
#
#   core/fuzz/run.sh SECONDS [TARGET...]    default: all
#
# A run starts from corpus/TARGET, and from what earlier runs on this machine found (work/TARGET, not committed). At its end
# corpus/TARGET is made anew: a few of all inputs, which together reach every place of the code that all of them reach.
# What a run finds lies in artifacts/TARGET; it becomes a test with a sentence in core/tests.
# Exit status: 0 no finding, 1 a finding, 3 cargo-fuzz is missing.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?how many seconds for each target?}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(program table packet any_program)
if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "error: cargo-fuzz is missing; install it: cargo install cargo-fuzz --version 0.13.2" >&2
  exit 3
fi
# Runs on the stable compiler, which lacks the sanitizers; core forbids unsafe code, so there is little for one to find.
# -a keeps overflow checks and debug assertions.
export RUSTC_BOOTSTRAP=1
options=(--sanitizer none -O -a)
longest=1500

found=0
for target in "${targets[@]}"; do
  echo "== $target"
  work=work/$target
  mkdir -p "$work" "corpus/$target"
  cargo fuzz build "${options[@]}" "$target"
  # an input that takes ten seconds is a finding too: the work for each is bounded
  if cargo fuzz run "${options[@]}" "$target" "$work" "corpus/$target" -- -max_total_time="$seconds" -max_len=$longest \
    -timeout=10 2>"$work.log"; then
    grep -E '^(#[0-9]+\s+DONE|Done)' "$work.log"
  else
    echo "a finding: $(grep -m1 -A1 panicked "$work.log" | xargs); more in core/fuzz/$work.log and core/fuzz/artifacts/$target"
    found=1
  fi
  rm -rf "$work.new"
  mkdir "$work.new"
  cargo fuzz run "${options[@]}" "$target" "$work.new" "corpus/$target" "$work" -- -set_cover_merge=1 -use_counters=0 \
    -max_len=$longest 2>>"$work.log"
  rm -r "corpus/$target"
  mv "$work.new" "corpus/$target"
  echo "corpus/$target: $(ls "corpus/$target" | wc -l) inputs, $(du -sb "corpus/$target" | cut -f1) bytes"
done
exit $found
