#!/bin/sh
# Creates the agent's user and configuration. Every package and install.sh run this script after they have installed the files.
#
#   setup.sh first|upgrade
#
# The configuration has a random key, and allows only connections from this host. An upgrade changes neither the user nor the
# configuration. The template of the configuration, agent.env, is in the directory of this script.
set -eu

PATH=$PATH:/usr/sbin:/sbin
readonly directory=/etc/system-agent

fail() {
    echo "error: $1" >&2
    exit 1
}

has_group() {
    if command -v getent >/dev/null; then
        getent group "$1" >/dev/null
    else
        grep -q "^$1:" /etc/group
    fi
}

# Alpine has no useradd. Its adduser and addgroup are those of BusyBox.
create_user() {
    shell=/usr/sbin/nologin
    [ -x "$shell" ] || shell=/sbin/nologin
    if command -v useradd >/dev/null; then
        has_group system-agent || groupadd --system system-agent
        useradd --system --gid system-agent --home-dir /nonexistent --no-create-home --shell "$shell" --comment 'System Agent' system-agent
    elif command -v addgroup >/dev/null && command -v adduser >/dev/null; then
        has_group system-agent || addgroup -S system-agent
        adduser -S -D -H -h /nonexistent -s "$shell" -G system-agent -g 'System Agent' system-agent
    else
        fail 'the user system-agent cannot be created: there is neither useradd nor adduser'
    fi
}

join_group() {
    if command -v usermod >/dev/null; then
        usermod --append --groups "$1" system-agent
    else
        addgroup system-agent "$1"
    fi
}

write_configuration() {
    [ -d "$directory" ] || mkdir "$directory"
    chmod 0755 "$directory"
    key=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
    [ ${#key} -eq 64 ] || fail 'the system gave no random key'
    (
        umask 077
        # The key goes to sed through standard input, because every user can see the arguments of a command.
        printf 's/^API_KEY=$/API_KEY=%s/\ns/^#SOCKET_ADDRESS=$/SOCKET_ADDRESS=127.0.0.1/\n' "$key" |
            sed -f - "$(dirname "$0")/agent.env" >"$directory/agent.env.new"
    )
    mv "$directory/agent.env.new" "$directory/agent.env"
    if command -v restorecon >/dev/null; then
        restorecon -R "$directory" || true
    fi
}

case ${1:-} in
first | upgrade) ;;
*) fail 'usage: setup.sh first|upgrade' ;;
esac

id system-agent >/dev/null 2>&1 || create_user
# The agent needs this group for Docker's socket. If Docker is installed later, the operator adds the user to the group. An upgrade
# does not add the user, because an operator can have removed the user from the group.
if [ "$1" = first ] && has_group docker; then
    join_group docker
fi
# Only the first installation writes the configuration. An upgrade must not change it.
if [ ! -e "$directory/agent.env" ]; then
    write_configuration
    echo 'system-agent: only this host can connect (127.0.0.1:9000). To allow other hosts, set SOCKET_ADDRESS and also'
    echo 'system-agent: TLS or WHITELISTED_CLIENTS in /etc/system-agent/agent.env. This file also has the API key.'
fi
