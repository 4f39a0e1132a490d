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
# What is said by hand elsewhere is said by the package here: where the binary is, and that the user is a member of the group.
sed -e '/^#/d' -e 's|/usr/local/bin/|/usr/bin/|' -e '/^SupplementaryGroups=/d' -e '/^DynamicUser=/d' \
    config/system-agent.service >"$stage/system-agent.service"
cargo deb --quiet --no-build --no-strip --deb-revision "$revision"
