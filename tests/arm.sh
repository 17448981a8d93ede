#!/usr/bin/env bash
# Boots an ARM machine with a kernel of its own, Debian's, under QEMU, and lets the cross-built static `natlet` work there.
#
#   tests/arm.sh [aarch64|armv7]...     boots, tests (tests/arm/init says what), prints the verdict; default: both
#   tests/arm.sh --image ARCHITECTURE   only makes what is booted
#   tests/arm.sh --gateway ARCHITECTURE TAP TAP
#                                       boots what was made, as a router of these two tap devices; takes orders on its input
#
# The kernel is that of the Debian release which runs here (bookworm: 6.1). It and a static busybox are downloaded once, 60 MB
# for aarch64 and 43 MB for armv7, and never installed: target/arm/ARCHITECTURE keeps what the machine needs of them. No root
# is needed, and nothing of the machine reaches the network of this one.
#
# `NATLET_ARM=1 cargo test -p natlet-tests --test arm` does the same, and puts the machine between namespaces as their gateway.
# Exit status: 0 passed, 1 failed, 3 a tool is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
# a boot and all tests take 6 s (aarch64) or 12 s (armv7) of an idle core
seconds=600

# Sets what depends on the architecture.
describe() {
  case $1 in
    # a cortex-a53 is emulated three times as fast as `-cpu max`
    aarch64) debian=arm64 package=linux-image-arm64 target=aarch64-unknown-linux-musl
      user=qemu-aarch64-static system="qemu-system-aarch64 -cpu cortex-a53" ;;
    armv7) debian=armhf package=linux-image-armmp target=armv7-unknown-linux-musleabihf
      user=qemu-arm-static system="qemu-system-arm -cpu cortex-a15" ;;
    *) echo "error: no architecture $1; there are aarch64 and armv7" >&2; exit 1 ;;
  esac
  home=$PWD/target/arm/$1
}

# need TOOL PACKAGE
need() {
  command -v "$1" >/dev/null && return
  echo "error: the ARM machine needs $1; install it: apt-get install $2" >&2
  exit 3
}

# Downloads kernel, modules and busybox to `home`, once.
fetch() {
  [ ! -e "$home/fetched" ] || return 0
  need apt-get apt
  need xz xz-utils
  rm -rf "$home"
  mkdir -p "$home/download/lists/partial" "$home/download/cache"
  local apt=(-qq -o APT::Sandbox::User=root) kernel
  if ! apt-cache show "$package:$debian" >/dev/null 2>&1; then
    # the host's apt stays as it is: an index of our own knows the foreign architecture
    apt+=(-o "APT::Architectures::=$debian" -o "Dir::State::lists=$home/download/lists" -o "Dir::Cache=$home/download/cache")
    apt-get "${apt[@]}" update >&2 || true # another repository of this machine may be out of order
  fi
  kernel=$(apt-cache "${apt[@]}" depends "$package:$debian" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^: ]*\).*/\1/p' | head -n1)
  if [ -z "$kernel" ]; then
    echo "error: apt has no $package:$debian; the machine's kernel comes from the archive of a running Debian" >&2
    exit 3
  fi
  echo "downloading $kernel and busybox-static for $debian" >&2
  (cd "$home/download" && apt-get "${apt[@]}" download "$kernel:$debian" "busybox-static:$debian" >&2)
  dpkg-deb --fsys-tarfile "$home"/download/busybox-static_*.deb | tar -x -C "$home" ./bin/busybox
  # the modules of NAT, of its links, and what they stand on
  local modules=(net/netfilter net/ipv4/netfilter net/ipv6/netfilter net/core drivers/virtio
    drivers/net/{veth,virtio_net,net_failover}.ko 'crypto/crc32c*' 'lib/*crc32c*')
  dpkg-deb --fsys-tarfile "$home"/download/linux-image-*.deb | tar -x -C "$home" --wildcards './boot/vmlinuz-*' \
    './lib/modules/*/modules.*' "${modules[@]/#/./lib/modules/*/kernel/}*"
  find "$home/lib/modules" -name '*.xz' -exec xz -d {} +
  rm -r "$home/download"
  "$user" "$home/bin/busybox" depmod -b "$home" "$(ls "$home/lib/modules")"
  touch "$home/fetched"
}

# Makes `home`/initramfs of what was fetched, natlet and its examples.
image() {
  NATLET_NO_INSTALL=1 tests/cross.sh "$target" >&2
  need "${system%% *}" qemu-system-arm
  need "$user" qemu-user-static
  fetch
  local root=$home/root
  rm -rf "$root"
  mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp}
  cp "$home/bin/busybox" "target/cross/$target/small/natlet" "$root/bin"
  cp tests/arm/init "$root/init"
  cp -r "$home/lib" runtime-linux/examples "$root"
  (cd "$root" && find . | "$user" ./bin/busybox cpio -o -H newc 2>/dev/null) >"$home/initramfs"
}

# Starts the machine, its console on standard input and output: machine PARAMETERS-OF-THE-KERNEL OPTIONS-OF-QEMU...
machine() {
  # shellcheck disable=SC2086 # a command and its option
  exec timeout -k 5 "$seconds" $system -M virt -m 512 -display none -monitor none -serial stdio -no-reboot \
    -kernel "$home"/boot/vmlinuz-* -initrd "$home/initramfs" -append "console=ttyAMA0 loglevel=1 panic=-1 $1" "${@:2}"
}

case ${1:-} in
  --image)
    describe "${2:-}"
    image
    exit
    ;;
  --gateway)
    describe "${2:-}"
    card() { echo -netdev "tap,id=$1,ifname=$1,script=no,downscript=no" -device "virtio-net-device,netdev=$1,mac=$2"; }
    # shellcheck disable=SC2046 # options
    machine gateway $(card "$3" 52:54:00:00:00:01) $(card "$4" 52:54:00:00:00:02)
    ;;
esac
[ $# -gt 0 ] || set -- aarch64 armv7
failed=0
for architecture; do
  describe "$architecture"
  image
  # its clock counts instructions: how busy this machine is does not make its connections time out
  (machine "" -nic none -icount shift=1,sleep=off) </dev/null | tr -d '\r' | tee "$home/log" || true # without a verdict it has failed
  if grep -q '^verdict: passed' "$home/log"; then
    echo "$architecture: passed"
  else
    echo "$architecture: FAILED, or not done in $seconds s; the machine's words are in $home/log"
    failed=1
  fi
done
exit $failed
