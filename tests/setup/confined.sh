#!/usr/bin/env bash
# `make test-confined`: runs every test with the SystemCallFilter of the systemd unit. Any other system call kills the agent here.
# Under systemd such a call would fail with EPERM.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly unit=config/system-agent.service

# Prints the names of the system calls in a set of systemd (@name). If $1 is not a set, prints $1.
expand() {
    if [[ $1 != @* ]]; then
        echo "$1"
        return
    fi
    local member
    systemd-analyze syscall-filter "$1" | sed -n 's/^    \([@a-z0-9_-]*\)$/\1/p' | while read -r member; do
        expand "$member"
    done
}

# Writes the system calls that the unit allows to the file $1. Applies the lists of the unit in order. A list that begins with a
# tilde removes system calls.
allowed() {
    local list names=() name
    : >"$1"
    while read -r list; do
        mapfile -t names < <(for name in ${list#\~}; do expand "$name"; done)
        if [[ $list == \~* ]]; then
            # Like systemd, never remove the system calls in @default, because every program needs them.
            printf '%s\n' "${names[@]}" | sort -u | comm -23 "$1" - >"$1.less"
            { cat "$1.less"; expand @default; } | sort -u >"$1"
            rm "$1.less"
        else
            { cat "$1"; printf '%s\n' "${names[@]}"; expand @default; } | sort -u >"$1.more"
            mv "$1.more" "$1"
        fi
    done < <(sed -n 's/^SystemCallFilter=//p' "$unit")
}

"$here/packages.sh" systemd-analyze:systemd python3:python3
/usr/bin/python3 -c 'import seccomp' 2>/dev/null || apt-get install -y --no-install-recommends python3-seccomp >/dev/null
mkdir -p target
export LC_ALL=C
allowed target/allowed-calls
echo "each agent is allowed $(wc -l <target/allowed-calls) different system calls"
export TEST_LAUNCHER="$here/confine.py $PWD/target/allowed-calls"
exec "$here/test.sh"
