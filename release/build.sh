#!/usr/bin/env bash
# Builds the binaries of a release. With musl they are static: target/release-files/bin/MACHINE/system-agent. With glibc they can load
# libraries at run time, for NVIDIA GPUs and the systemd journal: target/release-files/glibc/MACHINE/system-agent.
#
#   build.sh [TARGET...]
#
# TARGET is a target of Rust, by default those with musl and with glibc for x86_64 and aarch64. The same commit gives the same bytes, in
# every directory and with every target directory.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
readonly files=target/release-files
# The oldest glibc that a binary for a target with glibc runs with.
readonly GLIBC=2.28
targets=("$@")
((${#targets[@]})) || targets=({x86_64,aarch64}-unknown-linux-{musl,gnu})
# shellcheck source=release/tools.sh
. release/tools.sh
install_targets "${targets[@]}"
install_zigbuild
install_auditable

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
build_directory=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo_home=$(realpath "${CARGO_HOME:-$HOME/.cargo}")
sysroot=$(rustc --print sysroot)
export SOURCE_DATE_EPOCH

# The directories of this machine, and their names in the binary. The last match counts, so longer paths come last: the source contains
# the build directory, and the user's home contains all of them, as a rule.
remapped=(
    "$(realpath ~)=/home"
    "$cargo_home=/cargo"
    "$sysroot=/rust"
    "$PWD=/source"
    "$build_directory=/build"
)
rust_flags=() c_flags=
for pair in "${remapped[@]}"; do
    rust_flags+=("--remap-path-prefix=$pair")
    # zig's compiler takes the last match, too.
    c_flags+=" -ffile-prefix-map=$pair"
done
# The headers of zig.
c_flags+=" -ffile-prefix-map=$release_tools=/tools"
# A space in a path separates nothing in this form.
CARGO_ENCODED_RUSTFLAGS=$(
    IFS=$'\x1f'
    echo "${rust_flags[*]}"
)
export CARGO_ENCODED_RUSTFLAGS
# The compilers of cargo-zigbuild differ for each target, and the crates for C code add CFLAGS to their options.
export CFLAGS=$c_flags
unset RUSTFLAGS

for target in "${targets[@]}"; do
    machine=${target%%-*}
    out=$files/bin/${machine/riscv64gc/riscv64}
    zig_target=$target
    case $target in
    x86_64-*-gnu | aarch64-*-gnu)
        out=$files/glibc/$machine
        zig_target+=.$GLIBC
        ;;
    *-gnu*) zig_target+=.$GLIBC ;;
    esac
    cargo auditable zigbuild --quiet --locked --release --bin system-agent --target "$zig_target"
    install -D -m 0755 "$build_directory/$target/release/system-agent" "$out/system-agent"
    echo "$out/system-agent: $(stat -c %s "$out/system-agent") bytes"
done
