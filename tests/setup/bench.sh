#!/usr/bin/env bash
# `make bench`: starts an engine, makes the test image, installs other agents for comparison, then runs the benchmark.
# benches/cost/main.rs explains the settings.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
cd "$here/../.."
readonly own=target/bench

install_glances() {
    "$here/packages.sh" python3:python3 || return
    # On Debian, Python cannot create a virtual environment without the package python3-venv.
    python3 -c 'import ensurepip' || apt-get install -y --no-install-recommends python3-venv || return
    python3 -m venv "$own/glances" && "$own/glances/bin/pip" install --quiet 'glances[web,containers]'
}

# The report names the agents that cannot be installed here.
install_peers() {
    local peer
    for peer in netdata prometheus-node-exporter cadvisor; do
        "$here/packages.sh" "$peer:$peer" >/dev/null 2>&1 || echo "NOTE: Debian's $peer cannot be installed here"
    done
    if [[ ! -x $own/glances/bin/glances ]] && ! install_glances >"$own/glances.log" 2>&1; then
        echo "NOTE: Glances cannot be installed here from PyPI; $own/glances.log says why"
    fi
}

if [[ ${1:-} == with-engine ]]; then
    "$here/image.sh"
    export BENCH_AGENT=$PWD/$own/system-agent
    # The directory of Glances also has a Python. It is at the end of PATH, so that no other program uses this Python.
    export PATH=$PATH:/usr/sbin:$PWD/$own/glances/bin
    exec cargo bench --locked --bench cost
fi

if ((EUID != 0)); then
    echo 'error: missing: root (the benchmark starts containers and measures the engine)' >&2
    exit 1
fi
"$here/packages.sh" dockerd:docker.io 'docker:docker-cli|docker.io' iptables:iptables busybox:busybox-static
mkdir -p "$own"
"$here/packages.sh" strace:strace || echo 'NOTE: system calls are not counted'
"$here/packages.sh" tmux:tmux || echo 'NOTE: the terminal view is not measured'
"$here/packages.sh" prometheus:prometheus || echo 'NOTE: the figures of containers are not compared with those of cAdvisor'
"$here/packages.sh" prometheus-node-exporter:prometheus-node-exporter || echo 'NOTE: scrapes are not compared with node_exporter'
[[ ${BENCH_PEERS:-1} == 0 ]] || install_peers
if [[ ${BENCH_BESZEL:-} && ! -x $own/beszel-client/bin/python3 ]]; then
    "$here/packages.sh" python3:python3 ssh-keygen:openssh-client
    python3 -m venv "$own/beszel-client" && "$own/beszel-client/bin/pip" install --quiet asyncssh==2.24.1
fi

# A copy of the normal release build. `cargo bench` also builds a binary, but with features that only tests need.
cargo build --locked --release
cp "${CARGO_TARGET_DIR:-target}/release/system-agent" "$own/system-agent"
cargo bench --locked --bench cost --no-run
"$here/engine.sh" "$here/bench.sh" with-engine
