#!/usr/bin/env bash
# Loads the two tables that public reports put kube-proxy's nftables mode at 16 min 44 s and 13 to 20 min for
# (kubernetes/kubernetes #139513 and #135639), in a network namespace of its own, then a change of one service, which is sent
# without reading back, then a comparison of everything, and the status; with frontends that count connections and with
# such that do not.
# Needs root or unprivileged user namespaces; GNU time (Debian package `time`) adds the peak memory.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --quiet
natlet=$PWD/target/release/natlet
work=$(mktemp -d)
export NATLET_RUNTIME_DIR=$work/run # what `natlet load` remembers is of these namespaces only
trap 'rm -rf "$work"' EXIT

# services.toml of $1 services with $2 endpoints in all, one ClusterIP each; $3 is the first endpoint's second octet
table() {
  awk -v services="$1" -v total="$2" -v first="$3" 'BEGIN {
    print "[node]\ncluster-cidr = [\"11.0.0.0/8\"]\nservice-cidr = [\"10.0.0.0/8\"]"
    for (i = 0; i < services; i++) {
      n = int(total / services) + (i < total % services); list = ""
      for (j = 0; j < n; j++) {
        octet = (i == 0 && j == 0) ? first : int(at / 65536)
        list = list (j ? ", " : "") "\"11." octet "." int(at / 256) % 256 "." at % 256 ":8080\""; at++
      }
      ip = i + 256
      printf "[[service]]\nname = \"ns%d/svc%d:http\"\nport = 80\ncluster-ip = \"10.%d.%d.%d\"\nendpoints = [%s]\n", \
        i % 200, i, int(ip / 65536), int(ip / 256) % 256, ip % 256, list
    }
  }'
}

timed=()
[ -x /usr/bin/time ] && timed=(/usr/bin/time -f "    %e s in all, %U s of it natlet, %S s the kernel; peak memory %M kB")
for size in "44125 44125" "5006 250011"; do
  read -r services endpoints <<<"$size"
  table "$services" "$endpoints" 0 >"$work/a.toml"
  table "$services" "$endpoints" 200 >"$work/b.toml"
  "$natlet" compile "$work/a.toml" -o "$work/a.natp" 2>/dev/null
  "$natlet" compile "$work/b.toml" -o "$work/b.natp" 2>/dev/null
  echo "$services services, $endpoints endpoints"
  for counters in on off; do
    echo "  counters $counters"
    unshare -Urn bash -c '
      natlet=$1; work=$2; counters=$3; shift 3
      for program in a b; do
        "$@" "$natlet" load --counters "$counters" "$work/$program.natp" 2>&1 | sed "s/^\([^ ]\)/  \1/"
      done
      echo "  the same again, everything read back and compared"
      "$@" "$natlet" load --counters "$counters" --verify "$work/b.natp" 2>&1 | sed "s/^\([^ ]\)/  \1/"
      "$@" "$natlet" status 2>&1 | grep "^table\|^  "' scale "$natlet" "$work" "$counters" "${timed[@]}"
  done
done
