#!/usr/bin/env bash
# Installs the Debian packages of commands that are missing.
#
#   packages.sh COMMAND:PACKAGE[|PACKAGE]...
#
# If a command has several packages, the first one that this Debian offers is installed. Without root or apt-get the script names
# the missing commands and fails.
set -euo pipefail

# Daemons are in sbin directories, which are not in every user's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# Sets the arrays commands and packages to the missing commands and their packages.
find_missing() {
    local pair
    commands=() packages=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null && continue
        commands+=("${pair%%:*}")
        packages+=("${pair#*:}")
    done
}

find_missing "$@"
((${#commands[@]})) || exit 0

why=
if ! command -v apt-get >/dev/null; then
    why='there is no apt-get to install them'
elif ((EUID != 0)); then
    why='only root can install them'
fi
if [[ $why ]]; then
    echo "error: missing commands: ${commands[*]}; $why" >&2
    echo "       Debian packages of these commands: ${packages[*]//|/ or }" >&2
    exit 1
fi

echo "installing the Debian packages of: ${commands[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    local package name names=()
    apt-get update || return
    for package in "${packages[@]}"; do
        for name in ${package//|/ }; do
            [[ $(apt-cache policy "$name") == *Candidate:\ [0-9]* ]] && break
        done
        names+=("$name")
    done
    apt-get install -y --no-install-recommends "${names[@]}" || return
}
if ! install >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "error: apt-get could not install ${packages[*]}; its output is above" >&2
    exit 1
fi
find_missing "$@"
if ((${#commands[@]})); then
    echo "error: still missing after installing ${packages[*]}: ${commands[*]}" >&2
    exit 1
fi
