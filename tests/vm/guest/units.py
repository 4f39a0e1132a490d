"""The package and its systemd unit."""
import os
import re
import signal
import time

import pages
from vm import ENV, UNIT, configure, image, note, read, remove_all, row, run, shell, snapshot, start, succeeds, told, unit, wait


def is_active():
    return unit('ActiveState') == 'active'


def part_package():
    told = shell('DEBIAN_FRONTEND=noninteractive apt-get install -y /root/1.deb 2>&1')
    row('apt installs the package and prints which hosts can connect', '127.0.0.1:9000' in told, told.splitlines()[-1])
    wait('the unit', is_active, 60)
    row('the service is enabled and active', run('systemctl', 'is-enabled', UNIT) == 'enabled', unit('SubState'))
    process = unit('MainPID')
    status = read(f'/proc/{process}/status')
    field = lambda name: re.search(rf'^{name}:\s*(.*)$', status, re.M).group(1)
    row('the service has its own user, one capability (to read files), a seccomp filter and no new privileges',
        field('Uid').split()[0] != '0' and int(field('CapEff'), 16) == 4 and int(field('CapBnd'), 16) == 4
        and int(field('CapAmb'), 16) == 0 and field('Seccomp') == '2' and field('NoNewPrivs') == '1',
        f"CapEff {field('CapEff')}, CapAmb {field('CapAmb')}, Seccomp {field('Seccomp')}")
    exposure = run('systemd-analyze', 'security', UNIT, '--no-pager').splitlines()[-1]
    row('the exposure level in systemd-analyze security is below 2.3',
        float(re.search(r'\d+\.\d+', exposure).group()) < 2.3, exposure.strip('→ '))
    listening = [line.split()[3] for line in run('ss', '-Hltn').splitlines()]
    row('no other host can connect', [one for one in listening if one.endswith(':9000')] == ['127.0.0.1:9000'], listening)
    row('only root can read the configuration', oct(os.stat(ENV).st_mode)[-3:] == '600')
    seen = snapshot(2)
    row('a complete snapshot arrives without an error', seen['status'] == 'ok' and not any(
        source['error'] for source in seen['sources'].values()), {n: s['status'] for n, s in seen['sources'].items()})
    environment = shell(f'set -a; . {ENV}; set +a; system-agent check')
    row('system-agent check finds no error', 'FAIL' not in environment, environment.splitlines()[-1])
    row('check socket succeeds', succeeds('bash', '-c', f'set -a; . {ENV}; set +a; system-agent check socket'))
    run('systemctl', 'reload', UNIT)
    time.sleep(2)
    row('a reload does not restart the process', unit('MainPID') == process)
    run('systemctl', 'restart', UNIT)
    wait('the unit', is_active)
    row('a restart starts a new process', unit('MainPID') != process and snapshot(1)['status'] in ('ok', 'degraded'))
    run('systemctl', 'stop', UNIT)
    row('a stop succeeds', unit('Result') == 'success' and unit('ExecMainStatus') == '0', unit('Result'))
    run('systemctl', 'start', UNIT)
    configure(SYSTEM_INTERVAL='often')
    run('systemctl', 'restart', UNIT, check=False)
    wait('the failed service', lambda: unit('ActiveState') == 'failed', 30)
    time.sleep(5)
    row('a bad configuration ends with status 78 and without a restart',
        unit('ExecMainStatus') == '78' and unit('ActiveState') == 'failed',
        run('journalctl', '-u', UNIT, '-o', 'cat', '-n', '3'))
    configure(SYSTEM_INTERVAL=None)
    run('systemctl', 'reset-failed', UNIT)
    run('systemctl', 'start', UNIT)
    wait('the unit', is_active)


def part_watchdog():
    restarts, process = int(unit('NRestarts')), int(unit('MainPID'))
    os.kill(process, signal.SIGSTOP)
    begun = time.monotonic()
    wait('a restart', lambda: int(unit('NRestarts')) > restarts and is_active(), 120)
    row('the watchdog restarts a process that hangs', True, f'after {time.monotonic() - begun:.0f} s')


def part_upgrade():
    configure(TOP_PROCESSES='3', SOCKET_ADDRESS=None)
    before = read(ENV)
    shell('DEBIAN_FRONTEND=noninteractive apt-get install -y /root/2.deb 2>&1')
    wait('the unit', is_active)
    row('an upgrade restarts the service and does not change its configuration',
        read(ENV) == before and run('dpkg-query', '-W', '-f', '${Version}', UNIT).endswith('-2')
        and len(snapshot(2)['system']['top_processes']) <= 3, run('dpkg-query', '-W', '-f', '${Version}', UNIT))


def part_purge():
    shell('DEBIAN_FRONTEND=noninteractive apt-get purge -y system-agent 2>&1')
    left = [path for path in ('/etc/system-agent', '/usr/bin/system-agent', '/lib/systemd/system/system-agent.service')
            if os.path.exists(path)]
    user = succeeds('getent', 'passwd', 'system-agent')
    row('a purge removes all files and the user', not left and not user, [*left, *(['the user'] if user else [])] or '')


def part_proxy():
    """When the agent reads the engine through a proxy, the agent gives its capability up."""
    # This proxy forwards all requests. The part checks only the capabilities of the agent.
    shell('systemd-run --quiet --unit trial-proxy socat TCP-LISTEN:2375,bind=127.0.0.1,fork,reuseaddr '
          'UNIX-CONNECT:/run/docker.sock 2>/dev/null || true')
    image()
    start('logs', command='echo line 1 of the log; sleep infinity')
    configure(DOCKER_HOST='tcp://127.0.0.1:2375')
    run('systemctl', 'restart', UNIT)
    wait('the unit', is_active)
    process = unit('MainPID')
    status = read(f'/proc/{process}/status')
    left = {name: int(re.search(rf'^{name}:\s*(.*)$', status, re.M).group(1), 16) for name in ('CapEff', 'CapPrm', 'CapAmb', 'CapInh')}
    threads = {re.search(r'^CapEff:\s*(.*)$', read(f'/proc/{process}/task/{thread}/status'), re.M).group(1)
               for thread in os.listdir(f'/proc/{process}/task')}
    row('with a proxy in DOCKER_HOST no thread of the agent has a capability', not any(left.values()) and len(threads) == 1, left)
    if succeeds('systemctl', 'is-active', 'trial-proxy'):
        seen = snapshot(3)
        row('with a proxy in DOCKER_HOST logs come through the proxy', seen['logs'].get('/logs') or seen['logs'].get('logs'),
            told(seen, 'logs'))
    configure(DOCKER_HOST=None)
    run('systemctl', 'restart', UNIT)
    run('systemctl', 'stop', 'trial-proxy', check=False)
    run('systemctl', 'reset-failed', 'trial-proxy', check=False)
    remove_all()


def part_by_hand():
    """The unit config/system-agent.service, installed by hand as docs/install.md describes."""
    pages.prepare()
    pages.follow('docs/install.md', 'Install by hand')
    wait('the unit', is_active)
    broken()
    image()
    start('logs', command='echo line 1 of the log; sleep infinity')
    def ready():
        seen = snapshot(2)
        return seen if seen['logs'].get('logs') or seen['logs'].get('/logs') else None
    seen = wait('logs', ready)
    row('installed by hand: failed units are listed', failed(seen) == ['broken.service'], failed(seen))
    row('installed by hand: logs come from files and figures from the kernel',
        seen['sources']['logs']['via'] == seen['sources']['docker']['via'] == 'kernel', told(seen, 'logs'))
    run('systemctl', 'reset-failed', 'broken')
    remove_all()
    pages.follow('docs/install.md', 'Remove an installation by hand')
    shell('DEBIAN_FRONTEND=noninteractive apt-get install -y /root/1.deb 2>&1')
    wait('the unit', is_active)


def broken():
    with open('/etc/systemd/system/broken.service', 'w') as file:
        file.write('[Unit]\nDescription=A unit that fails\n[Service]\nExecStart=/bin/false\n')
    run('systemctl', 'daemon-reload')
    run('systemctl', 'start', 'broken', check=False)
    wait('the failure of the unit', lambda: succeeds('systemctl', 'is-failed', 'broken'), 20)


def failed(seen):
    return [one['name'] for one in seen['system'].get('failed_units') or []]


def part_failed_units():
    broken()
    seen = wait('the failed unit', lambda: 'broken.service' in failed(snapshot(2)), 30)
    row('a unit that fails is listed', seen)
    run('systemctl', 'daemon-reexec')
    row('a failed unit is still listed after systemd re-executes',
        wait('the failed unit', lambda: 'broken.service' in failed(snapshot(2)), 30))
    run('systemctl', 'reset-failed', 'broken')
    row('a failed unit is not listed after reset-failed',
        wait('a snapshot without failed units', lambda: failed(snapshot(2)) == [], 30))


def part_after_reboot():
    wait('the unit', is_active, 120)
    seen = snapshot(2)
    row('the service runs after a reboot', seen['status'] == 'ok', f"host up for {seen['system']['uptime']} s")
    row('the service has not restarted since the reboot', unit('NRestarts') == '0', unit('NRestarts'))
    note(run('journalctl', '-u', UNIT, '-o', 'cat', '-b', '-n', '3'))
