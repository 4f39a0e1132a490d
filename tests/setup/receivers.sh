#!/usr/bin/env bash
# Unpacks the receiver of OpenTelemetry that the tests start: victoria-metrics of a newer Debian, because Debian 12 does not have it. Nothing
# is installed: the package is unpacked into target/receivers.
#
# Without apt-get, or without a network, the script fails and says so.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/../.."
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/receivers
[[ -x $folder/victoria-metrics ]] && exit 0
command -v apt-get >/dev/null || { echo 'error: apt-get is missing' >&2; exit 1; }

work=$folder/work
mkdir -p "$work"/{lists/partial,archives/partial,packages}
# The mirror that this machine's own apt uses, as in tests/vm/image.sh. Some mirrors have an expired Release file of a testing suite.
mirror=${MIRROR:-$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)}
mirror=${mirror:-$(sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' /etc/apt/sources.list | head -1)}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys check-valid-until=no] $mirror forky main" >"$work/sources.list"
# A package list and a cache of their own, so that the machine's package manager does not change.
options=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$work/lists"
    -o "Dir::Cache::Archives=$work/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
log=$work/log
download() {
    apt-get "${options[@]}" update &&
        cd "$work/packages" && apt-get "${options[@]}" download victoria-metrics
}
if ! (download) >"$log" 2>&1; then
    cat "$log" >&2
    echo 'error: apt-get could not download victoria-metrics; its output is above' >&2
    exit 1
fi
dpkg -x "$work"/packages/victoria-metrics_*.deb "$work/root"
cp "$work/root/usr/bin/victoria-metrics" "$folder/victoria-metrics"
rm -r "$work"
