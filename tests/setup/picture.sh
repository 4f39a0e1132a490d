#!/usr/bin/env bash
# `make picture`: draws docs/watch.svg from a real `system-agent watch`. Starts containers for the picture, and removes them
# afterwards.
#
#   picture.sh [PROFILE]
#
# PROFILE is the profile of cargo for the build of the agent, by default release.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly label=system-agent-picture server=system-agent-picture-$$

if [[ ${1:-} != with-engine ]]; then
    profile=${1:-release}
    "$here/packages.sh" tmux:tmux dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static
    cargo build --locked --profile "$profile"
    cargo build --locked --example picture
    exec "$here/engine.sh" "$here/picture.sh" with-engine "${profile/#dev/debug}"
fi

cleanup() {
    tmux -L "$server" kill-server 2>/dev/null || true
    docker ps --all --quiet --filter "label=$label" | xargs --no-run-if-empty docker rm --force >/dev/null
}
trap cleanup EXIT

"$here/image.sh"
# start NAME SECONDS OPTION...: starts a container. In a loop, the container uses the CPU, logs a line, and sleeps for SECONDS.
start() {
    local name=$1 rest=$2
    shift 2
    docker run --detach --label "$label" --name "$name" "$@" system-agent-test sh -c "
        while :; do
            i=0; while [ \$i -lt 40000 ]; do i=\$((i+1)); done
            echo \"GET /api/items/\$((i % 97)) 200\"; sleep $rest
        done" >/dev/null
}
start shop-web 0.3 --memory 256m
start shop-api 0.1 --memory 128m --cpus 0.5
start shop-db 0.6 --memory 512m --health-cmd true --health-interval 2s
start shop-cache 2 --memory 64m
start shop-worker 1 --health-cmd false --health-interval 1s --health-retries 1
start backup 5
tmux -L "$server" -f /dev/null new-session -d -x 110 -y 40 "env SYSTEM_INTERVAL=500ms DOCKER_INTERVAL=500ms NO_COLOR= \
    target/$2/system-agent watch"
# Wait until the graphs of the view fill the screen.
sleep 60
LC_ALL=C.UTF-8 tmux -L "$server" capture-pane -p -e | target/debug/examples/picture >docs/watch.svg
echo "docs/watch.svg: $(stat -c %s docs/watch.svg) bytes"
