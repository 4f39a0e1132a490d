# System Agent. `make` alone lists the targets.
#
# Two of them do everything on a fresh Debian machine that has only cargo and a C compiler: `make run` and `make test`.

PROFILE ?= quick

.PHONY: help run test test-features test-confined test-deb test-vm faults soak bench bench-fanout bench-fleet docs lint build deb image picture

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

run: ## build and run the agent here; prints an API key for this run, and how to read the stream (PROFILE=release: as the package has it)
	@tests/setup/run.sh $(PROFILE)

test: ## run every test; as root, installs and starts what they need (SKIP_DOCKER=1 leaves out those that need Docker)
	@tests/setup/test.sh

test-features: ## unit tests without each of the optional parts (the features nats and watch)
	for features in '' nats watch; do \
		cargo test --quiet --locked --lib --no-default-features --features "$$features" || exit; \
	done

test-confined: ## the same, with each agent under the system calls that the unit allows, and death for any other
	@tests/setup/confined.sh

# Settings: FAULTS=a part of a fault's name, FUZZ_SECONDS=30 for each parser.
faults: ## as root: the agent under what engines, hosts and crowds may do to it, and its parsers under random input; takes long
	@tests/setup/faults.sh $(FAULTS)

soak: ## as root: half an hour (SOAK_MINUTES=30) with containers and clients coming and going: does anything grow?
	@tests/setup/faults.sh soak

# Settings: BENCH_SECONDS=60 a window, BENCH_WINDOWS=3, BENCH_CONTAINERS=0,10,50,100,300, BENCH_WAYS=all,
# BENCH_WAYS_AT=100, BENCH_PEERS=1, BENCH_SOAK=0 seconds, BENCH_STRICT=0; benches/cost/main.rs says more. A glance:
# make bench BENCH_SECONDS=5 BENCH_WINDOWS=1 BENCH_CONTAINERS=0,10
bench: ## as root: what the agent costs, beside other ways and agents; says how long it will take
	@tests/setup/bench.sh

# Settings: BENCH_PARTS=rows,herd,sleepers,steady,bytes,logs, BENCH_CLIENTS=100,1000,10000, BENCH_SECONDS=20 a window,
# BENCH_INTERVAL=5, BENCH_MINUTES=5, BENCH_ASLEEP=60, BENCH_LOGS_MINUTES=10, BENCH_CONTAINERS=50, BENCH_ENGINE=1, BENCH_STRICT=0; benches/fanout/main.rs says
# more. A glance: make bench-fanout BENCH_CLIENTS=100 BENCH_SECONDS=5 BENCH_MINUTES=1 BENCH_LOGS_MINUTES=1
bench-fanout: ## how the agent serves 10,000 clients, beside a bare server; says how long it will take
	@tests/setup/bench-fanout.sh

# Settings: BENCH_HOSTS=500, BENCH_INTERVAL=5, BENCH_SECONDS=20 a window, BENCH_CONTAINERS=10, BENCH_STEPS=1000,2000,5000,10000,
# BENCH_STEP_SECONDS=10, BENCH_MINUTES=8; benches/fleet/main.rs says more.
# A glance: make bench-fleet BENCH_SECONDS=5 BENCH_STEPS= BENCH_CONTAINERS=0
bench-fleet: ## 500 hosts by one NATS server, and how many more it takes; about 6 minutes beside the build
	@tests/setup/bench-fleet.sh

docs: ## writes docs/snapshot.md from the model's documentation
	UPDATE_DOCS=1 cargo test --locked --test integration docs::

lint: ## formatting, clippy, documentation, dependencies, shell scripts: all without a warning
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	# Without each of the optional parts, too.
	for features in '' nats watch; do \
		cargo clippy --locked --lib --bins --no-default-features --features "$$features" -- -D warnings || exit; \
	done
	# The examples, too: with them packages have the features that they have for clippy, and are not built again.
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --lib --bins --examples
	tests/setup/deny.sh
	@tests/setup/packages.sh shellcheck:shellcheck
	shellcheck .ci/run examples/*.sh tests/setup/*.sh tests/vm/*.sh

build: ## build the release binary, target/release/system-agent
	cargo build --locked --release

deb: ## build Debian's package, with the unit, a manual page and completions, in target/debian
	@tests/setup/deb.sh

test-deb: ## as root: install, run, upgrade and purge that package in a clean Debian
	@tests/setup/test-deb.sh

# Settings: SUITE=trixie or forky, PARTS="figures logs" for some parts; tests/vm/run.sh says more.
test-vm: ## as root: the package in a virtual machine with a current systemd, Docker and Podman; takes 40 minutes
	@tests/vm/run.sh $(PARTS)

image: ## build the image system-agent:latest, for config/compose.yml
	@tests/setup/agent-image.sh

picture: ## as root: draw docs/watch.svg, the README's picture, from a real run
	@tests/setup/picture.sh
