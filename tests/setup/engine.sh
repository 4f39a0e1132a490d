#!/usr/bin/env bash
# Runs a command with a Docker engine at the local socket.
#
#   engine.sh COMMAND [ARGUMENT...]
#
# If no engine answers, starts dockerd, and stops this dockerd at the end.
set -euo pipefail

readonly START_SECONDS=60
readonly STOP_SECONDS=30
socket=/var/run/docker.sock
pid_file=/var/run/docker.pid
log=
daemon=

# Use this machine's own engine, even if the caller's environment names another engine.
unset DOCKER_HOST DOCKER_CONTEXT

answers() {
    timeout 10 docker --host "unix://$socket" version >/dev/null 2>&1
}

# Waits until the engine answers. Fails at the deadline, or as soon as the process $1 has ended.
wait_for_answer() {
    local deadline=$((SECONDS + START_SECONDS))
    until answers; do
        if ((SECONDS >= deadline)) || ! kill -0 "$1" 2>/dev/null; then
            return 1
        fi
        sleep 0.2
    done
}

stop_own() {
    [[ $daemon ]] || return 0
    local deadline=$((SECONDS + STOP_SECONDS))
    kill "$daemon" 2>/dev/null || true
    while kill -0 "$daemon" 2>/dev/null; do
        if ((SECONDS >= deadline)); then
            echo "warning: dockerd ($daemon) did not end within $STOP_SECONDS s of SIGTERM and is killed" >&2
            kill -KILL "$daemon" 2>/dev/null || true
            break
        fi
        sleep 0.2
    done
    wait "$daemon" 2>/dev/null || true
    rm -f "$log"
}

ensure() {
    answers && return 0

    if ((EUID != 0)); then
        if [[ -S $socket && ! -w $socket ]]; then
            echo "error: $(id -un) may not use the Docker socket $socket: add the user to its group, $(stat -c %G "$socket"), or run as root" >&2
        else
            echo "error: no Docker engine answers at $socket, and only root can start one" >&2
        fi
        return 1
    fi

    # If a dockerd is already starting, for example after its installation, wait for it and do not start another dockerd.
    local running=
    [[ -r $pid_file ]] && running=$(<"$pid_file")
    if [[ $running ]] && kill -0 "$running" 2>/dev/null; then
        wait_for_answer "$running" && return 0
        echo "error: dockerd ($running) runs but does not answer at $socket" >&2
        return 1
    fi

    # In a minimal virtual machine no init system has mounted the control groups.
    if ! mountpoint -q /sys/fs/cgroup; then
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
    fi

    log=$(mktemp)
    # With setsid, Ctrl-C does not end dockerd, because the tests need dockerd to remove their containers.
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin setsid dockerd >"$log" 2>&1 </dev/null &
    daemon=$!
    trap stop_own EXIT
    if ! wait_for_answer "$daemon"; then
        tail -n 20 "$log" >&2
        echo "error: dockerd did not answer at $socket within $START_SECONDS s; the last lines of its log are above" >&2
        return 1
    fi
    echo "started dockerd ($daemon); this script stops it at the end"
}

ensure
"$@"
