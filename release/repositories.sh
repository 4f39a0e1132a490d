#!/usr/bin/env bash
# Makes an apt repository and a dnf repository from the packages of a release. Both are directories of static files, for any web
# server: target/release-files/apt and target/release-files/dnf. Settings:
#
#   RELEASE_FILES      the directory of the packages and of the result, by default target/release-files
#   RELEASE_GPG_KEY    a file with an exported secret key without a passphrase. Without it the repositories are not signed
#   RELEASE_URL        the URL of RELEASE_FILES on the web server, for the file of the dnf repository
#   SOURCE_DATE_EPOCH  the time of all files, by default the time of the newest commit
#
# Without a signature the same packages give the same bytes. A signature contains its time.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
files=$(realpath "${RELEASE_FILES:-target/release-files}")
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
keyring=

fail() {
    echo "error: $1" >&2
    exit 1
}

cleanup() {
    if [[ $keyring ]]; then
        gpgconf --homedir "$keyring" --kill all
        rm -rf "$keyring"
    fi
}
trap cleanup EXIT

# Imports the key into a directory of its own, so that the user's keys are not touched.
import_key() {
    keyring=$(mktemp -d)
    gpg --homedir "$keyring" --batch --quiet --import "$1" || fail "$1 is not a key of GPG"
}

sign() {
    gpg --homedir "$keyring" --batch --yes --quiet --digest-algo SHA256 "$@"
}

# Prints the index of the packages in pool/ for the architecture $1.
packages_index() {
    local package
    for package in pool/*_"$1".deb; do
        dpkg-deb --field "$package"
        echo "Filename: $package"
        echo "Size: $(stat -c %s "$package")"
        echo "SHA256: $(sha256sum "$package" | cut -d ' ' -f 1)"
        echo
    done
}

make_apt() {
    local apt=$files/apt arch archs=() debs=("$files"/*.deb) index
    rm -rf "$apt"
    mkdir -p "$apt/pool"
    cp "${debs[@]}" "$apt/pool/"
    cd "$apt"
    for package in pool/*.deb; do
        archs+=("$(dpkg-deb --field "$package" Architecture)")
    done
    for arch in "${archs[@]}"; do
        index=dists/stable/main/binary-$arch
        mkdir -p "$index"
        packages_index "$arch" >"$index/Packages"
        gzip -9nk "$index/Packages"
    done
    (
        cd dists/stable
        echo 'Origin: System Agent'
        echo 'Label: System Agent'
        echo 'Suite: stable'
        echo 'Codename: stable'
        echo "Date: $(LC_ALL=C date --utc --date="@$epoch" '+%a, %d %b %Y %H:%M:%S UTC')"
        echo "Architectures: ${archs[*]}"
        echo 'Components: main'
        echo 'Description: Packages of System Agent'
        echo 'SHA256:'
        for index in main/binary-*/Packages*; do
            echo " $(sha256sum "$index" | cut -d ' ' -f 1) $(stat -c %s "$index") $index"
        done
    ) >Release.new
    mv Release.new dists/stable/Release
    if [[ $keyring ]]; then
        sign --clearsign --output dists/stable/InRelease dists/stable/Release
        sign --armor --detach-sign --output dists/stable/Release.gpg dists/stable/Release
        cp "$files/system-agent.asc" system-agent.asc
    fi
    cd "$OLDPWD"
}

make_dnf() {
    local dnf=$files/dnf
    rm -rf "$dnf"
    mkdir -p "$dnf"
    cp "$files"/*.rpm "$dnf/"
    # createrepo_c writes the times of the packages into the index.
    touch --date="@$epoch" "$dnf"/*.rpm
    createrepo_c --quiet --no-database --simple-md-filenames --revision "$epoch" --set-timestamp-to-revision "$dnf"
    {
        echo '[system-agent]'
        echo 'name=System Agent'
        echo "baseurl=${RELEASE_URL:-URL}/dnf"
        echo 'enabled=1'
        if [[ $keyring ]]; then
            echo 'repo_gpgcheck=1'
            echo 'gpgcheck=1'
            echo "gpgkey=${RELEASE_URL:-URL}/system-agent.asc"
        else
            echo 'gpgcheck=0'
        fi
    } >"$dnf/system-agent.repo"
    if [[ $keyring ]]; then
        sign --armor --detach-sign --output "$dnf/repodata/repomd.xml.asc" "$dnf/repodata/repomd.xml"
    fi
}

compgen -G "$files/*.deb" >/dev/null || fail "there is no package in $files; release/packages.sh makes them"
tests/setup/packages.sh dpkg-deb:dpkg createrepo_c:createrepo-c gpg:gpg
rm -f "$files/system-agent.asc"
if [[ ${RELEASE_GPG_KEY:-} ]]; then
    import_key "$RELEASE_GPG_KEY"
    # The public key, for the users of the repositories.
    gpg --homedir "$keyring" --batch --armor --export >"$files/system-agent.asc"
else
    echo 'RELEASE_GPG_KEY is not set: the repositories are not signed'
fi
make_apt
make_dnf
echo "made $files/apt and $files/dnf"
