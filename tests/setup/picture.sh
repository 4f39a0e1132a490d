#!/usr/bin/env bash
# `make picture`: makes the pictures of the documentation from a real run: docs/watch.svg of `system-agent watch`, and docs/page-light.png
# and docs/page-dark.png of `system-agent web`. Starts containers for the pictures, and removes them afterwards.
#
#   picture.sh [PROFILE]
#
# PROFILE is the profile of cargo for the build of the agent, by default release. PICTURE_SECONDS is the time that the containers
# run before the pictures of the page, by default 400. The charts show its last five minutes.
# shellcheck disable=SC2016 # The scripts in single quotes are for the shells of the containers.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly label=system-agent-picture server=system-agent-picture-$$
readonly agent_port=19000 page_port=19180

if [[ ${1:-} != with-engine ]]; then
    profile=${1:-release}
    "$here/packages.sh" tmux:tmux dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static \
        node:nodejs npm:npm chromium:chromium
    cargo build --locked --profile "$profile"
    cargo build --locked --example picture
    npm ci --prefix src/web/page --no-audit --no-fund --loglevel=error
    exec "$here/engine.sh" "$here/picture.sh" with-engine "${profile/#dev/debug}"
fi

target=${CARGO_TARGET_DIR:-target}
agent=$target/$2/system-agent
started=()
cleanup() {
    tmux -L "$server" kill-server 2>/dev/null || true
    [[ ! ${started[*]} ]] || kill "${started[@]}" 2>/dev/null || true
    docker ps --all --quiet --filter "label=$label" | xargs --no-run-if-empty docker rm --force >/dev/null
    docker images --quiet --filter 'reference=shop/*' --format '{{.Repository}}:{{.Tag}}' | xargs --no-run-if-empty docker rmi >/dev/null
    docker network rm "$label" >/dev/null 2>&1 || true
}
trap cleanup EXIT

"$here/image.sh"
docker network create --label "$label" "$label" >/dev/null

# start NAME VERSION SCRIPT OPTION...: starts a container of the project shop. The script can use the functions `work`, which uses the
# CPU for a while, and `hold`, which keeps some MiB of memory.
start() {
    local name=$1 version=$2 script=$3
    shift 3
    docker tag system-agent-test "shop/$name:$version"
    docker run --detach --label "$label" --name "shop-$name" --network "$label" --network-alias "$name" \
        --label com.docker.compose.project=shop --label "com.docker.compose.service=$name" "$@" \
        "shop/$name:$version" sh -c "
            work() { i=0; while [ \$i -lt \$((\$1 + RANDOM % \$1)) ]; do i=\$((i+1)); done; }
            hold() { held=\$(head -c \$((\$1 * 1048576)) /dev/zero | tr '\\0' x); }
            $script" >/dev/null
}
# `wave` is a load that rises and falls every four minutes.
readonly wave='wave=$(($(date +%s) % 240)); [ $wave -lt 120 ] || wave=$((240 - wave));'
start db 17.2 'hold 90; while :; do work 4000; dd if=/dev/zero of=/tmp/table bs=64k count=$((RANDOM % 12 + 1)) conv=fsync 2>/dev/null
    echo "INFO checkpoint complete: wrote $((RANDOM % 90 + 10)) buffers"; sleep 1; done' --memory 256m --health-cmd true --health-interval 5s
start cache 8.0 'hold 50; while :; do wget -q -O /dev/null http://api/items; work 1500; sleep 0.5; done' --memory 192m
start api 3.1.4 "head -c 400000 /dev/urandom >/tmp/items; httpd -p 80 -h /tmp; hold 30
    while :; do $wave work \$((wave * 250 + 2000)); echo \"{\\\"level\\\":\\\"info\\\",\\\"msg\\\":\\\"GET /api/items\\\",\\\"ms\\\":\$((RANDOM % 40 + 3))}\"; sleep 0.3; done" \
    --memory 128m --cpus 0.5 --health-cmd true --health-interval 5s
start web 2.8.0 "hold 12; while :; do $wave wget -q -O /dev/null http://api/items; work 3000
    echo \"10.0.0.\$((RANDOM % 250)) GET /api/items?page=\$((RANDOM % 97)) 200\"; sleep 0.\$((9 - wave / 15)); done" \
    --memory 64m --publish 127.0.0.1:18080:80
start search 1.12 'hold 55; while :; do work 9000; sleep 1; done' --memory 128m
start queue 4.0 'hold 8; while :; do wget -q -O /dev/null http://api/items; work 800; sleep 2; done' --memory 64m
start worker 3.1.4 'hold 18; while :; do work 12000; echo "job $((RANDOM % 9000 + 1000)) done"; sleep 1; done' --memory 128m \
    --health-cmd 'wget -q -O /dev/null http://127.0.0.1:8080/health' --health-interval 20s --health-retries 2
start mailer 1.4 'hold 5; while :; do work 500; sleep 3; done' --memory 32m
start metrics 0.27 'hold 20; while :; do work 2500; sleep 1; done' --memory 64m
start import 3.1.4 'sleep 200; echo "INFO 8212 of 20000 rows imported"; tail /dev/zero; exit 137' --memory 32m
start backup 1.0 'sleep 60; echo "backup complete: 1.4 GiB in 58 s"'

# The agent sees a host with a name for the picture. Other containers of this machine are left out.
export CONTAINERS_INCLUDE='shop-*' SYSTEM_INTERVAL=2s DOCKER_INTERVAL=2s
API_KEY=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export API_KEY
SOCKET_ADDRESS=127.0.0.1 SOCKET_PORT=$agent_port PUBLISH_INTERVAL=2s \
    unshare --uts sh -c 'echo web-1 >/proc/sys/kernel/hostname; exec "$0"' "$agent" 2>/dev/null &
started+=($!)
WEB_ADDRESS=127.0.0.1:$page_port WEB_HISTORY_FOLDER=off "$agent" web "127.0.0.1:$agent_port" 2>/dev/null &
started+=($!)
tmux -L "$server" -f /dev/null new-session -d -x 110 -y 40 "env -u API_KEY SYSTEM_INTERVAL=500ms DOCKER_INTERVAL=500ms NO_COLOR= \
    $agent watch"
# Wait until the graphs of the view fill the screen.
sleep 60
LC_ALL=C.UTF-8 tmux -L "$server" capture-pane -p -e | "$target/debug/examples/picture" >docs/watch.svg
tmux -L "$server" kill-server
# Wait until the charts of the page have figures.
sleep $((${PICTURE_SECONDS:-400} - 60))
node src/web/page/test/picture.mjs "http://127.0.0.1:$page_port/?range=5m" docs/page
stat -c '%n: %s bytes' docs/watch.svg docs/page-light.png docs/page-dark.png
