#!/usr/bin/env bash
# Tests install.sh as root, in clean Debian trees in which systemd does not run, from a web server on this machine: with dash and with the
# shell of BusyBox, with openssl and with minisign, and with a running OpenRC. Needs the archives in target/release-files.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
# shellcheck source=release/testing.sh
. release/testing.sh
trap stop_all EXIT
files=$PWD/target/release-files
release=$TEST/release
archive=system-agent-$version-linux-x86_64.tar.gz
passed=0

pass() {
    passed=$((passed + 1))
    echo "passed ($shell): $1"
}

# Runs install.sh in the tree with the shell $shell, and writes its output to $TEST/output.log.
install_sh() {
    cp release/install.sh "$tree/tmp/install.sh"
    # The shell is a word list: `busybox sh` has two words.
    # shellcheck disable=SC2086
    in_tree $shell /tmp/install.sh --url "$base" --public-key "$public" "$@" >"$TEST/output.log" 2>&1
}

works() {
    install_sh "$@" || fail "install.sh $* failed: $(cat "$TEST/output.log")"
}

# Checks that install.sh fails with one error that has the text $1, and changes no file.
refuses() {
    local text=$1 state
    shift
    state=$(listing)
    if install_sh "$@"; then
        fail "install.sh $* did not fail; expected: $text"
    fi
    grep -q -F -e "$text" "$TEST/output.log" || fail "install.sh $*: expected: $text; it said: $(cat "$TEST/output.log")"
    [[ $(grep -c '^error: ' "$TEST/output.log") == 1 ]] || fail "install.sh $* did not print exactly one error: $(cat "$TEST/output.log")"
    [[ $(listing) == "$state" ]] || fail "install.sh $* changed files, although it failed"
}

# Prints every file of the tree with its size, mode and time, except the copy of install.sh.
listing() {
    find "$tree" -xdev \( -path "$tree/proc" -o -path "$tree/tmp/install.sh" \) -prune -o ! -path "$tree/tmp" -printf '%P %s %m %T@\n' | sort
}

said() {
    grep -q -e "$1" "$TEST/output.log" || fail "expected: $1; install.sh said: $(cat "$TEST/output.log")"
}

# Writes SHA256SUMS of the files in the directory $1, and signs it. $2 is an option of minisign: -l makes a signature of the old kind.
sign_release() {
    (cd "$1" && sha256sum system-agent-*.tar.gz >SHA256SUMS)
    minisign -S ${2:+"$2"} -s "$TEST/minisign.key" -m "$1/SHA256SUMS" >/dev/null
}

# Makes an archive of the release with another version, in the directory $1.
make_other_version() {
    local other=system-agent-9.9.9-linux-x86_64
    rm -rf "$1"
    mkdir -p "$1"
    tar -xzf "$files/$archive" -C "$1"
    mv "$1/${archive%.tar.gz}" "$1/$other"
    echo '# 9.9.9' >>"$1/$other/system-agent.service"
    rm "$1/$other/web.env"
    cp "$1/$other/agent.env" "$1/$other/web.env"
    tar -czf "$1/$other.tar.gz" -C "$1" "$other"
    rm -rf "${1:?}/$other"
    sign_release "$1"
}

prepare() {
    rm -rf "$release" "$TEST"/minisign.{key,pub}
    mkdir -p "$release"
    cp "$files/$archive" "$release/"
    minisign -G -W -f -p "$TEST/minisign.pub" -s "$TEST/minisign.key" >/dev/null
    public=$(sed -n 2p "$TEST/minisign.pub")
    sign_release "$release"
    make_other_version "$TEST/other"
}

# The whole life of an installation, with the shell $shell.
test_life() {
    local before_all
    new_tree install
    in_tree groupadd --system docker
    before_all=$(listing)
    works --dry-run
    said '^would install: /usr/local/bin/system-agent$'
    said 'nothing was changed$'
    [[ $(listing) == "$before_all" ]] || fail 'the dry run changed files'
    pass 'a dry run changes nothing'

    works
    check_configuration
    said "^The API key:      $key\$"
    said '^Start it:         systemctl enable --now system-agent$'
    said '^Look at the host: /usr/local/bin/system-agent watch 127.0.0.1$'
    in_tree system-agent --version | grep -q -x "system-agent $version" || fail 'the program does not run'
    in_tree id -nG system-agent | grep -q -w docker || fail 'the user is not in the group docker'
    grep -q '^ExecStart=/usr/local/bin/system-agent run$' "$tree/etc/systemd/system/system-agent.service" || fail 'the unit has another path'
    run_agent /usr/local/bin/system-agent 29611
    pass 'installs, prints the key and the next commands, and the agent runs'

    before_all=$(listing)
    works
    said 'already installed; nothing was changed$'
    [[ $(listing) == "$before_all" ]] || fail 'the second run changed files'
    if grep -q "$key" "$TEST/output.log"; then
        fail 'the second run printed the key'
    fi
    pass 'a second run changes nothing, and does not print the key'

    change_configuration
    serve "$TEST/other"
    works
    said '^System Agent 9.9.9 is installed in /usr/local$'
    check_kept
    grep -q '^# 9.9.9$' "$tree/etc/systemd/system/system-agent.service" || fail 'the unit was not replaced'
    run_agent /usr/local/bin/system-agent 29612
    pass 'an upgrade replaces the files, and keeps the configuration and the key'

    refuses 'does not have version 9.9.8. It has: 9.9.9' --version 9.9.8
    works --version v9.9.9
    serve "$release"
    pass '--version installs only this version'

    refuses 'belongs to an installation with another prefix' --prefix /opt/agent
    pass 'another prefix is refused'

    mv "$tree/usr/local/bin/system-agent" "$tree/usr/local/bin/program"
    printf '#!/bin/sh\necho system-agent 99.0.0\n' >"$tree/usr/local/bin/system-agent"
    chmod 0755 "$tree/usr/local/bin/system-agent"
    refuses 'version 99.0.0 is installed, and'
    # A release is newer than its pre-releases.
    printf '#!/bin/sh\necho system-agent %s-rc.1\n' "$version" >"$tree/usr/local/bin/system-agent"
    works --dry-run
    works --dry-run --version "$version"
    mv "$tree/usr/local/bin/program" "$tree/usr/local/bin/system-agent"
    pass 'an older release is refused, unless its version is given'

    works --uninstall --dry-run
    in_tree test -e /usr/local/bin/system-agent || fail 'the dry run removed the program'
    works --uninstall
    in_tree test ! -e /usr/local/bin/system-agent || fail 'the program remains'
    in_tree test ! -e /etc/systemd/system/system-agent.service || fail 'the unit remains'
    check_kept
    works
    check_kept
    pass 'a removal keeps the configuration and the key for the next installation'

    works --uninstall --purge
    if in_tree id system-agent >/dev/null 2>&1; then
        fail 'the user remains after the purge'
    fi
    [[ ! $(find "$tree" -xdev -path "$tree/proc" -prune -o -name '*system-agent*' -print) ]] ||
        fail "files remain after the purge: $(find "$tree" -xdev -path "$tree/proc" -prune -o -name '*system-agent*' -print)"
    pass 'a purge leaves no file and no user'

    cp -R "$release" "$tree/tmp/release"
    works --prefix /opt/agent --url file:///tmp/release
    rm -rf "$tree/tmp/release"
    grep -q '^ExecStart=/opt/agent/bin/system-agent run$' "$tree/etc/systemd/system/system-agent.service" || fail 'the unit does not have the prefix'
    run_agent /opt/agent/bin/system-agent 29613
    works --prefix /opt/agent --uninstall --purge
    pass '--prefix installs in another directory, from a directory of this host'
}

# What install.sh must refuse, with the shell $shell. $1 names the program that checks the signature.
test_refusals() {
    local bad=$TEST/bad other_key
    rm -rf "$bad"
    cp -R "$release" "$bad"
    serve "$bad"

    printf x >>"$bad/$archive"
    refuses "the checksum of $archive is wrong"
    refuses "the checksum of $archive is wrong" --no-verify
    pass "a changed archive is refused ($1)"

    # Whoever changes the archive can also change the checksums, but cannot sign them.
    (cd "$bad" && sha256sum system-agent-*.tar.gz >SHA256SUMS)
    refuses 'the signature of SHA256SUMS is wrong'
    pass "changed checksums are refused ($1)"

    minisign -G -W -f -p "$TEST/other.pub" -s "$TEST/other.key" >/dev/null
    minisign -S -s "$TEST/other.key" -m "$bad/SHA256SUMS" >/dev/null
    refuses 'the signature of SHA256SUMS is wrong'
    pass "the signature of another key is refused ($1)"

    # Another key that claims the name of the right key.
    other_key=$(python3 - "$public" "$(sed -n 2p "$TEST/other.pub")" <<'END'
import base64, sys
ours, other = (base64.b64decode(key) for key in sys.argv[1:])
print(base64.b64encode(ours[:10] + other[10:]).decode())
END
    )
    cp "$release/SHA256SUMS" "$release/SHA256SUMS.minisig" "$bad/"
    refuses 'the signature of SHA256SUMS is wrong' --public-key "$other_key"
    refuses 'the signature of SHA256SUMS is wrong' --public-key nonsense
    pass "a wrong public key is refused ($1)"

    printf 'untrusted comment: none\nAAAA\n' >"$bad/SHA256SUMS.minisig"
    refuses 'the signature of SHA256SUMS is wrong'
    rm "$bad/SHA256SUMS.minisig"
    refuses 'has no signature (SHA256SUMS.minisig)'
    pass "a cut or missing signature is refused ($1)"

    cp "$release/$archive" "$bad/"
    sign_release "$bad" -l
    works --dry-run
    pass "a signature of the old kind is accepted ($1)"
    serve "$release"
}

# Errors that do not depend on the signature.
test_errors() {
    refuses 'unknown option: --frob' --frob
    refuses '--url needs a value' --url
    refuses 'is not an absolute path' --prefix opt
    refuses '--purge needs --uninstall' --purge
    refuses 'does not begin with http://' --url ftp://127.0.0.1/
    refuses '/SHA256SUMS cannot be downloaded' --url "$base/missing"
    if in_tree env -i PATH=/usr/bin:/bin setpriv --reuid nobody --clear-groups sh /tmp/install.sh --url "$base" >"$TEST/output.log" 2>&1; then
        fail 'install.sh ran without root'
    fi
    said '^error: only root can install'
    pass 'a wrong option or URL, and a user who is not root, get one error'

    # A cut download runs nothing, not even --help. The whole file does.
    local size cut
    size=$(stat -c %s release/install.sh)
    for cut in 100 2000 "$((size / 2))" "$((size - 20))" "$((size - 12))" "$((size - 8))" "$((size - 2))" "$size"; do
        head -c "$cut" release/install.sh >"$tree/tmp/cut.sh"
        in_tree sh -c "exec $shell -s -- --help </tmp/cut.sh" >"$TEST/output.log" 2>&1 || true
        if grep -q '^Usage:' "$TEST/output.log"; then
            ((cut == size)) || fail "install.sh runs although only $cut of its $size bytes arrived"
        else
            ((cut < size)) || fail "install.sh does not run from standard input: $(cat "$TEST/output.log")"
        fi
    done
    rm "$tree/tmp/cut.sh"
    pass 'a cut download runs nothing'
}

# Without minisign and openssl the installation is refused. --no-verify allows it. BusyBox does the download.
test_plain_system() {
    local program command
    for program in bin/openssl bin/minisign bin/curl bin/systemctl sbin/rc-service; do
        mv "$tree/usr/$program" "$tree/usr/$program.away"
    done
    ln -s busybox "$tree/usr/bin/wget"
    refuses 'nothing here can check the signature: install minisign or openssl 3'
    works --no-verify
    said '^warning: the signature of the release is not checked$'
    said '^This host has neither systemd nor OpenRC'
    # The command that install.sh prints starts the agent.
    key=$(sed -n 's/^API_KEY=//p' "$tree/etc/system-agent/agent.env")
    echo SOCKET_PORT=29614 >>"$tree/etc/system-agent/agent.env"
    # Without the parentheses, so that $agent is the process that runs the agent.
    command=$(sed -n 's/^ *(\(set -a; .*\))$/\1/p' "$TEST/output.log")
    [[ $command ]] || fail "install.sh prints no command: $(cat "$TEST/output.log")"
    chroot "$tree" /usr/bin/env -i PATH=/usr/bin:/bin sh -c "$command" 2>"$TEST/agent.log" &
    agent=$!
    read_snapshot 29614
    stop_agent
    works --uninstall --purge
    rm "$tree/usr/bin/wget"
    # The shell of BusyBox always has wget.
    [[ $shell != dash ]] || refuses 'missing command: curl or wget'
    for program in bin/openssl bin/minisign bin/curl bin/systemctl sbin/rc-service; do
        mv "$tree/usr/$program.away" "$tree/usr/$program"
    done
    pass 'a system without minisign and openssl is refused, and wget of BusyBox downloads'
}

# A package of the same name must be left to its package manager.
test_package() {
    local deb
    deb=$(compgen -G "$files/*_amd64.deb") || return 0
    cp "$deb" "$tree/tmp/agent.deb"
    in_tree dpkg --install /tmp/agent.deb >/dev/null 2>&1
    refuses 'already installed as a package (dpkg)'
    refuses 'already installed as a package (dpkg)' --uninstall
    in_tree dpkg --purge system-agent >/dev/null 2>&1
    pass 'an installed package is refused'
}

# Prints the id of the process of the agent in the tree.
find_agent() {
    local process
    for process in /proc/[0-9]*; do
        if [[ $(readlink "$process/root") == "$tree" && $(readlink "$process/exe") == */bin/system-agent ]]; then
            echo "${process#/proc/}"
        fi
    done
}

# Installs, reloads, upgrades and removes the service with OpenRC, which runs in the tree as far as it does in a chroot.
test_openrc() {
    local pid old group
    new_tree openrc
    serve "$release"
    mkdir -p "$tree/run/openrc"
    : >"$tree/run/openrc/softlevel"
    in_tree groupadd --system docker
    # Values that a shell would read in another way than systemd does.
    mkdir "$tree/etc/system-agent"
    key=0123456789abcdef0123456789abcdef
    printf '%s\n' '# comment' "API_KEY=$key" SOCKET_ADDRESS=127.0.0.1 SOCKET_PORT=29615 'LOG_REDACT=(?i)x\s+(?P<secret>y) z$' \
        "CONTAINERS_EXCLUDE='ci-*,image=*/runner:*'" DOCKER_HOST=unix:///run/none.sock >"$tree/etc/system-agent/agent.env"
    works
    : >"$TEST/agent.log"
    read_snapshot 29615
    pid=$(find_agent)
    [[ $pid ]] || fail 'OpenRC does not run the agent'
    group=$(in_tree getent group docker | cut -d : -f 3)
    grep -q "^Groups:.*\b$group\b" "/proc/$pid/status" || fail 'the agent is not in the group docker'
    grep -q '^NoNewPrivs:[[:space:]]1$' "/proc/$pid/status" || fail 'the agent can get new privileges'
    in_tree rc-update show default | grep -q system-agent || fail 'the service does not start at boot'
    pass 'OpenRC runs the agent as its user, with settings that a shell would misread'

    in_tree rc-service system-agent reload >"$TEST/output.log" 2>&1 || fail "reload failed: $(cat "$TEST/output.log")"
    [[ $(find_agent) == "$pid" ]] || fail 'a reload ended the agent'
    old=$pid
    serve "$TEST/other"
    works
    read_snapshot 29615
    pid=$(find_agent)
    [[ $pid && $pid != "$old" ]] || fail 'the upgrade did not restart the agent'
    pass 'OpenRC reloads the agent, and an upgrade restarts it'

    works --uninstall --purge
    [[ ! $(find_agent) ]] || fail 'the agent runs after the removal'
    in_tree test ! -e /etc/init.d/system-agent || fail 'the init script remains'
    pass 'a removal stops the service of OpenRC'
    drop_tree openrc
}

((EUID == 0)) || fail 'missing: root (the test makes trees and enters them with chroot)'
tests/setup/packages.sh debootstrap:debootstrap setpriv:util-linux minisign:minisign python3:python3
[[ -e $files/$archive ]] || fail "there is no $files/$archive; release/packages.sh makes it"
mkdir -p "$TEST"
stop_all
make_base
prepare
for shell in dash 'busybox sh'; do
    serve "$release"
    test_life
    test_refusals minisign
    mv "$tree/usr/bin/minisign" "$tree/usr/bin/minisign.away"
    test_refusals openssl
    mv "$tree/usr/bin/minisign.away" "$tree/usr/bin/minisign"
    test_errors
    test_plain_system
    test_package
    drop_tree install
done
shell=dash
test_openrc
echo "$passed checks of install.sh passed"
