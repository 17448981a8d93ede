#!/usr/bin/env bash
# Measures natlet beside its peers in one run and writes the results into tests/BENCHMARKS.md, README.md and tests/charts:
#   tests/benchmark.sh [--quick] [--rounds=N] [load] [change] [flows] [loss] [traffic] [core]
# Run it as root on a quiet machine (about a quarter of an hour); without root the kernel refuses large netlink buffers.
# Needs nftables and iptables; valgrind for the core's instructions. Everything that sends packets does so in network
# namespaces of its own. With --quick the tables are small and the results go to target/benchmark: to see that all works.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
for tool in nft iptables-nft-restore; do
  command -v "$tool" >/dev/null || { echo "error: $tool is missing; install nftables and iptables" >&2; exit 2; }
done
quick=no
core=yes
others=no
for argument in "$@"; do
  case $argument in
    --quick) quick=yes ;;
    --*) ;;
    core) core=only ;;
    *) others=yes ;;
  esac
done
if [ $others = yes ]; then
  [ $core = only ] && core=yes || core=no
fi

cargo build --release --locked --quiet -p natlet -p natlet-tests --bin natlet \
  --example benchmark --example change_time --example file_change --example update_loss
out=target/benchmark
mkdir -p $out
options=()
if [ $core != no ]; then
  [ $quick = yes ] && limits=(lookup --max-time 0.01 --sample-count 2) || limits=(--max-time 0.5)
  # What takes longer than its limit is not in the page.
  if timeout 240 cargo bench --locked --quiet -p natlet-core-bench -- "${limits[@]}" >$out/core-times.txt; then
    options+=("--core-times=$out/core-times.txt")
  else
    echo "warning: the core's times were not measured within 4 minutes" >&2
  fi
  [ $quick = yes ] && wanted=(find) || wanted=()
  if command -v valgrind >/dev/null && timeout 240 core/bench/instructions.sh "${wanted[@]}" >$out/core-instructions.txt; then
    options+=("--core-instructions=$out/core-instructions.txt")
  else
    echo "warning: the core's instructions were not counted: no valgrind, or more than 4 minutes" >&2
  fi
fi
if [ $quick = yes ]; then
  mkdir -p $out/tests
  cp tests/BENCHMARKS.md $out/tests/
  cp README.md $out/
fi
exec target/release/examples/benchmark "${options[@]}" "$@"
