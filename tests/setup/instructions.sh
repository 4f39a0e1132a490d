#!/usr/bin/env bash
# `make instructions`: counts the instructions of the agent in user mode, with callgrind, and prints them for each snapshot.
#
# The counts depend on the processes and containers of this host, and not on how fast it is, so two commits can be compared on the same
# host. The work of the kernel does not count.
#
#   INSTRUCTIONS_AGENT      the program; by default, a build with the profile `quick`
#   INSTRUCTIONS_SNAPSHOTS  number of snapshots that are counted: 24
#   INSTRUCTIONS_WARM_UP    number of snapshots before them: 26, because the agent reads more in its first two minutes
#   INSTRUCTIONS_PORT       a free port: 19777
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly snapshots=${INSTRUCTIONS_SNAPSHOTS:-24}
readonly warm_up=${INSTRUCTIONS_WARM_UP:-26}
readonly port=${INSTRUCTIONS_PORT:-19777}

"$here/packages.sh" valgrind:valgrind
program=${INSTRUCTIONS_AGENT:-}
if [[ -z $program ]]; then
    cargo build --locked --profile quick
    program=${CARGO_TARGET_DIR:-target}/quick/system-agent
fi

folder=$(mktemp -d)
agent=
end() {
    [[ -z $agent ]] || kill -KILL "$agent" 2>/dev/null || true
    rm -rf "$folder"
}
trap end EXIT
fail() {
    echo "error: $1" >&2
    cat "$folder/log" >&2
    exit 1
}
# As in the unit of systemd: one arena.
API_KEY=benchmark-key-of-no-worth SOCKET_ADDRESS=127.0.0.1 SOCKET_PORT=$port MALLOC_ARENA_MAX=1 \
    valgrind --tool=callgrind --callgrind-out-file="$folder/counts" "$program" >"$folder/log" 2>&1 &
agent=$!

for _ in {1..300}; do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    kill -0 "$agent" || fail 'the agent has ended'
    sleep 0.2
done
exec 3<>"/dev/tcp/127.0.0.1/$port"
echo benchmark-key-of-no-worth >&3

# Reads this many snapshots.
read_snapshots() {
    local count
    for ((count = 0; count < $1; count++)); do
        read -r -t 120 <&3 || fail 'no snapshot from the agent'
    done
}

read_snapshots "$warm_up"
callgrind_control --zero "$agent" >>"$folder/log" 2>&1 || fail 'callgrind cannot be reached'
read_snapshots "$snapshots"
callgrind_control --dump "$agent" >>"$folder/log" 2>&1 || fail 'callgrind cannot be reached'
counted=$(awk '/^(totals|summary): / { sum = $2 } END { print sum }' "$folder"/counts.1)
[[ $counted ]] || fail 'callgrind has counted nothing'
processes=(/proc/[0-9]*)
awk -v sum="$counted" -v snapshots="$snapshots" -v processes="${#processes[@]}" \
    'BEGIN { printf "%.2f million instructions a snapshot, %d processes\n", sum / snapshots / 1e6, processes }'
