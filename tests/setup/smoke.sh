#!/usr/bin/env bash
# Tests `make run` and `make web`. `make run` prints a key and a client command, this command receives a snapshot, and Ctrl-C and SIGTERM
# end the agent. `make web` shows this host, and Ctrl-C ends the server.
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
    echo "--- output of make:" >&2
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

# launch PORT ARGUMENT...: starts make with these arguments, and waits until it listens on the port.
launch() {
    local port=$1 deadline=$((SECONDS + START_SECONDS))
    shift

    # Job control gives the job a process group and default signals, as a terminal does.
    set -m
    env -u API_KEY -u API_KEY_FILE -u SOCKET_ADDRESS -u TLS_ENABLED \
        BUILD_TARGETS='--bins --examples' make --no-print-directory PROFILE=dev "$@" >"$log" 2>&1 &
    group=$!
    set +m

    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$group" 2>/dev/null || fail "make $1 ended by itself"
        ((SECONDS < deadline)) || fail "nothing listens on port $port after $START_SECONDS s"
        sleep 0.2
    done
}

# end PORT SIGNAL TARGET: ends make and its programs, and waits until nothing listens on the port.
end() {
    local port=$1 signal=$2 target=$3 deadline=$((SECONDS + STOP_SECONDS))
    if [[ $target == group ]]; then
        kill "-$signal" -- "-$group"
    else
        kill "-$signal" "$group"
    fi
    while kill -0 -- "-$group" 2>/dev/null; do
        ((SECONDS < deadline)) || fail "still running $STOP_SECONDS s after SIG$signal"
        sleep 0.1
    done
    wait "$group" 2>/dev/null || true
    group=
    ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "port $port is still open after SIG$signal"
}

# smoke SIGNAL TARGET: with the target `group`, the whole process group gets the signal, as from Ctrl-C. With the target `make`,
# only the process make gets the signal, as from a supervisor.
smoke() {
    local signal=$1 target=$2 port client line
    port=$(free_port)
    launch "$port" run SOCKET_PORT="$port"
    grep -q '^API key of this run: [0-9a-f]\{32\}$' "$log" || fail 'no API key was printed'
    client=$(client_command)
    [[ $client ]] || fail 'no client command was printed'

    # head ends after one line. The client then ends by SIGPIPE. This is not an error.
    line=$(timeout 30 bash -c "$client" 2>/dev/null | head -n 1 || true)
    [[ $line == \{*\"timestamp\"*\} ]] || fail "the client command received no snapshot; it received: ${line:0:200}"

    end "$port" "$signal" "$target"
    echo "make run: the printed command received a snapshot, and SIG$signal ended the agent"
}

# The page shows this host within some seconds.
smoke_web() {
    local port hosts='' deadline
    port=$(free_port)
    launch "$port" web WEB_ADDRESS="127.0.0.1:$port" WEB_HISTORY_FOLDER=off
    deadline=$((SECONDS + 30))
    until [[ $hosts == *'"state":"live"'* ]]; do
        ((SECONDS < deadline)) || fail "the page does not show this host; it answers: ${hosts:0:200}"
        sleep 0.2
        # shellcheck disable=SC2016 # The inner shell expands them.
        hosts=$(timeout 5 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0"
            printf "GET /api/v1/hosts HTTP/1.0\r\nHost: 127.0.0.1:%s\r\n\r\n" "$0" >&3; cat <&3' "$port" || true)
    done
    end "$port" INT group
    echo 'make web: the page shows this host, and SIGINT ended the server'
}

smoke INT group
smoke TERM make
smoke_web
