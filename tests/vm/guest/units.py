"""The package and its systemd unit."""
import os
import re
import signal
import time

from vm import ENV, UNIT, configure, image, note, read, remove_all, row, run, shell, snapshot, start, succeeds, told, unit, wait


def is_active():
    return unit('ActiveState') == 'active'


def part_package():
    told = shell('DEBIAN_FRONTEND=noninteractive apt-get install -y /root/1.deb 2>&1')
    row('apt installs the package, and it says who can connect', '127.0.0.1:9000' in told, told.splitlines()[-1])
    wait('the unit', is_active, 60)
    row('the service is enabled and active', run('systemctl', 'is-enabled', UNIT) == 'enabled', unit('SubState'))
    process = unit('MainPID')
    status = read(f'/proc/{process}/status')
    field = lambda name: re.search(rf'^{name}:\s*(.*)$', status, re.M).group(1)
    row('it runs as a user of its own, with one capability (to read files), a seccomp filter and no new privileges',
        field('Uid').split()[0] != '0' and int(field('CapEff'), 16) == 4 and int(field('CapBnd'), 16) == 4
        and int(field('CapAmb'), 16) == 0 and field('Seccomp') == '2' and field('NoNewPrivs') == '1',
        f"CapEff {field('CapEff')}, CapAmb {field('CapAmb')}, Seccomp {field('Seccomp')}")
    exposure = run('systemd-analyze', 'security', UNIT, '--no-pager').splitlines()[-1]
    row('systemd-analyze security under 2.0', float(re.search(r'\d+\.\d+', exposure).group()) < 2.0, exposure.strip('→ '))
    listening = [line.split()[3] for line in run('ss', '-Hltn').splitlines()]
    row('no other host can connect', [one for one in listening if one.endswith(':9000')] == ['127.0.0.1:9000'], listening)
    row('its configuration is for root alone', oct(os.stat(ENV).st_mode)[-3:] == '600')
    seen = snapshot(2)
    row('a snapshot comes, complete and without an error', seen['status'] == 'ok' and not any(
        source['error'] for source in seen['sources'].values()), {n: s['status'] for n, s in seen['sources'].items()})
    environment = shell(f'set -a; . {ENV}; set +a; system-agent check')
    row('check', 'FAIL' not in environment, environment.splitlines()[-1])
    row('check socket', succeeds('bash', '-c', f'set -a; . {ENV}; set +a; system-agent check socket'))
    run('systemctl', 'reload', UNIT)
    time.sleep(2)
    row('reload keeps the process', unit('MainPID') == process)
    run('systemctl', 'restart', UNIT)
    wait('the unit', is_active)
    row('restart', unit('MainPID') != process and snapshot(1)['status'] in ('ok', 'degraded'))
    run('systemctl', 'stop', UNIT)
    row('stop', unit('Result') == 'success' and unit('ExecMainStatus') == '0', unit('Result'))
    run('systemctl', 'start', UNIT)
    configure(SYSTEM_INTERVAL='often')
    run('systemctl', 'restart', UNIT, check=False)
    wait('the end', lambda: unit('ActiveState') == 'failed', 30)
    time.sleep(5)
    row('a bad configuration: status 78, and no restart', unit('ExecMainStatus') == '78' and unit('ActiveState') == 'failed',
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
    row('a process that hangs is restarted by the watchdog', True, f'after {time.monotonic() - begun:.0f} s')


def part_upgrade():
    configure(TOP_PROCESSES='3', SOCKET_ADDRESS=None)
    before = read(ENV)
    shell('DEBIAN_FRONTEND=noninteractive apt-get install -y /root/2.deb 2>&1')
    wait('the unit', is_active)
    row('an upgrade restarts it and changes no configuration',
        read(ENV) == before and run('dpkg-query', '-W', '-f', '${Version}', UNIT).endswith('-2')
        and len(snapshot(2)['system']['top_processes']) <= 3, run('dpkg-query', '-W', '-f', '${Version}', UNIT))


def part_purge():
    shell('DEBIAN_FRONTEND=noninteractive apt-get purge -y system-agent 2>&1')
    left = [path for path in ('/etc/system-agent', '/usr/bin/system-agent', '/lib/systemd/system/system-agent.service')
            if os.path.exists(path)]
    user = succeeds('getent', 'passwd', 'system-agent')
    row('purge leaves nothing', not left and not user, [*left, *(['the user'] if user else [])] or '')


def part_proxy():
    """With another way to the engine than its own socket, nothing is granted beyond it."""
    # A proxy that lets everything through: which privilege the agent has is what counts here.
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
    row('where DOCKER_HOST is a proxy it has no capability, in any thread', not any(left.values()) and len(threads) == 1, left)
    if succeeds('systemctl', 'is-active', 'trial-proxy'):
        seen = snapshot(3)
        row('and logs come through the proxy', seen['logs'].get('/logs') or seen['logs'].get('logs'),
            told(seen, 'logs'))
    configure(DOCKER_HOST=None)
    run('systemctl', 'restart', UNIT)
    run('systemctl', 'stop', 'trial-proxy', check=False)
    run('systemctl', 'reset-failed', 'trial-proxy', check=False)
    remove_all()


def part_by_hand():
    """The unit of config/system-agent.service, installed as its head says."""
    shell('DEBIAN_FRONTEND=noninteractive apt-get purge -y system-agent 2>&1')
    shell('''useradd --system --user-group --groups docker --home-dir /nonexistent --shell /usr/sbin/nologin system-agent
        install -m 0755 /root/system-agent /usr/local/bin/
        install -D -m 0600 /root/agent.env /etc/system-agent/agent.env
        sed -i s/^API_KEY=/API_KEY=0123456789abcdef0123456789abcdef/ /etc/system-agent/agent.env
        install -m 0644 /root/system-agent.service /etc/systemd/system/
        systemctl daemon-reload; systemctl enable --now system-agent''')
    wait('the unit', is_active)
    broken()
    image()
    start('logs', command='echo line 1 of the log; sleep infinity')
    def ready():
        seen = snapshot(2)
        return seen if seen['logs'].get('logs') or seen['logs'].get('/logs') else None
    seen = wait('logs', ready)
    row('installed by hand: failed units', failed(seen) == ['broken.service'], failed(seen))
    row('installed by hand: logs from files, figures from the kernel',
        seen['sources']['logs']['via'] == seen['sources']['docker']['via'] == 'kernel', told(seen, 'logs'))
    run('systemctl', 'reset-failed', 'broken')
    remove_all()
    shell('''systemctl disable --now system-agent; rm /etc/systemd/system/system-agent.service /usr/local/bin/system-agent
        rm -r /etc/system-agent; userdel system-agent; systemctl daemon-reload''')
    shell('DEBIAN_FRONTEND=noninteractive apt-get install -y /root/1.deb 2>&1')
    wait('the unit', is_active)


def broken():
    with open('/etc/systemd/system/broken.service', 'w') as file:
        file.write('[Unit]\nDescription=A unit that fails\n[Service]\nExecStart=/bin/false\n')
    run('systemctl', 'daemon-reload')
    run('systemctl', 'start', 'broken', check=False)
    wait('its failure', lambda: succeeds('systemctl', 'is-failed', 'broken'), 20)


def failed(seen):
    return [one['name'] for one in seen['system'].get('failed_units') or []]


def part_failed_units():
    broken()
    seen = wait('the failed unit', lambda: 'broken.service' in failed(snapshot(2)), 30)
    row('a unit that fails is listed', seen)
    run('systemctl', 'daemon-reexec')
    row('also after systemd was executed anew', wait('it', lambda: 'broken.service' in failed(snapshot(2)), 30))
    run('systemctl', 'reset-failed', 'broken')
    row('and no more after reset-failed', wait('its end', lambda: failed(snapshot(2)) == [], 30))


def part_after_reboot():
    wait('the unit', is_active, 120)
    seen = snapshot(2)
    row('after a reboot the service is there', seen['status'] == 'ok', f"host up for {seen['system']['uptime']} s")
    row('it was never restarted meanwhile', unit('NRestarts') == '0', unit('NRestarts'))
    note(run('journalctl', '-u', UNIT, '-o', 'cat', '-b', '-n', '3'))
