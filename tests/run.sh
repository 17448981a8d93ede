#!/usr/bin/env bash
# Passes all tests: installs the tools that they use where it may, else says what to install.
# No network traffic leaves this machine: everything that is sent stays in network namespaces that the tests make.
set -euo pipefail
cd "$(dirname "$0")/.."

# command, Debian package
tools=(
  "nft nftables"
  "iptables-restore iptables"
  "conntrack conntrack"
  "ip iproute2"
  "setpriv util-linux"
  "dot graphviz"
  "qemu-aarch64-static qemu-user-static"
  "qemu-arm-static qemu-user-static"
)
export PATH="$PATH:/usr/sbin:/sbin"
missing=()
for tool in "${tools[@]}"; do
  read -r name package <<<"$tool"
  command -v "$name" >/dev/null || missing+=("$package")
done
command -v cc >/dev/null || missing+=("gcc" "libc6-dev")
if [ ${#missing[@]} -gt 0 ]; then
  sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo -n)
  echo "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq || true # another repository of this machine may be out of order
  if ! { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; }; then
    echo "error: the tests need ${missing[*]}; install them: apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi

# The compilers for small machines; the test of what they make says what is wrong where this failed.
tests/cross.sh --tools || true

# A test that lacks its tool fails instead of being skipped.
export NATLET_NO_SKIP=1

step() { printf '\n== %s\n' "$*"; "$@"; }
if cargo fmt --version >/dev/null 2>&1; then step cargo fmt --all --check; else echo "no rustfmt here: formatting is not checked"; fi
if cargo clippy --version >/dev/null 2>&1; then
  step cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
else
  echo "no clippy here: lints are not checked"
fi
step cargo test --workspace --locked --quiet
