#!/usr/bin/env bash
# Behind `make deb`: target/debian/system-agent_VERSION_ARCH.deb, of the binary, the unit, the manual page and completions.
#
#   deb.sh [PROFILE [REVISION]]     PROFILE as cargo's: release unless another is named
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/../.."
profile=${1:-release}
revision=${2:-1}
readonly stage=target/deb

if ! cargo deb --version >/dev/null 2>&1; then
    echo 'installing cargo-deb'
    cargo install --quiet --locked cargo-deb
fi
cargo build --locked --profile "$profile"
rm -rf "$stage"
mkdir -p "$stage"
cp "${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}/system-agent" "$stage/"
cargo run --quiet --locked --example pages -- "$stage"
gzip -9n "$stage"/*.1
cp config/debian/postinst config/debian/postrm "$stage/"
# The same unit as for an installation by hand, but for the place of the binary.
sed -e '/^#/d' -e 's|/usr/local/bin/|/usr/bin/|' config/system-agent.service >"$stage/system-agent.service"
cargo deb --quiet --no-build --no-strip --deb-revision "$revision"
