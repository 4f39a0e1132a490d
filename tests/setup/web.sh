#!/usr/bin/env bash
# `make web`: builds `system-agent web`, prints the address of the page, and shows this host in the foreground.
#
#   web.sh PROFILE
#
# BUILD_TARGETS are target options for cargo build. By default only the agent is built.
set -euo pipefail

profile=$1

# The profile quick builds only the features that this run needs.
features=()
[[ $profile != quick ]] || features=(--no-default-features --features web)

# The build comes first, so that the address is printed directly above the server's own log.
read -ra targets <<<"${BUILD_TARGETS:-}"
cargo build --locked --profile "$profile" "${features[@]}" "${targets[@]}"

if [[ ${WEB_ADDRESS:-} ]]; then
    echo 'the address of the page is in the log below; Ctrl-C stops the server'
else
    echo 'open http://127.0.0.1:9180/ in a browser; Ctrl-C stops the server'
fi

# Text is easier to read at a terminal. With LOG_FORMAT=json the server logs as it does in a service.
export LOG_FORMAT=${LOG_FORMAT:-text}
exec cargo run --quiet --locked --profile "$profile" "${features[@]}" -- web
