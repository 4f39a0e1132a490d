#!/usr/bin/env bash
# The page of `system-agent web`: builds it, or tests it in a real browser. Installs Node.js and Chromium if they are missing.
#
#   page.sh           run the tests of the page; the built files in the repository must be those of the sources. First with a simulated
#                     server, then, as root, with the real server, real agents and containers (SKIP_REAL=1: only the first)
#   page.sh build     build src/web/page/dist
#   page.sh pictures  take a picture of every view, into src/web/page/pictures
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly page=src/web/page
task=${1:-test}

if [[ $task == with-engine ]]; then
    "$here/image.sh"
    export AGENT=$PWD/${CARGO_TARGET_DIR:-target}/debug/system-agent
    [[ ! ${CARGO_TARGET_DIR:-} == /* ]] || AGENT=$CARGO_TARGET_DIR/debug/system-agent
    exec npm run --silent --prefix "$page" real
fi

wanted=(node:nodejs npm:npm)
[[ $task == build ]] || wanted+=(chromium:chromium)
real=
if [[ $task == test && ! ${SKIP_REAL:-} ]]; then
    if ((EUID != 0)); then
        echo 'error: missing: root (the tests with real containers start an engine); SKIP_REAL=1 leaves these tests out' >&2
        exit 1
    fi
    real=1
    wanted+=(dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static)
fi
"$here/packages.sh" "${wanted[@]}"

npm ci --prefix "$page" --no-audit --no-fund --loglevel=error
npm run --silent --prefix "$page" "$task"
if [[ $real ]]; then
    # `make test` needs the same build.
    cargo test --locked --no-run
    "$here/engine.sh" "$here/page.sh" with-engine
elif [[ $task == test ]]; then
    echo 'NOTE: SKIP_REAL is set: THE PAGE IS NOT TESTED WITH REAL AGENTS'
fi
