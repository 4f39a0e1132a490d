#!/usr/bin/env bash
# `make deb`: builds target/debian/system-agent_VERSION_ARCH.deb from the binary, the unit, the manual pages and the completions.
#
#   deb.sh [PROFILE [REVISION]]
#
# PROFILE is a profile of cargo, by default release. REVISION is the revision of the Debian package, by default 1.
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
# The same unit as for an installation by hand. Only the path of the binary is different.
sed -e '/^#/d' -e 's|/usr/local/bin/|/usr/bin/|' config/system-agent.service >"$stage/system-agent.service"
# An asset and not a unit of `systemd-units`, which would enable and start it.
sed -e '/^#/d' -e 's|/usr/local/bin/|/usr/bin/|' config/system-agent-web.service >"$stage/system-agent-web.service"
cargo deb --quiet --no-build --no-strip --deb-revision "$revision"
