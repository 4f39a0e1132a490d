#!/usr/bin/env bash
# Everything behind `make run`: builds the agent, prints how to read its stream, runs it in the foreground.
#
#   run.sh PROFILE
#
# BUILD_TARGETS are those of cargo build: the agent alone, unless it is said.
set -euo pipefail

profile=$1

# With the profile that is built soonest only the parts that this run needs are built.
features=()
if [[ $profile == quick ]]; then
    features=(--no-default-features)
    [[ ! ${NATS_URL:-} ]] || features+=(--features nats)
fi

# Builds before anything is printed, so that the command below is the last thing above the agent's own log.
read -ra targets <<<"${BUILD_TARGETS:-}"
cargo build --locked --profile "$profile" "${features[@]}" "${targets[@]}"

if [[ ${API_KEY:-} ]]; then
    # A key of the caller's is not printed: the reader's shell is to put it in.
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

# For a reader at a terminal; LOG_FORMAT=json gives what a service writes.
export LOG_FORMAT=${LOG_FORMAT:-text}
exec cargo run --quiet --locked --profile "$profile" "${features[@]}"
