#!/usr/bin/env bash
# The board by hand: the emulated gateway between a client and two web servers, in a shell on the client. Needs no root;
# everything is in namespaces of its own and ends with the shell. With arguments, runs them in place of the shell.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
if [ -z "${NATLET_DEMO:-}" ]; then
  folder="$("$here/build.sh" build --quiet --bin gateway | tail -1)"
  export NATLET_DEMO="$folder"
  exec unshare --map-root-user --net --mount --pid --fork --kill-child --mount-proc "$here/demo.sh" "$@"
fi
export PATH="$PATH:/usr/sbin:/sbin"
mount -t tmpfs tmpfs /run
ip link add br0 type bridge mcast_snooping 0
ip tuntap add dev tap0 mode tap
ip link set tap0 master br0 up
ip link set br0 up
host() { # name, IPv4, IPv6, gateways
  ip netns add "$1"
  ip link add "$1" type veth peer name eth0 netns "$1"
  ip link set "$1" master br0 up
  ip -n "$1" link set lo up
  ip -n "$1" link set eth0 up
  ip -n "$1" address add "$2/24" dev eth0
  ip -n "$1" address add "$3/64" dev eth0 nodad
  ip -n "$1" route add default via "$4"
  ip -n "$1" route add default via "$5"
}
host client 192.0.2.9 2001:db8:1::9 192.0.2.1 2001:db8:1::1
for i in 0 1; do
  host "be$i" "198.51.100.1$i" "2001:db8:2::1$i" 198.51.100.1 2001:db8:2::1
  mkdir -p "/run/be$i" && echo "backend $i" > "/run/be$i/index.html"
  ip netns exec "be$i" python3 -m http.server --bind :: --directory "/run/be$i" 8080 >/dev/null 2>&1 &
done
log="/run/board.log"
timeout 3600 qemu-system-arm -machine mps2-an386 -display none -serial none -monitor none \
  -semihosting-config enable=on,target=native -nic tap,ifname=tap0,script=no,downscript=no,model=lan9118 \
  -kernel "$NATLET_DEMO/gateway" >"$log" </dev/null &
sleep 1
if [ $# -gt 0 ]; then exec ip netns exec client "$@"; fi
cat <<TEXT
You are on the client, 192.0.2.9. Behind the board are two web servers. Try:
  curl http://10.96.0.80/                    # ClusterIP: one of two backends
  curl http://192.0.2.80/                    # load balancer, on your own link: the board answers ARP for it
  curl 'http://[2001:db8:96::80]/'           # IPv6
  curl http://192.0.2.1:31080/               # node port
  curl http://10.96.0.80:81/                 # no such port: refused
  cargo run -q -p natlet-tests --example push -- --to 192.0.2.1:4242            # the board's status
  defmt-print -e $NATLET_DEMO/gateway < $log # its log (cargo install defmt-print)
Leave with exit.
TEXT
exec ip netns exec client "${SHELL:-bash}"
