# Functions for the tests of a release. test-packages.sh and test-install.sh read this file.
#
# shellcheck shell=bash
# shellcheck disable=SC2034  # the tests read these variables

# The directory of trees, logs and keys.
TEST=$PWD/target/release-test/$(basename "$0" .sh)
readonly TEST
readonly BASE=$PWD/target/release-test/base
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
server=
agent=

fail() {
    echo "error: $1" >&2
    exit 1
}

# Ends what a test started, also after a failure: the processes in the trees, and the mounts.
stop_all() {
    local process root
    for process in /proc/[0-9]*; do
        root=$(readlink "$process/root" 2>/dev/null) || continue
        [[ $root == "$TEST"/* ]] && kill "${process#/proc/}" 2>/dev/null
    done
    [[ $server ]] && kill "$server" 2>/dev/null
    local mount
    for mount in "$TEST"/*/proc; do
        # A process that was just killed can still use it.
        mountpoint -q "$mount" && umount --lazy "$mount"
    done
    true
}

# Makes the Debian tree that the tests copy, unless an earlier run made it.
make_base() {
    [[ -e $BASE/complete ]] && return
    echo 'making a clean Debian with debootstrap'
    rm -rf "$BASE"
    mkdir -p "$BASE"
    debootstrap --variant=minbase --include=init-system-helpers,ca-certificates,curl,openssl,minisign,busybox-static,systemd,openrc \
        stable "$BASE" >"$TEST/debootstrap.log" || fail "debootstrap failed; $TEST/debootstrap.log says why"
    touch "$BASE/complete"
}

# Sets $tree to a new copy of the Debian tree, with the name $1.
new_tree() {
    drop_tree "$1"
    tree=$TEST/$1
    cp -a --reflink=auto "$BASE" "$tree"
    rm -f "$tree/complete"
    mount -t proc proc "$tree/proc"
}

drop_tree() {
    if mountpoint -q "$TEST/$1/proc"; then
        umount "$TEST/$1/proc"
    fi
    rm -rf "${TEST:?}/$1"
}

in_tree() {
    chroot "$tree" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"
}

# Serves the directory $1 on a free port of this machine, and sets $base to its URL.
serve() {
    local port
    [[ ! $server ]] || kill "$server"
    : >"$TEST/server.log"
    python3 -u -m http.server --bind 127.0.0.1 --directory "$1" 0 >"$TEST/server.log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        port=$(sed -n 's/^Serving HTTP on 127.0.0.1 port \([0-9]*\) .*/\1/p' "$TEST/server.log")
        [[ $port ]] && break
        sleep 0.1
    done
    [[ $port ]] || fail "the web server does not start: $(cat "$TEST/server.log")"
    base=http://127.0.0.1:$port
}

# Starts the program $1 in the tree as its service does, and reads one snapshot. The port is $2.
run_agent() {
    local program=$1 port=$2 ids
    key=$(sed -n 's/^API_KEY=//p' "$tree/etc/system-agent/agent.env")
    ids=$(sed -n 's/^system-agent:[^:]*:\([0-9]*\):\([0-9]*\):.*/\1:\2/p' "$tree/etc/passwd")
    [[ $ids ]] || fail 'there is no user system-agent'
    chroot --userspec="$ids" "$tree" /usr/bin/env -i "API_KEY=$key" SOCKET_ADDRESS=127.0.0.1 "SOCKET_PORT=$port" DOCKER_ENABLED=false \
        "$program" run 2>"$TEST/agent.log" &
    agent=$!
    read_snapshot "$port"
    stop_agent
}

# Reads one snapshot from the agent on the port $1, with the key $key.
read_snapshot() {
    local line
    for _ in $(seq 200); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && break
        sleep 0.1
    done
    line=$(timeout 20 bash -c "exec 3<>/dev/tcp/127.0.0.1/$1; echo $key >&3; head -n 1 <&3" || true)
    [[ $line == '{"timestamp":'* ]] || fail "no snapshot from the installed agent; it sent: ${line:0:200}; $(head -c 2000 "$TEST/agent.log")"
}

stop_agent() {
    kill "$agent"
    wait "$agent" || true
    agent=
}

# Checks the configuration of a first installation, and sets $key to its key.
check_configuration() {
    local env=$tree/etc/system-agent/agent.env
    [[ -e $env ]] || fail 'there is no /etc/system-agent/agent.env'
    [[ $(stat -c '%a %u' "$env") == '600 0' ]] || fail 'other users can read agent.env'
    key=$(sed -n 's/^API_KEY=//p' "$env")
    [[ $key =~ ^[0-9a-f]{64}$ ]] || fail 'agent.env has no random key'
    grep -q '^SOCKET_ADDRESS=127.0.0.1$' "$env" || fail 'other hosts can connect, although the operator has not allowed it'
}

# Changes the configuration as an operator does.
change_configuration() {
    sed -i 's/^SOCKET_ADDRESS=.*/#SOCKET_ADDRESS=/' "$tree/etc/system-agent/agent.env"
    echo 'TOP_PROCESSES=3' >>"$tree/etc/system-agent/agent.env"
}

# Checks that the configuration still has the operator's changes and the key.
check_kept() {
    local env=$tree/etc/system-agent/agent.env
    [[ $(sed -n 's/^API_KEY=//p' "$env") == "$key" ]] || fail 'the key was changed'
    grep -q '^TOP_PROCESSES=3$' "$env" || fail 'the configuration was changed'
    grep -q '^#SOCKET_ADDRESS=$' "$env" || fail 'the address was changed'
}
