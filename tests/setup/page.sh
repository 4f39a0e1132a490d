#!/usr/bin/env bash
# The page of `system-agent web`: builds it, or tests it in a real browser. Installs Node.js and Chromium if they are missing.
#
#   page.sh           run the tests of the page; the built files in the repository must be those of the sources
#   page.sh build     build src/web/page/dist
#   page.sh pictures  take a picture of every view, into src/web/page/pictures
set -euo pipefail

cd "$(dirname "$(realpath "$0")")"
task=${1:-test}
wanted=(node:nodejs npm:npm)
[[ $task == build ]] || wanted+=(chromium:chromium)
./packages.sh "${wanted[@]}"

cd ../../src/web/page
npm ci --no-audit --no-fund --loglevel=error
npm run --silent "$task"
