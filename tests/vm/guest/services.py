"""Units of systemd, compared with `systemctl show`."""
import json
import re
import time

import vm
from vm import Stream, image, note, remove_all, row, run, seconds, shell, snapshot, start, wait, write


def show(unit, *names):
    """Properties of a unit, as systemd shows them."""
    shown = run('systemctl', 'show', unit, '--timestamp=unix', *(f'--property={name}' for name in names))
    return dict(line.split('=', 1) for line in shown.splitlines())


def listed(seen, name):
    return next((unit for unit in seen['system'].get('units', []) if unit['name'] == name), None)


def find(name, wanted=lambda unit: True, wait_seconds=60):
    """Waits for a snapshot in which the unit is as wanted, and returns the unit."""
    def look():
        unit = listed(snapshot(2), name)
        return unit if unit and wanted(unit) else None
    return wait(name, look, wait_seconds)


def service(name, lines):
    write(f'/etc/systemd/system/{name}.service', f'[Service]\n{lines}\n')


def part_systemd_units():
    service('trial-busy', 'ExecStart=/bin/sh -c "dd if=/dev/zero of=/var/tmp/trial bs=1M count=16 oflag=direct; while :; do :; done"')
    service('trial-loop', 'ExecStart=/bin/sh -c "sleep 1; exit 3"\nRestart=always\nRestartSec=2s')
    service('trial-oom', 'ExecStart=/bin/sh -c "tail /dev/zero; sleep infinity"\nMemoryMax=32M\nMemorySwapMax=0\nOOMPolicy=continue')
    run('systemctl', 'daemon-reload')
    run('systemctl', 'start', 'trial-busy', 'trial-loop', 'trial-oom')
    figures()
    restarts()
    others()
    many()
    churn()
    for name in ('busy', 'loop', 'oom'):
        run('systemctl', 'stop', f'trial-{name}', check=False)
    run('systemctl', 'reset-failed', check=False)


def figures():
    name = 'trial-busy.service'
    names = ('ActiveState', 'SubState', 'MainPID', 'NRestarts', 'ActiveEnterTimestamp', 'CPUUsageNSec', 'MemoryCurrent', 'TasksCurrent',
             'IOWriteBytes')
    written = lambda unit: unit.get('block_io', {}).get('write_bytes', 0) >= 16 << 20
    find(name, lambda unit: unit.get('cpu_percent', 0) > 10 and written(unit))
    before = show(name, *names)
    unit = find(name)
    after = show(name, *names)
    row('state, sub-state, main process and restarts are those of systemctl show',
        (unit.get('state'), unit.get('sub_state'), unit.get('main_pid'), unit.get('restarts'))
        == (after['ActiveState'], after['SubState'], int(after['MainPID']), int(after['NRestarts'])), json.dumps(unit))
    since = float(after['ActiveEnterTimestamp'].lstrip('@'))
    row('the time of the state is that of systemctl show', abs(seconds(unit['since']) - since) <= 1, (unit['since'], since))
    # A snapshot can be up to two intervals older than the first reading of systemctl.
    used = int(before['CPUUsageNSec']) - 10e9 <= unit['cpu_usage_ns'] <= int(after['CPUUsageNSec'])
    row('CPU time is that of systemctl show', used, (before['CPUUsageNSec'], unit['cpu_usage_ns'], after['CPUUsageNSec']))
    row('memory and tasks are those of systemctl show',
        abs(unit['memory'] - int(after['MemoryCurrent'])) <= 1 << 20 and unit['tasks'] == int(after['TasksCurrent']),
        (unit['memory'], after['MemoryCurrent'], unit['tasks'], after['TasksCurrent']))
    group = show(name, 'ControlGroup')['ControlGroup']
    stat = vm.read(f'/sys/fs/cgroup{group}/io.stat')
    wrote = sum(int(number) for number in re.findall(r'wbytes=(\d+)', stat))
    row('written bytes are those of io.stat', unit['block_io']['write_bytes'] == wrote, (unit['block_io'], wrote))
    row('a unit has pressure', 'cpu' in unit.get('pressure', {}), unit.get('pressure'))
    killed = find('trial-oom.service', lambda unit: unit.get('oom_kills', 0) >= 1)
    row('a process that was killed for lack of memory is counted', killed['oom_kills'] == 1, killed['oom_kills'])


def restarts():
    name = 'trial-loop.service'
    first = find(name, lambda unit: unit.get('restarts', 0) >= 1)
    later = find(name, lambda unit: unit.get('restarts', 0) > first['restarts'])
    row('the restarts of a crash loop are counted', abs(later['restarts'] - int(show(name, 'NRestarts')['NRestarts'])) <= 3, later)
    waiting = find(name, lambda unit: unit.get('sub_state') == 'auto-restart')
    row('a unit that waits for its restart is activating', waiting['state'] == 'activating', waiting)


def others():
    shell('id trial >/dev/null 2>&1 || useradd --create-home trial')
    user = run('id', '-u', 'trial')
    run('loginctl', 'enable-linger', 'trial')
    mine = find(f'user-{user}.slice')
    below = [unit['name'] for unit in snapshot(2)['system']['units'] if unit['name'].startswith(('user@', 'session-'))]
    row('the units of a user are one entry', mine.get('tasks', 0) > 0 and not below, (mine, below))
    run('loginctl', 'disable-linger', 'trial')
    image()
    start('not-a-unit')
    wait('the container', lambda: any(one['name'].endswith('not-a-unit') for one in snapshot(2)['containers']))
    scopes = [unit['name'] for unit in snapshot(2)['system']['units'] if unit['name'].startswith('docker-')]
    row('the scopes of containers are not listed as units', not scopes, scopes)
    remove_all()


def many():
    for number in range(500):
        write(f'/run/systemd/system/many-{number}.service', '[Service]\nExecStart=/bin/sleep infinity\n')
    run('systemctl', 'daemon-reload')
    units = [f'many-{number}' for number in range(500)]
    run('systemctl', 'start', *units)
    time.sleep(15)
    agent = show('system-agent.service', 'CPUUsageNSec')
    begun = time.monotonic()
    seen = snapshot(7)
    elapsed = time.monotonic() - begun
    used = int(show('system-agent.service', 'CPUUsageNSec')['CPUUsageNSec']) - int(agent['CPUUsageNSec'])
    names = [unit['name'] for unit in seen['system']['units'] if unit.get('state') != 'failed']
    row('of 500 units the busiest 50 are listed', len(names) == 50 and 'trial-busy.service' in names[:5], (len(names), names[:3]))
    health = seen['sources']['system']
    row('with 500 units the source system works', health['status'] == 'ok' and health['duration_ms'] < 1000, health)
    note(f'with 500 units the agent used {used / elapsed / 1e7:.1f} % of a core')
    run('systemctl', 'stop', *units)


def churn():
    with Stream() as stream:
        stream.next()
        bad = 0
        for round_ in range(6):
            units = [f'many-{number}' for number in range(round_ * 20, round_ * 20 + 20)]
            run('systemctl', 'start', *units)
            started = stream.next()
            run('systemctl', 'stop', *units)
            stopped = stream.next()
            bad += sum(seen['sources']['system']['status'] != 'ok' for seen in (started, stopped))
    row('units that start and stop all the time are no failure', bad == 0, bad)
    gone = lambda: not [unit for unit in snapshot(2)['system']['units'] if unit['name'].startswith('many-')]
    row('units that have stopped are not listed', wait('a snapshot without the units', gone, 30))
