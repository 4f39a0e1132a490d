# The build, the tests and the benchmarks of System Agent. `make` without a target lists all targets.
#
# `make run`, `make web` and `make test` work on a fresh Debian machine that has only cargo and a C compiler.

PROFILE ?= quick

.PHONY: help run web test test-features test-page test-confined test-deb test-vm faults soak bench instructions bench-fanout bench-fleet bench-logs bench-web bench-otlp try-receivers dashboards docs lint build deb image picture test-foreign release release-check test-release

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

run: ## build and run the agent on this host; prints an API key and the command of a client (PROFILE=release: as in the package)
	@tests/setup/run.sh $(PROFILE)

web: ## build and run the page of this host; prints its address (PROFILE=release: as in the package)
	@tests/setup/web.sh $(PROFILE)

test: ## run every test; as root, also install and start what the tests need (SKIP_DOCKER=1: skip the tests that need Docker)
	@tests/setup/test.sh

test-features: ## run the unit tests without the features nats, otlp, watch and web, and with only one of them
	for features in '' nats otlp watch web; do \
		cargo test --quiet --locked --lib --no-default-features --features "$$features" || exit; \
	done

test-page: ## as root: test the page of `system-agent web` in a real browser, with a simulated server and with real agents and containers; installs Node.js and Chromium if they are missing
	@tests/setup/page.sh

test-confined: ## run every test with the system calls that the systemd unit allows; any other call kills the agent
	@tests/setup/confined.sh

# Settings: FAULTS=part of a trial's name, FUZZ_SECONDS=30 for each parser.
faults: ## as root: run the trials of faults (engines, hosts, many clients), and the parsers with random input; takes long
	@tests/setup/faults.sh $(FAULTS)

soak: ## as root: run the agent for 30 minutes (SOAK_MINUTES=30) with changing containers and clients, and check that nothing grows
	@tests/setup/faults.sh soak

# Settings and their defaults, explained in benches/cost/main.rs: BENCH_PARTS=costs,scrapes,figures, BENCH_SECONDS=60 (each
# window), BENCH_WINDOWS=3, BENCH_CONTAINERS=0,10,50,100,300, BENCH_LOG_SECONDS=1, BENCH_WAYS=all, BENCH_WAYS_AT=100, BENCH_PEERS=1, BENCH_SOAK=0 (seconds),
# BENCH_NODE_EXPORTER=prometheus-node-exporter, BENCH_CADVISOR=cadvisor, BENCH_TELEGRAF=telegraf, BENCH_DOZZLE=dozzle, BENCH_BESZEL=
# (the programs to compare with), BENCH_STRICT=0.
# A short run: make bench BENCH_SECONDS=5 BENCH_WINDOWS=1 BENCH_CONTAINERS=0,10
# Only scrapes beside node_exporter and cAdvisor: make bench BENCH_PARTS=scrapes,figures BENCH_CONTAINERS=100 BENCH_CADVISOR=/path/cadvisor
bench: ## as root: measure the cost of the agent, and of other ways and other agents; prints the expected duration first
	@tests/setup/bench.sh

# INSTRUCTIONS_AGENT= (a program that is already built), INSTRUCTIONS_SNAPSHOTS=24
instructions: ## count the agent's instructions for each snapshot, with callgrind; takes 5 minutes in addition to the build
	@tests/setup/instructions.sh

# Settings and their defaults, explained in benches/fanout/main.rs: BENCH_PARTS=rows,herd,sleepers,steady,bytes,logs,
# BENCH_CLIENTS=100,1000,10000, BENCH_SECONDS=20 (each window), BENCH_INTERVAL=5, BENCH_MINUTES=5, BENCH_ASLEEP=60,
# BENCH_LOGS_MINUTES=10, BENCH_CONTAINERS=50, BENCH_ENGINE=1, BENCH_STRICT=0.
# A short run: make bench-fanout BENCH_CLIENTS=100 BENCH_SECONDS=5 BENCH_MINUTES=1 BENCH_LOGS_MINUTES=1
bench-fanout: ## measure the agent with 10,000 clients, and a minimal server for comparison; prints the expected duration first
	@tests/setup/bench-fanout.sh

# Settings and their defaults, explained in benches/fleet/main.rs: BENCH_HOSTS=500, BENCH_INTERVAL=5, BENCH_SECONDS=20 (each
# window), BENCH_CONTAINERS=10, BENCH_STEPS=1000,2000,5000,10000, BENCH_STEP_SECONDS=10, BENCH_MINUTES=8.
# A short run: make bench-fleet BENCH_SECONDS=5 BENCH_STEPS= BENCH_CONTAINERS=0
bench-fleet: ## measure one NATS server with 500 hosts, and then with more; takes about 6 minutes in addition to the build
	@tests/setup/bench-fleet.sh

# Settings and their defaults, explained in benches/logs/main.rs: BENCH_CONTAINERS=100, BENCH_SECONDS=60 (each window),
# BENCH_SLOW_SECONDS=300, BENCH_SHORT=1000, BENCH_CLIENTS=1000, BENCH_RATE=30, BENCH_KILLS=20, BENCH_CUT_SECONDS=30,
# BENCH_PARTS=many,fast,slow,live,quiet,short,crowd,kills, BENCH_STRICT=0.
# A short run: make bench-logs BENCH_CONTAINERS=10 BENCH_SECONDS=5 BENCH_SLOW_SECONDS=20 BENCH_CLIENTS=50 BENCH_KILLS=4 BENCH_CUT_SECONDS=3
bench-logs: ## as root: measure the delivery of log lines, beside `docker logs --follow`, rsyslog and a bare server; takes 22 minutes
	@tests/setup/bench-logs.sh

# Settings and their defaults, explained in benches/web/main.rs: BENCH_AGENTS=100, BENCH_FEW_AGENTS=10, BENCH_CONTAINERS=20,
# BENCH_INTERVAL=5, BENCH_WARM_UP=30, BENCH_SECONDS=60 (each window), BENCH_QUERIES=50, BENCH_RANGES=1h,30d,1y, BENCH_STRICT=0.
# A short run: make bench-web BENCH_WARM_UP=5 BENCH_SECONDS=10
bench-web: ## as root: measure the server of the page with 100 simulated agents; takes 7 minutes in addition to the build
	@tests/setup/bench-web.sh

# Settings and their defaults, explained in benches/otlp/main.rs: BENCH_CONTAINERS=100, BENCH_SECONDS=30 (each window), BENCH_WINDOWS=3,
# BENCH_RATE=100, BENCH_PARTS=metrics,logs, BENCH_STRICT=0.
# A short run: make bench-otlp BENCH_CONTAINERS=10 BENCH_SECONDS=5 BENCH_WINDOWS=1
bench-otlp: ## as root: measure exports to a receiver of OpenTelemetry, and log lines to it beside the socket; takes 15 minutes
	@tests/setup/bench-otlp.sh

try-receivers: ## as root: send to a real Prometheus and a real VictoriaLogs, which are built from their sources with Go; takes 15 minutes at first
	@tests/setup/try-receivers.sh

dashboards: ## write the dashboards in config/grafana; needs python3
	python3 config/grafana/dashboards.py

docs: ## write docs/snapshot.md, docs/metrics.md and docs/opentelemetry-metrics.md from the code
	UPDATE_DOCS=1 cargo test --locked --lib metrics_page
	UPDATE_DOCS=1 cargo test --locked --lib the_metrics_page
	UPDATE_DOCS=1 cargo test --locked --test integration docs::

lint: ## check formatting, code (clippy), documentation, dependencies and shell scripts; a warning is an error
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	# Also without the features nats, otlp, watch and web, and with only one of them.
	for features in '' nats otlp watch web; do \
		cargo clippy --locked --lib --bins --no-default-features --features "$$features" -- -D warnings || exit; \
	done
	# With --examples the dependencies have the same features as for clippy, so cargo does not build them again.
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --lib --bins --examples
	tests/setup/deny.sh
	@tests/setup/packages.sh shellcheck:shellcheck
	shellcheck -x .ci/run config/setup.sh config/openrc/system-agent config/smart/*.sh examples/*.sh release/*.sh tests/setup/*.sh tests/vm/*.sh

build: ## build the release binary, target/release/system-agent
	cargo build --locked --release

deb: ## build the Debian package in target/debian, with the unit, a manual page and shell completions
	@tests/setup/deb.sh

test-deb: ## as root: install, run, upgrade and purge the Debian package in a clean Debian
	@tests/setup/test-deb.sh

test-foreign: ## test the aarch64 binary of `make release` with an emulator: commands, unit tests, tests of the protocol
	@release/test-foreign.sh

test-release: ## as root, after `make release`: install, run, upgrade and remove each package and the archive in clean trees
	@release/test-install.sh
	@release/test-packages.sh

# Settings, explained in tests/vm/run.sh: SUITE=trixie or forky, PARTS="figures logs" for these parts only.
test-vm: ## as root: test the package in a virtual machine with a current systemd, Docker and Podman; takes 40 minutes
	@tests/vm/run.sh $(PARTS)

image: ## build the Docker image system-agent:latest, for config/compose.yml
	@tests/setup/agent-image.sh

# Settings: TARGETS=targets of Rust, RELEASE_KEY_FILE=secret key of minisign; further ones are in the head of the scripts in release/.
release: ## make all files of a release in target/release-files: static binaries, packages, image, checksums, signature
	@release/all.sh $(TARGETS)

release-check: ## build the binaries of a release twice, in different directories, and compare their bytes (TARGETS=targets of Rust)
	@release/check-reproducible.sh $(TARGETS)

picture: ## as root: make docs/watch.svg and docs/page-*.png, the pictures of the terminal view and of the page, from a real run
	@tests/setup/picture.sh
