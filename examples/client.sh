#!/usr/bin/env bash
# Prints one line for each snapshot of an agent: client.sh [--tls] [HOST:PORT]. Needs bash and jq, and openssl for TLS.
# Reads the same environment variables as client.py: API_KEY or API_KEY_FILE, AGENT_CA, AGENT_NAME, AGENT_CERT, AGENT_KEY,
# AGENT_TIMEOUT. client.py explains them.
[[ ${1:-} == --tls ]] && tls=1 && shift
address=${1:-127.0.0.1:9000} tls=${tls:-${AGENT_CA:-}} children=() wait=1 cursor=
[[ $# -le 1 && $address == ?*:?* ]] || { echo 'usage: client.sh [--tls] [HOST:PORT]' >&2 && exit 1; }
host=${address%:*} port=${address##*:} host=${host//[\[\]]/} name=${AGENT_NAME:-$host}
verify=(-verify_return_error -verify_hostname "$name" -servername "$name")
[[ $name =~ ^[0-9.]+$|: ]] && verify=(-verify_return_error -verify_ip "$name" -noservername)
key=${API_KEY:-$(<"${API_KEY_FILE:?or API_KEY must be set}")} || exit 1
# shellcheck disable=SC2016
line='def one: . * 10 | round | "\(. / 10 | floor).\(. % 10) %"; . as $text | (fromjson? // {}) |
    if .host then [.containers | sort_by(-.cpu_percent)[:3][] | "\(.name | ltrimstr("/")) \(.cpu_percent | one)"] as $busiest |
        (.agent.cursor // empty | "#\(.)"), "\(.host.hostname)  cpu \(.system.cpu_percent[0] | one)" + if $busiest == [] then "" else "  busiest: " + ($busiest | join(", ")) end
    else $text end'
connect() { # File 3 has the agent's JSON lines. File 4 has the lines to print. ps would show a key in the arguments of a command.
    if [[ $tls ]]; then
        exec 3< <(exec openssl s_client -quiet -verify_quiet "${verify[@]}" ${AGENT_CA:+-CAfile "$AGENT_CA"} \
            ${AGENT_CERT:+-cert "$AGENT_CERT" -key "$AGENT_KEY"} -connect "$address" < <(hello)) && children+=($!)
    else
        exec 3<>"/dev/tcp/$host/$port" && hello >&3
    fi && exec 4< <(exec jq -Rr --unbuffered "$line" <&3) && children+=($!)
}
hello() { printf '%s {"sections":["system","containers"]%s}\n' "$key" "${cursor:+,\"resume\":\"$cursor\"}"; }
close() { kill "${children[@]}" 2>/dev/null; children=(); exec 3<&- 4<&-; }
trap close EXIT
trap 'exit 0' INT TERM
trap '' PIPE # If the program that reads the output has ended, printf fails and the script exits.
# If the agent's host loses power, nothing closes the connection, so read needs a timeout. 90 s is many times the agent's
# default PUBLISH_INTERVAL of 5 s. If the agent has a much longer interval, set AGENT_TIMEOUT.
while true; do
    connect && while IFS= read -r -t "${AGENT_TIMEOUT:-90}" text <&4; do
        [[ $text == Unauthorized ]] && echo "client.sh: the agent refused the API key" >&2 && exit 2
        # With "logs":"new" or the section events, the next connection continues after this snapshot.
        [[ $text == '#'* ]] && cursor=${text#\#} && continue
        [[ $text == '{"error"'* ]] && echo "client.sh: $text" >&2 && exit 1
        printf '%s\n' "$text" 2>/dev/null || exit 0
        wait=1
    done
    close
    # The pause is random, so that many clients do not connect at the same time after the agent restarts.
    tenths=$((wait * (75 + RANDOM % 26) / 10)) wait=$((wait < 15 ? 2 * wait : 30))
    pause=$((tenths / 10)).$((tenths % 10))
    echo "client.sh: no connection, or no snapshot for ${AGENT_TIMEOUT:-90} s; retry in $pause s" >&2
    read -r -t "$pause" <> <(:) # Waits. A signal interrupts read immediately, but it would not interrupt sleep.
done
