#!/usr/bin/env bash
# `make run`: builds the agent, prints the command of a client, and runs the agent in the foreground.
#
#   run.sh PROFILE
#
# BUILD_TARGETS are target options for cargo build. By default only the agent is built.
set -euo pipefail

profile=$1

# The profile quick builds only the features that this run needs.
features=()
if [[ $profile == quick ]]; then
    features=(--no-default-features)
    [[ ! ${NATS_URL:-} ]] || features+=(--features nats)
    [[ ! ${OTLP_ENDPOINT:-} ]] || features+=(--features otlp)
fi

# The build comes first, so that the client command is printed directly above the agent's own log.
read -ra targets <<<"${BUILD_TARGETS:-}"
cargo build --locked --profile "$profile" "${features[@]}" "${targets[@]}"

if [[ ${API_KEY:-} ]]; then
    # The printed command has the name of the variable, so that the caller's key is not printed.
    # shellcheck disable=SC2016
    key='"$API_KEY"' note=' (with the same API_KEY exported)'
elif [[ ${API_KEY_FILE:-} ]]; then
    key="\"\$(cat $(printf %q "$(realpath "$API_KEY_FILE")"))\"" note=
else
    API_KEY=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    export API_KEY
    key=$API_KEY note=
    echo "API key of this run: $API_KEY"
fi

case ${SOCKET_ADDRESS:-} in
'' | 0.0.0.0 | :: | '[::]') host=127.0.0.1 ;;
*) host=${SOCKET_ADDRESS//[\[\]]/} ;;
esac
port=${SOCKET_PORT:-9000}
if [[ $port == 0 ]]; then
    port=PORT note+=' (PORT is in the log below: the kernel chooses it)'
fi
case ${TLS_ENABLED:-false} in
true | 1)
    [[ $host == *:* ]] && host="[$host]"
    client="echo $key | openssl s_client -quiet -connect $host:$port"
    ;;
*) client="bash -c 'exec 3<>/dev/tcp/$host/$port && echo $key >&3 && cat <&3'" ;;
esac
echo "read the stream from another terminal$note:"
echo "    $client"

# Text is easier to read at a terminal. With LOG_FORMAT=json the agent logs as it does in a service.
export LOG_FORMAT=${LOG_FORMAT:-text}
exec cargo run --quiet --locked --profile "$profile" "${features[@]}"
