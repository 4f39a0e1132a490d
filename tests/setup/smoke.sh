#!/usr/bin/env bash
# Tests `make run`: it prints a key and a client command, this command receives a snapshot, and Ctrl-C and SIGTERM end the agent.
#
# The test builds the examples too. With the examples, the dependencies have the same features as for the tests, so cargo does not
# build the dependencies again.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/../.."
readonly START_SECONDS=600 # includes the build
readonly STOP_SECONDS=15

log=$(mktemp)
group=
cleanup() {
    [[ $group ]] && kill -KILL -- "-$group" 2>/dev/null
    rm -f "$log"
}
trap cleanup EXIT

fail() {
    echo "--- output of make run:" >&2
    cat "$log" >&2
    echo "error: smoke test: $1" >&2
    exit 1
}

# Prints a port that no program listens on.
free_port() {
    local port
    while read -r port; do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done < <(shuf -i 20000-32000 -n 100)
    return 1
}

# Prints the client command: the line after `read the stream from another terminal`.
client_command() {
    sed -n '/^read the stream from another terminal/{n;s/^ *//p;q}' "$log"
}

# smoke SIGNAL TARGET: with the target `group`, the whole process group gets the signal, as from Ctrl-C. With the target `make`,
# only the process make gets the signal, as from a supervisor.
smoke() {
    local signal=$1 target=$2 port client line deadline
    port=$(free_port)

    # Job control gives the job a process group and default signals, as a terminal does.
    set -m
    env -u API_KEY -u API_KEY_FILE -u SOCKET_ADDRESS -u TLS_ENABLED \
        BUILD_TARGETS='--bins --examples' make --no-print-directory run PROFILE=dev SOCKET_PORT="$port" >"$log" 2>&1 &
    group=$!
    set +m

    deadline=$((SECONDS + START_SECONDS))
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$group" 2>/dev/null || fail 'make run ended by itself'
        ((SECONDS < deadline)) || fail "nothing listens on port $port after $START_SECONDS s"
        sleep 0.2
    done
    grep -q '^API key of this run: [0-9a-f]\{32\}$' "$log" || fail 'no API key was printed'
    client=$(client_command)
    [[ $client ]] || fail 'no client command was printed'

    # head ends after one line. The client then ends by SIGPIPE. This is not an error.
    line=$(timeout 30 bash -c "$client" 2>/dev/null | head -n 1 || true)
    [[ $line == \{*\"timestamp\"*\} ]] || fail "the client command received no snapshot; it received: ${line:0:200}"

    if [[ $target == group ]]; then
        kill "-$signal" -- "-$group"
    else
        kill "-$signal" "$group"
    fi
    deadline=$((SECONDS + STOP_SECONDS))
    while kill -0 -- "-$group" 2>/dev/null; do
        ((SECONDS < deadline)) || fail "still running $STOP_SECONDS s after SIG$signal"
        sleep 0.1
    done
    wait "$group" 2>/dev/null || true
    group=
    ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "port $port is still open after SIG$signal"
    echo "make run: the printed command received a snapshot, and SIG$signal ended the agent"
}

smoke INT group
smoke TERM make
