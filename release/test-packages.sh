#!/usr/bin/env bash
# Tests the packages of a release as root: installs, runs, upgrades and removes each in a tree below target/release-test, and prints
# a table. Needs the packages in target/release-files. It makes packages with an earlier revision to upgrade from.
#
# Debian and its package managers are the only ones that the developers can reach. So the packages for Fedora and Arch are tested with
# the real rpm, dnf, pacman and apk, but in trees of Debian. Debian has no apk, so it must be given: APK=/path/to/apk.
set -euo pipefail

cd "$(dirname "$(realpath "$0")")/.."
# shellcheck source=release/testing.sh
. release/testing.sh
trap stop_all EXIT
files=$PWD/target/release-files
before=$TEST/before
apk=${APK:-$(command -v apk || true)}
rows=()

# Adds a row to the table: package, where it was installed, result.
row() {
    rows+=("$1|$2|$3")
    echo "$1: $3"
}

# Prints the one file that matches the pattern $2 in the directory $1.
package() {
    local found
    found=$(compgen -G "$1/$2") || fail "there is no $1/$2"
    echo "$found"
}

# Runs a package manager, and prints its output only if it fails.
quietly() {
    "$@" >"$TEST/output.log" 2>&1 || fail "$* failed: $(tail -n 30 "$TEST/output.log")"
}

check_files() {
    local file
    for file in usr/bin/system-agent usr/share/man/man1/system-agent.1.gz usr/share/bash-completion/completions/system-agent \
        usr/share/system-agent/agent.env usr/share/system-agent/grafana/fleet.json "$@"; do
        [[ -s $tree/$file ]] || fail "/$file is not installed"
    done
    in_tree system-agent --version | grep -q -x "system-agent $version" || fail 'the program does not run'
}

# Runs the whole life of a package: install, run, upgrade, remove. $1, $2 and $3 are functions that install the old package,
# upgrade to the new one, and remove it. $4 is a port. The others are files that must be installed.
whole_life() {
    local install=$1 upgrade=$2 remove=$3 port=$4
    shift 4
    "$install"
    check_files "$@"
    check_configuration
    run_agent /usr/bin/system-agent "$port"
    change_configuration
    "$upgrade"
    check_files "$@"
    check_kept
    run_agent /usr/bin/system-agent "$((port + 1))"
    "$remove"
    [[ ! -e $tree/usr/bin/system-agent ]] || fail 'the removal left the program'
    check_kept
}

install_deb() {
    cp "$(package "$before" '*_amd64.deb')" "$tree/tmp/agent.deb"
    quietly in_tree dpkg --install /tmp/agent.deb
}

# The upgrade comes from the signed apt repository.
upgrade_deb() {
    cp "$signed/system-agent.asc" "$tree/etc/apt/keyrings/system-agent.asc"
    echo "deb [signed-by=/etc/apt/keyrings/system-agent.asc] $base/apt stable main" >"$tree/etc/apt/sources.list"
    quietly in_tree apt-get update
    quietly in_tree apt-get install -y system-agent
    # shellcheck disable=SC2016  # dpkg-query expands the word
    [[ $(in_tree dpkg-query -W -f '${Version}' system-agent) == "$version-1" ]] || fail 'apt did not upgrade the package'
}

remove_deb() {
    quietly in_tree dpkg --remove system-agent
}

test_deb() {
    new_tree debian
    listing() {
        in_tree sh -c 'cut -d: -f1 /etc/passwd | sort; ls /etc /etc/systemd/system | grep -v -e "-$"'
    }
    local clean after
    clean=$(listing)
    whole_life install_deb upgrade_deb remove_deb 29511 usr/lib/systemd/system/system-agent.service usr/share/zsh/vendor-completions/_system-agent
    [[ -L $tree/etc/systemd/system/multi-user.target.wants/system-agent.service ]] || fail 'the removal forgot that the service is enabled'
    quietly in_tree dpkg --purge system-agent
    after=$(listing)
    [[ $clean == "$after" ]] || fail "files or users remain after the purge: $(diff <(echo "$clean") <(echo "$after"))"
    row 'deb (amd64)' "Debian $(cat "$tree/etc/debian_version"), upgrade from the signed apt repository" 'installed, run, upgraded, removed, purged'
    # A changed index must be refused.
    rm -rf "$TEST/forged"
    cp -R "$signed/apt" "$TEST/forged"
    sed -i 's/^Description: .*/Description: forged/' "$TEST/forged/dists/stable/InRelease"
    serve "$TEST/forged"
    echo "deb [signed-by=/etc/apt/keyrings/system-agent.asc] $base stable main" >"$tree/etc/apt/sources.list"
    rm -rf "${tree:?}"/var/lib/apt/lists/*
    if in_tree apt-get update -o APT::Update::Error-Mode=any >"$TEST/output.log" 2>&1; then
        fail 'apt accepted a changed index'
    fi
    # The words of gpgv, and those of sqv in newer releases.
    grep -q -e BADSIG -e 'has been manipulated' "$TEST/output.log" || fail "apt refused the changed index for another reason: $(cat "$TEST/output.log")"
    rm -rf "$TEST/forged"
    row 'apt repository' 'a changed index' 'refused by apt'
    serve "$signed"
    drop_tree debian
}

rpm_in_tree() {
    quietly rpm --root "$tree" --nodeps "$@"
}

install_rpm() {
    rpm_in_tree --install "$(package "$before" '*.x86_64.rpm')"
}

# The upgrade comes from the signed dnf repository.
upgrade_rpm() {
    cat >"$TEST/repos/system-agent.repo" <<END
[system-agent]
name=System Agent
baseurl=$base/dnf
repo_gpgcheck=1
gpgcheck=1
gpgkey=$base/system-agent.asc
END
    quietly dnf --installroot "$tree" --releasever 1 --setopt=reposdir="$TEST/repos" --setopt=keepcache=0 \
        --setopt=cachedir="$TEST/dnf-cache" --setopt=module_platform_id=platform:f1 --forcearch x86_64 -y upgrade system-agent
    [[ $(rpm --root "$tree" -q --qf '%{RELEASE}' system-agent) == 1 ]] || fail 'dnf did not upgrade the package'
}

remove_rpm() {
    rpm_in_tree --erase system-agent
}

test_rpm() {
    if ! command -v dnf >/dev/null; then
        row 'rpm (x86_64)' 'dnf' 'not tried: there is no command dnf'
        return
    fi
    new_tree fedora
    rm -rf "$TEST/repos" "$TEST/dnf-cache"
    mkdir -p "$TEST/repos"
    whole_life install_rpm upgrade_rpm remove_rpm 29521 usr/lib/systemd/system/system-agent.service usr/share/zsh/site-functions/_system-agent
    row 'rpm (x86_64)' 'rpm and dnf in a tree of Debian, upgrade from the signed dnf repository' 'installed, run, upgraded, removed'
    drop_tree fedora
}

pacman_in_tree() {
    quietly pacman --root "$tree" --dbpath "$tree/var/lib/pacman" --cachedir "$TEST/pacman-cache" --gpgdir "$TEST/pacman-gpg" \
        --hookdir "$TEST/pacman-hooks" --config "$TEST/pacman.conf" --noconfirm "$@"
    if grep -q -i -e error -e 'command failed' "$TEST/output.log"; then
        fail "a script of the package failed: $(cat "$TEST/output.log")"
    fi
}

install_arch() {
    pacman_in_tree -U "$(package "$before" '*-x86_64.pkg.tar.zst')"
}

upgrade_arch() {
    pacman_in_tree -U "$(package "$files" '*-x86_64.pkg.tar.zst')"
}

remove_arch() {
    pacman_in_tree -R system-agent
}

test_arch() {
    if ! command -v pacman >/dev/null; then
        row 'Arch (x86_64)' 'pacman' 'not tried: there is no command pacman'
        return
    fi
    new_tree arch
    # The scripts of packages are for bash, which is /bin/sh on Arch.
    ln -sf bash "$tree/usr/bin/sh"
    mkdir -p "$tree/var/lib/pacman" "$TEST/pacman-cache" "$TEST/pacman-gpg" "$TEST/pacman-hooks"
    printf '%s\n' '[options]' 'Architecture = x86_64' 'LocalFileSigLevel = Never' >"$TEST/pacman.conf"
    whole_life install_arch upgrade_arch remove_arch 29531 usr/lib/systemd/system/system-agent.service usr/share/zsh/site-functions/_system-agent
    row 'Arch (x86_64)' 'pacman in a tree of Debian' 'installed, run, upgraded, removed'
    if command -v makepkg >/dev/null; then
        test_pkgbuild
    else
        row 'PKGBUILD' 'makepkg' 'not tried: there is no command makepkg'
    fi
    drop_tree arch
}

# Builds the package from PKGBUILD. makepkg refuses to run as root, and takes an archive that is beside PKGBUILD.
test_pkgbuild() {
    local work=$TEST/makepkg
    rm -rf "$work"
    mkdir -p "$work"
    cp "$files/PKGBUILD" "$files/system-agent.install" "$files"/system-agent-*-linux-x86_64.tar.gz "$work/"
    sed -i 's|"/system-agent-|"system-agent-|' "$work/PKGBUILD"
    chown -R nobody "$work"
    # The directories above it can belong to root only, so makepkg works below /tmp.
    local copy
    copy=$(mktemp -d)
    cp -a "$work/." "$copy/"
    chown nobody "$copy"
    quietly setpriv --reuid nobody --clear-groups env -C "$copy" HOME="$copy" CARCH=x86_64 PKGEXT=.pkg.tar.gz makepkg --nodeps --skippgpcheck
    pacman_in_tree -U "$(package "$copy" '*.pkg.tar.gz')"
    check_files usr/lib/systemd/system/system-agent.service
    check_kept
    remove_arch
    rm -rf "$copy" "$work"
    row 'PKGBUILD' 'makepkg of Debian' 'built, installed, removed'
}

apk_in_tree() {
    quietly "$apk" --root "$tree" --arch x86_64 --no-network "$@"
}

install_apk() {
    apk_in_tree add --allow-untrusted --initdb "$(package "$before" '*_x86_64.apk')"
}

# The package of the release is signed, and its key is trusted.
upgrade_apk() {
    install -D -m 0644 -t "$tree/etc/apk/keys" "$TEST/apk-keys/test.rsa.pub"
    apk_in_tree add "$(package "$signed" '*_x86_64.apk')"
}

remove_apk() {
    apk_in_tree del system-agent
}

test_apk() {
    if [[ ! $apk ]]; then
        row 'apk (x86_64)' 'apk' 'not tried: Debian has no apk; give it with APK=/path/to/apk'
        return
    fi
    new_tree alpine
    in_tree groupadd --system docker
    # The scripts of packages run in the shell of BusyBox, as on Alpine. The BusyBox of Debian has no adduser, so setup.sh uses useradd.
    ln -sf busybox "$tree/usr/bin/sh"
    whole_life install_apk upgrade_apk remove_apk 29541 etc/init.d/system-agent usr/share/zsh/site-functions/_system-agent
    grep -q '^docker:.*system-agent' "$tree/etc/group" || fail 'the user is not in the group docker'
    row 'apk (x86_64)' "$("$apk" --version | cut -d, -f1) in a tree of Debian, upgrade to a signed package" 'installed, run, upgraded, removed'
    drop_tree alpine
}

# Packages for other CPUs are installed in a foreign tree if the kernel can run it, or else only inspected.
test_foreign() {
    local package member
    for package in "$files"/*_arm64.deb; do
        [[ -e $package ]] || continue
        dpkg-deb --fsys-tarfile "$package" | tar -xO ./usr/bin/system-agent >"$TEST/foreign"
        chmod 0755 "$TEST/foreign"
        file_is_aarch64 "$TEST/foreign" || fail "$package has no program for aarch64"
        if command -v qemu-aarch64-static >/dev/null; then
            # The program needs the glibc of Debian for that CPU.
            [[ -d $TEST/libraries ]] || mmdebstrap --quiet --architectures=arm64 --variant=extract --include=libc6,libgcc-s1 bookworm "$TEST/libraries"
            qemu-aarch64-static -L "$TEST/libraries" "$TEST/foreign" --version | grep -q -x "system-agent $version" ||
                fail "the program in $package does not run"
            row 'deb (arm64)' 'unpacked' 'the program runs with qemu-user'
        else
            row 'deb (arm64)' 'unpacked' 'the program is for aarch64; not run: there is no qemu-aarch64-static'
        fi
    done
    for package in "$files"/*.aarch64.rpm "$files"/*_aarch64.apk "$files"/*-aarch64.pkg.tar.zst; do
        [[ -e $package ]] || continue
        if [[ $package == *.rpm ]]; then
            member=/usr/bin/system-agent
        else
            member=usr/bin/system-agent
        fi
        # The package for Alpine has the static program, and the others the program for glibc, if there is one.
        local expected=$TEST/foreign
        [[ $package != *.apk ]] || expected=$files/bin/aarch64/system-agent
        bsdtar -xOf "$package" "$member" 2>/dev/null | cmp -s - "$expected" || fail "$package has another program than $expected"
        row "${package##*.} (aarch64)" 'unpacked' 'has the right program'
    done
}

file_is_aarch64() {
    [[ $(od -An -j18 -N2 -tx1 "$1" | tr -d ' \n') == b700 ]]
}

# Loads the images into the engines of this machine, and runs the program. The images of the test are removed afterwards.
test_images() {
    local engine name image
    for engine in docker podman; do
        if ! command -v "$engine" >/dev/null || ! "$engine" info >/dev/null 2>&1; then
            row 'images' "$engine" "not tried: $engine does not run"
            continue
        fi
        for image in "$files"/system-agent-*-image-amd64.tar "$files"/system-agent-*-oci.tar; do
            # Docker reads the index of several architectures only with the image store of containerd.
            [[ $engine == docker && $image == *-oci.tar ]] && continue
            name=$("$engine" load --input "$image" 2>/dev/null | sed -n 's/^Loaded image.*: //p')
            [[ $name ]] || fail "$engine does not load $image"
            # The default limits of Podman are higher than a machine in a container allows.
            "$engine" run --rm --network host --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$name" --version >"$TEST/output.log" 2>&1 || true
            "$engine" rmi "$name" >"$TEST/rmi.log"
            if grep -q -x "system-agent $version" "$TEST/output.log"; then
                row "${image##*-}" "$("$engine" --version)" 'loaded, run'
            else
                fail "the image does not run with $engine: $(cat "$TEST/output.log")"
            fi
        done
    done
}

# Makes keys for this test, packages of an earlier revision, and a signed copy of the release.
prepare() {
    local home=$TEST/gpg
    rm -rf "$home" "$before" "$TEST/signed" "$TEST/apk-keys"
    mkdir -p "$home" "$TEST/apk-keys" "$before"
    chmod 0700 "$home"
    gpg --homedir "$home" --batch --quiet --passphrase '' --quick-gen-key 'Test of System Agent <test@example.org>' rsa3072 sign 1d
    gpg --homedir "$home" --batch --armor --export-secret-keys >"$home/key.asc"
    gpgconf --homedir "$home" --kill all
    openssl genrsa -traditional -out "$home/test.rsa" 2048 2>/dev/null
    openssl rsa -in "$home/test.rsa" -pubout -out "$TEST/apk-keys/test.rsa.pub" 2>/dev/null
    echo 'making packages with an earlier revision, and signed packages'
    RELEASE_FILES=$before RELEASE_REVISION=0 release/packages.sh >"$TEST/before.log"
    signed=$TEST/signed
    mkdir -p "$signed"
    RELEASE_FILES=$signed RELEASE_GPG_KEY=$home/key.asc RELEASE_APK_KEY=$home/test.rsa release/packages.sh >"$TEST/signed.log"
    RELEASE_FILES=$signed RELEASE_GPG_KEY=$home/key.asc release/repositories.sh >>"$TEST/signed.log"
}

((EUID == 0)) || fail 'missing: root (the test makes trees and enters them with chroot)'
tests/setup/packages.sh debootstrap:debootstrap mmdebstrap:mmdebstrap setpriv:util-linux rpm:rpm dnf:dnf pacman:pacman-package-manager makepkg:makepkg \
    bsdtar:libarchive-tools qemu-aarch64-static:qemu-user-static gpg:gpg openssl:openssl python3:python3
package "$files" '*_amd64.deb' >/dev/null
mkdir -p "$TEST"
stop_all
make_base
prepare
serve "$signed"
test_deb
test_rpm
test_arch
test_apk
test_foreign
test_images
row 'Ubuntu' 'debootstrap' 'not tried: this test uses only the mirror of Debian'
row 'Nix (release/flake.nix)' 'nix' 'not tried: Debian has no nixpkgs to build with'
echo
printf '%s\n' 'package|tried with|result' "${rows[@]}" | column -t -s '|'
