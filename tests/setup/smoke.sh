#!/usr/bin/env bash
# The promise of `make run`, kept to the letter: it prints a key and a client command, that very command receives a
# snapshot, and Ctrl-C and SIGTERM end it.
#
# It builds the examples, too: with them packages have the features that they have for tests, and are not built again there.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/../.."
readonly START_SECONDS=600 # builds first
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

# A port that nobody listens on.
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

# The client command: the first line after the announcement.
client_command() {
    sed -n '/^read the stream from another terminal/{n;s/^ *//p;q}' "$log"
}

# smoke SIGNAL WHOM: WHOM is the process group, as Ctrl-C does it, or make alone, as a supervisor does it.
smoke() {
    local signal=$1 whom=$2 port client line deadline
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

    # head ends the client after one line; its end by SIGPIPE is no fault.
    line=$(timeout 30 bash -c "$client" 2>/dev/null | head -n 1 || true)
    [[ $line == \{*\"timestamp\"*\} ]] || fail "the client command received no snapshot, but: ${line:0:200}"

    if [[ $whom == group ]]; then
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
    echo "make run: streams to the command that it prints, ends at SIG$signal"
}

smoke INT group
smoke TERM make
