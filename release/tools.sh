# shellcheck shell=bash
# Installs the tools of a release below target/release-tools, or in the directory RELEASE_TOOLS. A script of release/ reads this file in
# the top directory.

release_tools=${RELEASE_TOOLS:-$PWD/target/release-tools}
readonly CARGO_AUDITABLE=0.7.7
readonly CARGO_CYCLONEDX=0.5.9
PATH=$release_tools/bin:$release_tools/python/bin:$PATH

# Installs the standard libraries of targets. One at a time, because rustup has failed with several.
install_targets() {
    local target installed
    installed=$(rustup target list --installed)
    for target in "$@"; do
        grep -qxF "$target" <<<"$installed" && continue
        echo "installing the standard library of $target"
        if ! rustup target add "$target" >/dev/null; then
            echo "error: rustup has no standard library of $target; its output is above" >&2
            return 1
        fi
    done
}

# Installs cargo-zigbuild and zig, whose compiler and C library build the binaries.
install_zigbuild() {
    local list=release/tools.txt
    cmp -s "$list" "$release_tools/python/tools.txt" && return
    if ! python3 -c 'import ensurepip' 2>/dev/null && ((EUID == 0)) && command -v apt-get >/dev/null; then
        apt-get install -y --no-install-recommends python3-venv >/dev/null
    fi
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        echo 'error: python3 has no module venv (Debian: apt-get install python3-venv)' >&2
        return 1
    fi
    echo 'installing cargo-zigbuild and zig'
    rm -rf "$release_tools/python"
    python3 -m venv "$release_tools/python"
    "$release_tools/python/bin/pip" install --quiet --require-hashes --no-deps --only-binary :all: -r "$list"
    cp "$list" "$release_tools/python/"
}

# install_crate NAME VERSION: installs a program from crates.io.
install_crate() {
    # The list that cargo keeps of the programs in this directory.
    grep -qsF "\"$1 $2 (" "$release_tools/.crates.toml" && return
    echo "installing $1 $2"
    CARGO_TARGET_DIR=$release_tools/build cargo install --quiet --locked --root "$release_tools" --version "$2" "$1"
}

# Installs the program that stores the list of dependencies in the binary.
install_auditable() {
    install_crate cargo-auditable "$CARGO_AUDITABLE"
}

# Installs the program that writes the list of dependencies into a file.
install_cyclonedx() {
    install_crate cargo-cyclonedx "$CARGO_CYCLONEDX"
}

# target_of MACHINE: prints the target of Rust whose binary is target/release-files/bin/MACHINE/system-agent.
target_of() {
    case $1 in
    x86_64 | aarch64) echo "$1-unknown-linux-musl" ;;
    # rustup has no standard library with musl for these.
    armv7) echo armv7-unknown-linux-gnueabihf ;;
    riscv64) echo riscv64gc-unknown-linux-gnu ;;
    *)
        echo "error: no target of Rust is known for $1" >&2
        return 1
        ;;
    esac
}
