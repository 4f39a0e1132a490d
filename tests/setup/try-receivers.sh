#!/usr/bin/env bash
# `make try-receivers`: builds Prometheus and VictoriaLogs from their sources, because Debian has no VictoriaLogs and builds its Prometheus
# without OTLP. Then tests/receivers/try.py sends to them. Needs Go; downloads from Go's module proxy.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly PROMETHEUS=v0.316.0 VICTORIA_LOGS=v1.52.2
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/receivers/go
agent=${CARGO_TARGET_DIR:-target}/quick/system-agent

if [[ ${1:-} == with-engine ]]; then
    "$here/image.sh"
    exec tests/receivers/try.py "$agent" "$folder/victoria-logs" "$folder/prometheus"
fi

((EUID == 0)) || { echo 'error: missing: root (the test starts containers)' >&2; exit 1; }
command -v go >/dev/null || { echo 'error: missing: go, to build Prometheus and VictoriaLogs' >&2; exit 1; }
"$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static python3:python3
install_tool() { [[ -x $folder/$1 ]] || GOBIN=$folder go install "$2"; }
install_tool victoria-logs "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs@$VICTORIA_LOGS"
install_tool prometheus "github.com/prometheus/prometheus/cmd/prometheus@$PROMETHEUS"
cargo build --locked --profile quick
"$here/engine.sh" "$here/try-receivers.sh" with-engine
