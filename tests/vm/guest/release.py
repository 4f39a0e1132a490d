"""install.sh of a release, from a web server on the host of the virtual machine."""
import time

import vm
from vm import note, read, row, run, shell, succeeds, wait

URL = read('/root/release-url', '').strip()
KEY = read('/root/public-key', '').strip()
SERVICE = ('systemctl', 'is-active', '--quiet', 'system-agent')


def install(*options):
    options = ' '.join(options)
    return shell(f'cd /tmp && curl -fsSO {URL}/install.sh && sh install.sh --url {URL} --public-key {KEY} {options} 2>&1')


def key():
    return next(line for line in read(vm.ENV).splitlines() if line.startswith('API_KEY='))


def first_snapshot():
    """Asks the installed agent for a snapshot as the operator would, with the key from the file."""
    shown = shell(f'exec 3<>/dev/tcp/127.0.0.1/9000; echo "{key().split("=", 1)[1]}" >&3; timeout 30 head -n 1 <&3', check=False)
    return shown if shown.startswith('{"timestamp"') else ''


def part_install():
    # The package of the other parts has the same service.
    shell('DEBIAN_FRONTEND=noninteractive apt-get purge -y system-agent 2>&1', check=False)
    row('nothing is installed before', not succeeds('which', 'system-agent'))

    before = shell('find / -xdev -newer /root/release-url \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log \\) '
                   '-prune -o -type f -path "*system-agent*" -print')
    told = install('--dry-run')
    after = shell('find / -xdev -newer /root/release-url \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log \\) '
                  '-prune -o -type f -path "*system-agent*" -print')
    row('--dry-run changes nothing', before == after and 'nothing was changed' in told, told[-200:])

    begun = time.monotonic()
    told = install()
    installed = time.monotonic() - begun
    wait('a snapshot', first_snapshot, 60)
    watched = time.monotonic() - begun
    row('one command installs and starts the service', succeeds(*SERVICE))
    row('from nothing to a snapshot with this emulated processor', watched < 600, f'{installed:.0f} s for install.sh, {watched:.0f} s in all')
    row('the key is printed once', told.count(key().split('=', 1)[1]) == 1)
    row('the service is started at boot', run('systemctl', 'is-enabled', 'system-agent') == 'enabled')
    row('the service can read the containers', '"docker":{"status":"ok"' in first_snapshot(), first_snapshot()[-600:])

    kept = key()
    process = run('systemctl', 'show', 'system-agent', '--property=MainPID', '--value')
    told = install()
    row('a second run changes nothing', 'nothing was changed' in told and key() == kept
        and run('systemctl', 'show', 'system-agent', '--property=MainPID', '--value') == process, told[-200:])

    wrong = 'RWQ' + 'A' * 53
    refused = shell(f'cd /tmp && sh install.sh --url {URL} --public-key {wrong} 2>&1; echo "status $?"')
    row('another public key is refused', refused.endswith('status 1') and 'signature' in refused, refused[-200:])

    shell('cd /tmp && sh install.sh --uninstall 2>&1')
    row('--uninstall removes the program and keeps the configuration', not succeeds(*SERVICE) and not succeeds('which', 'system-agent')
        and key() == kept)
    told = install()
    wait('a snapshot', first_snapshot, 60)
    row('a later installation uses the old configuration', key() == kept)
    shell('cd /tmp && sh install.sh --uninstall --purge 2>&1')
    row('--purge removes the configuration and the user', not succeeds('id', 'system-agent') and not succeeds('test', '-e', vm.ENV))
    note('install.sh was tried')
