#!/usr/bin/env bash
# `make test-deb`: makes a clean Debian with debootstrap, and installs, runs, upgrades, removes and purges the package in it.
# An upgrade must keep the configuration.
#
#   test-deb.sh [PROFILE]
#
# PROFILE is the profile of cargo for the build of the agent, by default release.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/../.."
profile=${1:-release}
readonly tree=$PWD/target/deb-test/tree
readonly env=/etc/system-agent/agent.env
agent=

fail() {
    echo "error: $1" >&2
    exit 1
}

cleanup() {
    [[ $agent ]] && kill "$agent" 2>/dev/null
    umount "$tree/proc" 2>/dev/null || true
}
trap cleanup EXIT

in_tree() {
    chroot "$tree" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"
}

install_package() {
    cp "$1" "$tree/tmp/agent.deb"
    in_tree dpkg --install /tmp/agent.deb >/dev/null
}

# Starts the agent on the port $1 as the unit does, and reads one snapshot into $line.
run_agent() {
    local port=$1 key
    key=$(sed -n 's/^API_KEY=//p' "$tree$env")
    # This command does not use in_tree, because $! would then be the process of a subshell.
    chroot "$tree" setpriv --reuid system-agent --regid system-agent --init-groups --no-new-privs --bounding-set=-all \
        env -i "API_KEY=$key" SOCKET_ADDRESS=127.0.0.1 SOCKET_PORT="$port" DOCKER_ENABLED=false /usr/bin/system-agent run \
        2>"$tree/tmp/agent.log" &
    agent=$!
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
        sleep 0.1
    done
    line=$(timeout 20 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port; echo $key >&3; head -n 1 <&3")
    kill "$agent"
    wait "$agent" || true
    agent=
    [[ $line == '{"timestamp":'*'"status":"ok"'* ]] || fail "no snapshot from the installed agent; it sent: ${line:0:200}"
}

((EUID == 0)) || fail 'missing: root (the test makes a Debian tree and enters it with chroot)'
"$PWD/tests/setup/packages.sh" debootstrap:debootstrap setpriv:util-linux

rm -f target/debian/system-agent_*.deb
# Copy each package immediately, because cargo-deb deletes it when it builds the next package.
mkdir -p target/deb-test
for revision in 1 2; do
    tests/setup/deb.sh "$profile" "$revision"
    cp target/debian/system-agent_*-"$revision"_*.deb "target/deb-test/$revision.deb"
done

umount "$tree/proc" 2>/dev/null || true
rm -rf "$tree"
mkdir -p "$tree"
debootstrap --variant=minbase --include=init-system-helpers stable "$tree" >target/deb-test/debootstrap.log ||
    fail 'debootstrap failed; target/deb-test/debootstrap.log says why'
mount -t proc proc "$tree/proc"
# Prints the users and the files in /etc. Leaves out the backup files, such as passwd-, that the tools of Debian make.
listing() {
    in_tree sh -c 'getent passwd | cut -d: -f1 | sort; ls /etc | grep -v -e "-$"'
}
before=$(listing)

install_package target/deb-test/1.deb
for file in /usr/bin/system-agent /lib/systemd/system/system-agent.service /usr/share/man/man1/system-agent.1.gz \
    /usr/share/bash-completion/completions/system-agent /usr/share/system-agent/prometheus-rules.yml \
    /usr/share/system-agent/grafana/fleet.json /usr/share/system-agent/grafana/host.json \
    /usr/share/system-agent/grafana/container.json; do
    in_tree test -s "$file" || in_tree test -s "/usr$file" || fail "$file is not installed"
done
[[ $(in_tree stat -c '%a %U' "$env") == '600 root' ]] || fail "other users can read $env"
key=$(sed -n 's/^API_KEY=//p' "$tree$env")
[[ $key =~ ^[0-9a-f]{64}$ ]] || fail "$env has no random key"
grep -q '^SOCKET_ADDRESS=127.0.0.1$' "$tree$env" || fail 'other hosts can connect, although the operator has not allowed it'
[[ $(in_tree id -un system-agent) == system-agent ]] || fail 'there is no user system-agent'
in_tree system-agent --version | grep -q '^system-agent ' || fail 'the binary does not run'
run_agent 29411

# The operator allows other hosts. An upgrade must not change this setting.
sed -i 's/^SOCKET_ADDRESS=.*/#SOCKET_ADDRESS=/' "$tree$env"
echo 'TOP_PROCESSES=3' >>"$tree$env"
install_package target/deb-test/2.deb
[[ $(in_tree dpkg --status system-agent | sed -n 's/^Version: //p') == *-2 ]] || fail 'the package was not upgraded'
[[ $(sed -n 's/^API_KEY=//p' "$tree$env") == "$key" ]] || fail 'the upgrade changed the key'
grep -q '^TOP_PROCESSES=3$' "$tree$env" || fail 'the upgrade changed the configuration'
grep -q '^#SOCKET_ADDRESS=$' "$tree$env" || fail 'the upgrade closed the port'
run_agent 29412

in_tree dpkg --remove system-agent >/dev/null
in_tree test -e "$env" || fail 'the removal of the package removed its configuration'
install_package target/deb-test/2.deb
[[ $(sed -n 's/^API_KEY=//p' "$tree$env") == "$key" ]] || fail 'the key changed after the package was removed and installed again'
in_tree dpkg --purge system-agent >/dev/null
after=$(listing)
[[ $before == "$after" ]] || fail "files or users remain after the purge: $(diff <(echo "$before") <(echo "$after"))"
echo 'the package was installed, run, upgraded, removed and purged; the upgrade kept the configuration'
