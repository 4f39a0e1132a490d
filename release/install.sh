#!/bin/sh
# Installs, upgrades or removes System Agent from the archive of a release. `install.sh --help` lists the options.
#
# The braces make the shell read the whole file before it runs anything. A cut download is a syntax error and changes nothing.
{
set -eu
umask 022

# The maintainer sets both values. release/packages.sh does it from the variables RELEASE_URL and RELEASE_PUBLIC_KEY.
# The directory of the release: SHA256SUMS, SHA256SUMS.minisig and the archives.
RELEASE_URL=''
# The public key of minisign: the second line of minisign.pub.
PUBLIC_KEY=''

usage() {
    cat <<'END'
Installs System Agent, or upgrades it. An upgrade keeps the configuration and the API key.

Usage: install.sh [OPTIONS]

  --url URL         The directory of the release: http://, https:// or file://
  --version VERSION Install this version, and no other. By default the version of the release
  --prefix DIR      Install below this directory, by default /usr/local. The configuration is always in /etc/system-agent
  --public-key KEY  The public key of minisign that signed SHA256SUMS
  --no-verify       Install without checking the signature. The checksum is still checked
  --no-start        Do not enable and start the service
  --uninstall       Remove the program and the service. Keep the configuration
  --purge           With --uninstall: also remove the configuration, the data and the user
  --dry-run         Print what would be done, and change nothing
  --help            Print this text

The signature is checked by minisign, or by openssl 3 or later.
END
}

say() {
    printf '%s\n' "$*"
}

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# Runs a command that changes the host, or prints it with --dry-run.
run() {
    if [ "$dry_run" ]; then
        say "would run: $*"
    else
        "$@"
    fi
}

read_options() {
    url=$RELEASE_URL public_key=$PUBLIC_KEY version='' prefix=/usr/local
    verify=1 start=1 uninstall='' purge='' dry_run=''
    while [ $# -gt 0 ]; do
        case $1 in
        --url | --version | --prefix | --public-key)
            [ "${2:-}" ] || fail "$1 needs a value"
            case $1 in
            --url) url=$2 ;;
            --version) version=${2#v} ;;
            --prefix) prefix=$2 ;;
            --public-key) public_key=$2 ;;
            esac
            shift
            ;;
        --no-verify) verify='' ;;
        --no-start) start='' ;;
        --uninstall) uninstall=1 ;;
        --purge) purge=1 ;;
        --dry-run) dry_run=1 ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) fail "unknown option: $1; --help lists the options" ;;
        esac
        shift
    done
    case $prefix in
    / | *' '* | *'|'*) fail "the prefix $prefix cannot be used: it is / or has a space" ;;
    /*) prefix=${prefix%/} ;;
    *) fail "the prefix $prefix is not an absolute path" ;;
    esac
    [ ! "$purge" ] || [ "$uninstall" ] || fail '--purge needs --uninstall'
    url=${url%/}
    share=$prefix/share/system-agent
    manifest=$share/installed-files
    # Exists while files are replaced, and until the service has started.
    pending=$share/pending
}

detect_host() {
    [ "$(uname -s)" = Linux ] || fail "System Agent runs only on Linux, and this is $(uname -s)"
    case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    armv7* | armv8l) arch=armv7 ;;
    riscv64) arch=riscv64 ;;
    *) fail "there is no archive for the architecture $(uname -m)" ;;
    esac
    # A chroot and some containers have the commands of an init, but it does not run.
    running=1
    if [ -d /run/systemd/system ] && has systemctl; then
        service_manager=systemd
    elif [ -e /run/openrc/softlevel ] && has rc-service; then
        service_manager=openrc
    else
        running=''
        if has systemctl; then
            service_manager=systemd
        elif has rc-service; then
            service_manager=openrc
        else
            service_manager=none
        fi
    fi
    case $service_manager in
    systemd) service=/etc/systemd/system/system-agent.service ;;
    openrc) service=/etc/init.d/system-agent ;;
    none) service='' ;;
    esac
}

# Two installations would use the same port and the same configuration.
refuse_other_installation() {
    packager=''
    # shellcheck disable=SC2016  # dpkg-query expands the word
    if has dpkg-query && [ "$(dpkg-query -W -f '${db:Status-Status}' system-agent 2>/dev/null || true)" = installed ]; then
        packager=dpkg
    elif has rpm && rpm -q system-agent >/dev/null 2>&1; then
        packager=rpm
    elif has apk && apk info -e system-agent >/dev/null 2>&1; then
        packager=apk
    elif has pacman && pacman -Q system-agent >/dev/null 2>&1; then
        packager=pacman
    fi
    [ ! "$packager" ] ||
        fail "system-agent is already installed as a package ($packager). Upgrade or remove it with the package manager"
    if [ "$service" ] && [ -e "$service" ] && ! grep -q "=$prefix/bin/system-agent" "$service"; then
        fail "$service belongs to an installation with another prefix. Use its --prefix, or remove it first"
    fi
}

# Writes the file $1 of the release into $work.
download() {
    case $url in
    file://*) cp "${url#file://}/$1" "$work/$1" 2>/dev/null || return 1 ;;
    *)
        if has curl; then
            curl --fail --silent --show-error --location --proto '=http,https' --retry 2 --output "$work/$1" "$url/$1" || return 1
        elif has wget; then
            wget -q -O "$work/$1" "$url/$1" || return 1
        else
            fail 'missing command: curl or wget'
        fi
        ;;
    esac
}

# Fails unless SHA256SUMS has a signature by the public key.
#
# There is one signature, by minisign. A plain system often has no minisign, but has openssl. A signature by minisign is Ed25519
# over the BLAKE2b hash of the file, which openssl 3 can check. openssl 1.1.1 has no command for Ed25519.
check_signature() {
    [ "$public_key" ] || fail 'there is no public key to check the signature with. Give it with --public-key, or use --no-verify'
    download SHA256SUMS.minisig || fail "$url has no signature (SHA256SUMS.minisig). --no-verify installs without one"
    if has minisign; then
        minisign -V -q -P "$public_key" -m "$work/SHA256SUMS" >/dev/null 2>&1 || fail 'the signature of SHA256SUMS is wrong'
    elif has openssl && openssl pkeyutl -help 2>&1 | grep -q -e -rawin; then
        check_signature_by_openssl || fail 'the signature of SHA256SUMS is wrong'
    else
        fail 'nothing here can check the signature: install minisign or openssl 3. --no-verify installs without the check'
    fi
}

check_signature_by_openssl() {
    # The key has 42 bytes: "Ed", 8 bytes of the key's name, and 32 bytes of the key. The signature has 74 bytes: the algorithm, the
    # key's name, and 64 bytes of the signature.
    printf '%s\n' "$public_key" | openssl base64 -d -A >"$work/key" || return 1
    sed -n 2p "$work/SHA256SUMS.minisig" | openssl base64 -d -A >"$work/signature" || return 1
    [ "$(wc -c <"$work/key")" -eq 42 ] && [ "$(wc -c <"$work/signature")" -eq 74 ] || return 1
    [ "$(cut_bytes key 3 8)" = "$(cut_bytes signature 3 8)" ] || return 1
    case $(cut_bytes signature 1 2) in
    # "ED": the signed text is the hash of the file.
    4544) openssl dgst -blake2b512 -binary "$work/SHA256SUMS" >"$work/signed" || return 1 ;;
    # "Ed": the signed text is the file.
    4564) cp "$work/SHA256SUMS" "$work/signed" ;;
    *) return 1 ;;
    esac
    # The 12 bytes before the key say in DER that it is an Ed25519 key.
    {
        printf '\060\052\060\005\006\003\053\145\160\003\041\000'
        tail -c 32 "$work/key"
    } >"$work/key.der"
    tail -c 64 "$work/signature" >"$work/signature.raw"
    openssl pkeyutl -verify -pubin -keyform DER -inkey "$work/key.der" -rawin -in "$work/signed" \
        -sigfile "$work/signature.raw" >/dev/null 2>&1
}

# Prints $3 bytes of the file $work/$1 from byte $2, as hexadecimal digits.
cut_bytes() {
    tail -c "+$2" "$work/$1" | head -c "$3" | od -An -tx1 | tr -d ' \n'
}

# Downloads and unpacks the archive, and sets tree to its directory.
fetch_release() {
    [ "$url" ] || fail 'there is no URL to install from. Give it with --url'
    case $url in
    http://* | https://* | file:///*) ;;
    *) fail "the URL $url does not begin with http://, https:// or file:///" ;;
    esac
    download SHA256SUMS || fail "$url/SHA256SUMS cannot be downloaded"
    if [ "$verify" ]; then
        check_signature
    else
        say "warning: the signature of the release is not checked"
    fi
    versions=$(sed -n "s/^[0-9a-f]\{64\} [ *]system-agent-\([0-9][0-9A-Za-z.+-]*\)-linux-$arch\.tar\.gz\$/\1/p" "$work/SHA256SUMS")
    [ "$versions" ] || fail "$url has no archive for $arch"
    if [ ! "$version" ]; then
        version=$(printf '%s\n' "$versions" | tail -n 1)
        refuse_older
    elif ! printf '%s\n' "$versions" | grep -q -x -F -e "$version"; then
        fail "$url does not have version $version. It has: $(printf '%s\n' "$versions" | tr '\n' ' ')"
    fi
    archive=system-agent-$version-linux-$arch.tar.gz
    download "$archive" || fail "$url/$archive cannot be downloaded"
    has sha256sum || fail 'missing command: sha256sum'
    sum=$(sha256sum "$work/$archive" | cut -d ' ' -f 1)
    grep -q -x -F -e "$sum  $archive" -e "$sum *$archive" "$work/SHA256SUMS" || fail "the checksum of $archive is wrong"
    mkdir "$work/tree"
    gzip -dc "$work/$archive" | tar -xf - -C "$work/tree" || fail "$archive cannot be unpacked"
    tree=$work/tree/${archive%.tar.gz}
    "$tree/system-agent" --version >/dev/null 2>&1 ||
        fail "the program in $archive does not run in $work. If programs are not allowed there (noexec), set TMPDIR to another directory"
}

# An old release has a right signature too. A server must not replace a newer version by it.
refuse_older() {
    installed=$("$prefix/bin/system-agent" --version 2>/dev/null | sed -n 's/^system-agent //p')
    [ "$installed" ] || return 0
    [ "$installed" != "$version" ] || return 0
    # A pre-release (1.0.0-rc.1) comes before its release: sort -V puts a tilde before everything, also before the end. Build metadata do
    # not count.
    ordered=$(printf '%s\n' "$installed" "$version" | sed 's/+.*//; s/-/~/' | sort -V 2>/dev/null) || ordered=''
    [ "$ordered" ] || say 'warning: sort has no option -V, so it is not checked whether the release is older than the installed version'
    case $(printf '%s\n' "$ordered" | tail -n 1) in
    '' | "$(printf '%s\n' "$version" | sed 's/+.*//; s/-/~/')") ;;
    *) fail "version $installed is installed, and $url has only the older version $version. To install that one, use --version $version" ;;
    esac
}

# Installs the file $2 as $3 with the mode $1, if the two differ. The rename replaces the file in one step, also while it runs.
put() {
    installed="$installed$3
"
    if cmp -s "$2" "$3"; then
        return
    fi
    changed=1
    if [ "$dry_run" ]; then
        say "would install: $3"
        return
    fi
    mkdir -p "$share"
    [ -e "$pending" ] || printf '%s\n' "$first" >"$pending"
    mkdir -p "$(dirname "$3")"
    cp "$2" "$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
    if has restorecon; then
        restorecon "$3" || true
    fi
}

install_files() {
    installed='' changed=''
    # An earlier run was interrupted after it had replaced files.
    [ ! -e "$pending" ] || changed=1
    put 0755 "$tree/system-agent" "$prefix/bin/system-agent"
    for page in "$tree"/man/*.1.gz; do
        put 0644 "$page" "$prefix/share/man/man1/$(basename "$page")"
    done
    put 0644 "$tree/completions/system-agent.bash" "$prefix/share/bash-completion/completions/system-agent"
    put 0644 "$tree/completions/_system-agent" "$prefix/share/zsh/site-functions/_system-agent"
    put 0644 "$tree/completions/system-agent.fish" "$prefix/share/fish/vendor_completions.d/system-agent.fish"
    put 0644 "$tree/agent.env" "$share/agent.env"
    put 0644 "$tree/web.env" "$share/web.env"
    put 0755 "$tree/setup.sh" "$share/setup.sh"
    sed -i "s|/usr/local/bin/|$prefix/bin/|" "$tree"/*.service "$tree/openrc/system-agent"
    case $service_manager in
    systemd)
        put 0644 "$tree/system-agent.service" "$service"
        put 0644 "$tree/system-agent-web.service" /etc/systemd/system/system-agent-web.service
        ;;
    openrc) put 0755 "$tree/openrc/system-agent" "$service" ;;
    esac
}

# Writes the list of files for --uninstall, and removes the files of the version before that this version does not have.
write_manifest() {
    printf '%s' "$installed" >"$work/installed-files"
    if [ -e "$manifest" ]; then
        grep -v -x -F -f "$work/installed-files" "$manifest" | while IFS= read -r file; do
            rm -f "$file"
        done
    fi
    cp "$work/installed-files" "$manifest"
}

# The first installation enables and starts the service. An upgrade restarts only a service that runs, because an operator can have
# stopped it.
start_service() {
    case $service_manager$running in
    systemd1)
        run systemctl daemon-reload
        if [ "$start" ] && [ "$first" = first ]; then
            run systemctl enable --quiet system-agent.service
            run systemctl restart system-agent.service
        elif [ "$start" ]; then
            run systemctl try-restart system-agent.service system-agent-web.service
        fi
        ;;
    openrc1)
        if [ "$start" ] && [ "$first" = first ]; then
            run rc-update --quiet add system-agent default
            run rc-service system-agent restart
        elif [ "$start" ]; then
            run rc-service --ifstarted system-agent restart
        fi
        ;;
    esac
}

# Tells how to start the agent where this script does not start it.
tell_start() {
    case $service_manager$running$start in
    systemd11 | openrc11) ;;
    systemd*) say 'Start it:         systemctl enable --now system-agent' ;;
    openrc*) say 'Start it:         rc-update add system-agent && rc-service system-agent start' ;;
    none*)
        say 'This host has neither systemd nor OpenRC. Start the agent as root, for example in /etc/rc.local:'
        say "                  (set -a; . /etc/system-agent/agent.env; exec su -m -s /bin/sh system-agent -c 'exec $prefix/bin/system-agent run')"
        ;;
    esac
}

install_release() {
    refuse_other_installation
    fetch_release
    first=first
    [ ! -e "$manifest" ] || first=upgrade
    # The service of a first installation has not started yet.
    [ ! -e "$pending" ] || [ "$(cat "$pending")" != first ] || first=first
    new_key=1
    [ ! -e /etc/system-agent/agent.env ] || new_key=''
    install_files
    if [ "$dry_run" ]; then
        say "would run: $share/setup.sh $first"
        start_service
        say "would have installed System Agent $version; nothing was changed"
        return
    fi
    sh "$share/setup.sh" "$first"
    if [ "$first" = upgrade ] && [ ! "$changed" ] && [ ! "$new_key" ]; then
        rm -f "$pending"
        say "System Agent $version is already installed; nothing was changed"
        return
    fi
    write_manifest
    start_service || fail 'the service does not start. Its log says why. Mend the cause, and run this script again'
    rm -f "$pending"
    say "System Agent $version is installed in $prefix"
    if [ "$new_key" ]; then
        # The operator needs the key once, for the first client.
        say "The API key:      $(sed -n 's/^API_KEY=//p' /etc/system-agent/agent.env)"
    fi
    say 'Show the key:     grep ^API_KEY= /etc/system-agent/agent.env'
    tell_start
    say "Look at the host: $prefix/bin/system-agent watch 127.0.0.1"
}

uninstall() {
    if [ -e "$manifest" ]; then
        case $service_manager in
        systemd)
            for unit in system-agent.service system-agent-web.service; do
                [ -e "/etc/systemd/system/$unit" ] || continue
                if [ "$running" ]; then
                    run systemctl disable --quiet --now "$unit"
                else
                    run systemctl disable --quiet "$unit"
                fi
            done
            ;;
        openrc)
            [ ! "$running" ] || [ ! -e "$service" ] || run rc-service --ifstarted system-agent stop
            run rc-update --quiet delete system-agent default || true
            ;;
        esac
        while IFS= read -r file; do
            [ ! -e "$file" ] || run rm -f "$file"
        done <"$manifest"
        run rm -rf "$share"
        [ ! "$running" ] || [ "$service_manager" != systemd ] || run systemctl daemon-reload
        say "System Agent was removed from $prefix"
    else
        say "System Agent is not installed in $prefix"
    fi
    if [ "$purge" ]; then
        run rm -rf /etc/system-agent /var/lib/system-agent /var/lib/system-agent-web /var/lib/private/system-agent-web
        if id system-agent >/dev/null 2>&1; then
            remove_user=userdel
            has userdel || remove_user=deluser
            run "$remove_user" system-agent || fail 'the user system-agent still runs a program. Stop it, and repeat this command'
        fi
        say 'The configuration, the data and the user were removed'
    elif [ -e /etc/system-agent/agent.env ]; then
        say 'The configuration and the API key stay in /etc/system-agent. --purge removes them'
    fi
}

main() {
    read_options "$@"
    detect_host
    [ "$(id -u)" -eq 0 ] || [ "$dry_run" ] || fail 'only root can install System Agent. Run this script as root, for example with sudo'
    if [ "$uninstall" ]; then
        refuse_other_installation
        uninstall
        [ ! "$dry_run" ] || say 'nothing was changed'
        return
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    install_release
}

main "$@"
exit
}
