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
  benches=()
  for bench in core/bench/benches/*.rs; do benches+=(--bench "$(basename "$bench" .rs)"); done
  # Built first, so that the limits are of the measurements. What takes longer than its limit is not in the page.
  cargo bench --locked --quiet -p natlet-core-bench "${benches[@]}" --no-run
  [ $quick = yes ] && limits=(natlet --max-time 0.01 --sample-count 2) || limits=(--max-time 0.5)
  if timeout 240 cargo bench --locked --quiet -p natlet-core-bench "${benches[@]}" -- "${limits[@]}" >$out/core-times.txt; then
    options+=("--core-times=$out/core-times.txt")
  else
    echo "warning: the core's times were not measured within 4 minutes" >&2
  fi
  [ $quick = yes ] && wanted=(find) || wanted=()
  if ! command -v valgrind >/dev/null; then
    echo "warning: the core's instructions were not counted: no valgrind" >&2
  elif core/bench/instructions.sh "no operation: builds only" >/dev/null &&
    timeout 240 core/bench/instructions.sh "${wanted[@]}" >$out/core-instructions.txt; then
    options+=("--core-instructions=$out/core-instructions.txt")
  else
    echo "warning: the core's instructions were not counted within 4 minutes" >&2
  fi
fi
if [ $quick = yes ]; then
  mkdir -p $out/tests
  cp tests/BENCHMARKS.md $out/tests/
  cp README.md $out/
fi
exec target/release/examples/benchmark "${options[@]}" "$@"
