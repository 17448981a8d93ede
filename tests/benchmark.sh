#!/usr/bin/env bash
# Measures natlet beside its peers in one run and writes the results into tests/BENCHMARKS.md and tests/charts:
#   tests/benchmark.sh [--quick] [--rounds=N] [load] [change] [flows] [traffic]
# Run it as root on a quiet machine (about a quarter of an hour); without root the kernel refuses large netlink buffers.
# Needs nftables and iptables. Everything happens in network namespaces of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
for tool in nft iptables-nft-restore; do
  command -v "$tool" >/dev/null || { echo "error: $tool is missing; install nftables and iptables" >&2; exit 2; }
done
cargo build --release --locked --quiet -p natlet -p natlet-tests --bin natlet --example benchmark
exec target/release/examples/benchmark "$@"
