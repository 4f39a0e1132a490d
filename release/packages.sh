#!/usr/bin/env bash
# Makes the packages of a release from the binaries: deb, rpm, apk, a package for Arch, and an archive for each architecture.
#
# The binaries are target/release-files/bin/ARCH/system-agent, which is static, and target/release-files/glibc/ARCH/system-agent. The
# packages for Debian, Fedora and Arch get the second one if it exists, because only that one can load the libraries for NVIDIA GPUs and for
# the systemd journal. An architecture without a static binary is left out. The same input gives the same bytes. Settings:
#
#   RELEASE_REVISION   the revision of the packages, by default 1
#   RELEASE_FILES      the directory of the result, by default target/release-files
#   RELEASE_URL        the URL of the release's directory, for install.sh and PKGBUILD
#   RELEASE_PUBLIC_KEY the public key of minisign, for install.sh
#   RELEASE_HOMEPAGE   the URL in the packages
#   RELEASE_GPG_KEY    a file with an exported secret key without a passphrase, to sign rpm packages
#   RELEASE_APK_KEY    a file with an RSA private key in PEM, to sign apk packages; its public key must have the name FILE.pub
#   SOURCE_DATE_EPOCH  the time of all files, by default the time of the newest commit
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
readonly NFPM=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.4
files=$(realpath -m "${RELEASE_FILES:-target/release-files}")
binaries=$PWD/target/release-files/bin
glibc=$PWD/target/release-files/glibc
revision=${RELEASE_REVISION:-1}
stage=$files/stage
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

fail() {
    echo "error: $1" >&2
    exit 1
}

# Prints the architecture's name in Go, which nfpm translates to the name in each kind of package.
go_arch() {
    case $1 in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    armv7) echo arm7 ;;
    riscv64) echo riscv64 ;;
    *) fail "unknown architecture: $1" ;;
    esac
}

find_nfpm() {
    nfpm=$PWD/target/release-tools/nfpm
    [[ -x $nfpm ]] && return
    tests/setup/packages.sh go:golang-go
    echo "building ${NFPM##*/}"
    # nfpm needs Go 1.25. An older Go, from 1.21 on, downloads it.
    GOTOOLCHAIN=auto GOBIN=${nfpm%/*} GOFLAGS=-mod=mod go install "$NFPM" || fail "go install $NFPM failed; it needs Go 1.21 or later"
}

# Puts the files that are the same for every architecture into $stage/common.
stage_common() {
    local common=$stage/common
    mkdir -p "$common"/{man,completions,scripts,units,openrc,grafana,smart}
    cargo run --quiet --locked --example pages -- "$common/man"
    mv "$common"/man/{system-agent.bash,_system-agent,system-agent.fish} "$common/completions/"
    gzip -9n "$common"/man/*.1
    cp config/agent.env config/web.env config/setup.sh config/prometheus-rules.yml README.md CHANGELOG.md LICENSE-* "$common/"
    cp config/grafana/*.json "$common/grafana/"
    cp config/smart/* "$common/smart/"
    cp config/openrc/system-agent "$common/openrc/"
    cp config/system-agent.service config/system-agent-web.service "$common/units/"
    cp release/scripts/* "$common/scripts/"
    # cargo-deb replaces the line #DEBHELPER# by the commands for the unit. This does the same.
    local script
    for script in postinst postrm; do
        sed -e "/^#DEBHELPER#$/{r release/scripts/$script.systemd" -e 'd}' "config/debian/$script" >"$common/scripts/$script"
    done
    {
        printf 'System Agent is licensed under MIT or Apache-2.0, at your option. On Debian, the text of Apache-2.0 is in\n'
        printf '/usr/share/common-licenses/Apache-2.0. The text of MIT:\n\n'
        cat LICENSE-MIT
    } >"$common/copyright"
}

# Gives all files in the directory $1 the same time, and modes that do not depend on the umask.
normalize() {
    find "$1" -type d -exec chmod 0755 {} +
    find "$1" -type f -exec chmod 0644 {} +
    find "$1" \( -path '*/system-agent' -o -name '*.sh' \) -type f -exec chmod 0755 {} +
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# Makes the archive of the architecture $1.
make_archive() {
    local name=system-agent-$version-linux-$1 tree
    tree=$stage/archive/$name
    mkdir -p "$tree"
    cp -R "$stage"/common/{man,completions,openrc,grafana,smart} "$tree/"
    cp "$stage"/common/units/*.service "$stage"/common/{agent.env,web.env,setup.sh,prometheus-rules.yml,README.md,CHANGELOG.md} \
        "$stage"/common/LICENSE-* "$tree/"
    cp "$binaries/$1/system-agent" "$tree/"
    normalize "$tree"
    tar -C "$stage/archive" --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c "$name" |
        gzip -9n >"$files/$name.tar.gz"
}

# Makes the packages of the architecture $1.
make_packages() {
    local tree=$stage/$1 kind
    cp -R "$stage/common" "$tree"
    cp "$binaries/$1/system-agent" "$tree/"
    # The units and the init script name the path of an installation by hand.
    sed -i -e '/^#/d' -e 's|/usr/local/bin/|/usr/bin/|' "$tree"/units/*.service
    sed -i 's|/usr/local/bin/|/usr/bin/|' "$tree/openrc/system-agent"
    normalize "$tree"
    local arch
    arch=$(go_arch "$1")
    for kind in apk deb rpm archlinux; do
        # The package for Alpine comes first, because Alpine has no glibc.
        if [[ $kind == deb && -e $glibc/$1/system-agent ]]; then
            cp "$glibc/$1/system-agent" "$tree/"
            normalize "$tree"
        fi
        (
            cd "$tree"
            PACKAGE_ARCH=$arch PACKAGE_VERSION=$version PACKAGE_REVISION=$revision \
                PACKAGE_HOMEPAGE=${RELEASE_HOMEPAGE:-} PACKAGE_RPM_KEY=${RELEASE_GPG_KEY:-} \
                PACKAGE_APK_KEY=${RELEASE_APK_KEY:-} \
                "$nfpm" package --config "$stage/nfpm.yaml" --packager "$kind" --target "$files/" >"$stage/nfpm.log" 2>&1
        ) || fail "nfpm failed: $(cat "$stage/nfpm.log")"
    done
}

# Writes the files for makepkg, for the archives of this release.
make_pkgbuild() {
    local sum_x86_64 sum_aarch64
    sum_x86_64=$(sum "system-agent-$version-linux-x86_64.tar.gz")
    sum_aarch64=$(sum "system-agent-$version-linux-aarch64.tar.gz")
    sed -e "s|@VERSION@|$version|" -e "s|@REVISION@|$revision|" -e "s|@URL@|${RELEASE_URL:-}|" -e "s|@HOMEPAGE@|${RELEASE_HOMEPAGE:-}|" \
        -e "s|@SUM_x86_64@|$sum_x86_64|" -e "s|@SUM_aarch64@|$sum_aarch64|" release/PKGBUILD >"$files/PKGBUILD"
    local hook
    for hook in post_install:arch-post-install post_upgrade:arch-post-upgrade pre_remove:arch-pre-remove; do
        printf '%s() {\n' "${hook%%:*}"
        sed 's/^./    &/' "release/scripts/${hook#*:}"
        printf '}\n'
    done >"$files/system-agent.install"
}

sum() {
    if [[ -e $files/$1 ]]; then
        sha256sum "$files/$1" | cut -d ' ' -f 1
    else
        # makepkg refuses every archive with this checksum.
        printf '0%.0s' {1..64}
    fi
}

[[ $version ]] || fail 'Cargo.toml has no version'
if [[ ${RELEASE_APK_KEY:-} ]]; then
    RELEASE_APK_KEY=$(realpath "$RELEASE_APK_KEY")
    apk_key_name=${RELEASE_APK_KEY##*/}.pub
fi
[[ ! ${RELEASE_GPG_KEY:-} ]] || RELEASE_GPG_KEY=$(realpath "$RELEASE_GPG_KEY")
find_nfpm
rm -rf "$stage"
mkdir -p "$stage"
find "$files" -maxdepth 1 -type f \( -name '*.deb' -o -name '*.rpm' -o -name '*.apk' -o -name '*.pkg.tar.zst' -o \
    -name 'system-agent-*-linux-*.tar.gz' \) -delete
sed "s|@APK_KEY_NAME@|${apk_key_name:-}|" release/nfpm.yaml >"$stage/nfpm.yaml"
stage_common
found=
for binary in "$binaries"/*/system-agent; do
    [[ -e $binary ]] || continue
    found=1
    arch=$(basename "$(dirname "$binary")")
    make_archive "$arch"
    if readelf --wide --program-headers "$binary" | grep -q INTERP; then
        echo "no packages for $arch: the binary is not static"
        continue
    fi
    make_packages "$arch"
done
[[ $found ]] || fail "there is no binary in $binaries"
make_pkgbuild
# The file on the web server has the URL and the public key, so that users need no options.
sed -e "s|^RELEASE_URL=.*|RELEASE_URL='${RELEASE_URL:-}'|" -e "s|^PUBLIC_KEY=.*|PUBLIC_KEY='${RELEASE_PUBLIC_KEY:-}'|" \
    release/install.sh >"$files/install.sh"
chmod 0755 "$files/install.sh"
rm -rf "$stage"
(cd "$files" && ls -l --time-style=+ ./*.tar.gz ./*.deb ./*.rpm ./*.apk ./*.pkg.tar.zst)
