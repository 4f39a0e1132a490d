"""The unit of the page: system-agent-web.service."""
import json
import os
import re
import time
import urllib.request

from vm import ENV, read, row, run, shell, wait, write

PAGE = 'system-agent-web'
STATE = '/var/lib/system-agent-web'
HOSTS = 'http://127.0.0.1:9180/api/v1/hosts'


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def live():
    """The row of this host, if its snapshots arrive."""
    try:
        rows = get(HOSTS)['hosts']
    except OSError:
        return None
    return next((one for one in rows if one['state'] == 'live' and one['cpu'] is not None), None)


def known(host, begin):
    """The times since `begin` at which the history has a figure of the CPU."""
    url = f'{HOSTS}/{host}/history?series=cpu&points=5000&from={begin}&to={int(time.time() * 1000)}'
    answer = get(url)
    return [at for at, cpu in zip(answer['times'], answer['series']['cpu']) if cpu is not None]


def part_web():
    row('the package installs the unit of the page switched off', run('systemctl', 'is-enabled', PAGE, check=False) == 'disabled')
    key = re.search(r'^API_KEY=(.*)$', read(ENV), re.M).group(1)
    write('/etc/system-agent/web.env', f'API_KEY={key}\n')
    os.chmod('/etc/system-agent/web.env', 0o600)
    begin = int(time.time()) * 1000
    run('systemctl', 'enable', '--now', PAGE)
    host = wait('the page', live)['id']
    process = run('systemctl', 'show', '--property', 'MainPID', '--value', PAGE)
    status = read(f'/proc/{process}/status')
    field = lambda name: re.search(rf'^{name}:\s*(.*)$', status, re.M).group(1)
    row('the page has its own user, no capability, a seccomp filter and no new privileges',
        field('Uid').split()[0] != '0' and int(field('CapEff'), 16) == 0 and int(field('CapBnd'), 16) == 0
        and field('Seccomp') == '2' and field('NoNewPrivs') == '1', f"Uid {field('Uid')}, Groups {field('Groups')}")
    exposure = run('systemd-analyze', 'security', PAGE, '--no-pager').splitlines()[-1]
    row('the exposure level in systemd-analyze security is below 2.3',
        float(re.search(r'\d+\.\d+', exposure).group()) < 2.3, exposure.strip('→ '))
    before = wait('three samples', lambda: (lambda all: all if len(all) >= 3 else None)(known(host, begin)))
    files = {name: oct(os.stat(f'{STATE}/{name}').st_mode)[-3:] for name in sorted(os.listdir(STATE))}
    row('the history is in the state directory, and only its user can read it',
        'history.db' in files and all(mode == '600' for mode in files.values()), files)
    row('the page finds no problem of its history', get(HOSTS)['history_error'] is None)
    run('systemctl', 'kill', '--signal=KILL', PAGE)
    wait('another process', lambda: run('systemctl', 'show', '--property', 'MainPID', '--value', PAGE) not in (process, '0'))
    wait('the page after the kill', live)
    old = [at for at in before if at < before[-1] - 1000]
    after = known(host, begin)
    row('after a kill systemd starts it again, with its history', set(old) <= set(after), f'{len(old)} of {len(after)} samples')
    row('the log has no error', 'ERROR' not in shell(f'journalctl -u {PAGE} -o cat'), run('journalctl', '-u', PAGE, '-o', 'cat', '-n', '2'))
    run('systemctl', 'disable', '--now', PAGE)
