#!/usr/bin/env bash
# Everything behind `make test-confined`: every test, with each agent under the unit's SystemCallFilter, where every
# other system call kills it (under systemd it would get EPERM).
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly unit=config/system-agent.service

# The names in a set of systemd's, or the name itself.
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

# What the unit allows: its lists one after the other, of which one with a tilde takes away.
allowed() {
    local list names=() name
    : >"$1"
    while read -r list; do
        mapfile -t names < <(for name in ${list#\~}; do expand "$name"; done)
        if [[ $list == \~* ]]; then
            # What every program needs is never taken away, as systemd does it.
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
echo "each agent may make $(wc -l <target/allowed-calls) system calls and no others"
export TEST_LAUNCHER="$here/confine.py $PWD/target/allowed-calls"
exec "$here/test.sh"
