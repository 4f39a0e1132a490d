"""Logs of each logging driver, and events."""
import collections
import re
import time

from vm import Stream, image, inspect, loop, remove_all, row, run, snapshot, start, told, wait

NUMBERED = loop('echo "line $i of the log, padded padded padded padded padded"', 0.5)


def numbers(count):
    """Reads `count` snapshots as a client that gets each log line once. Returns the numbers in each container's log lines, the
    number of dropped log lines of each container, and the newest snapshot."""
    lines, dropped = collections.defaultdict(list), collections.Counter()
    with Stream({'sections': ['logs'], 'logs': 'new'}) as stream:
        for _ in range(count):
            seen = stream.next()
            for name, new in seen['logs'].items():
                lines[name.lstrip('/')] += [int(found.group(1)) for line in new if (found := re.search(r'line (\d+) of', line))]
            for name, count_of in (seen.get('logs_dropped') or {}).items():
                dropped[name.lstrip('/')] += count_of
    return lines, dropped, seen


def part_logs():
    image()
    start('json', command=NUMBERED)
    start('rotated', '--log-opt', 'max-size=5k', '--log-opt', 'max-file=3', command=NUMBERED)
    start('packed', '--log-opt', 'max-size=5k', '--log-opt', 'max-file=3', '--log-opt', 'compress=true', command=NUMBERED)
    start('local', '--log-driver', 'local', command=NUMBERED)
    start('journald', '--log-driver', 'journald', command=NUMBERED)
    start('unlogged', '--log-driver', 'none', command=NUMBERED)
    start('terminal', '--tty', command=NUMBERED)
    time.sleep(5)
    lines, dropped, seen = numbers(12)
    for name in ('json', 'rotated', 'packed', 'local', 'journald', 'terminal'):
        got = lines[name]
        gaps = [(one, next_one) for one, next_one in zip(got, got[1:]) if next_one != one + 1]
        driver = inspect()[name]['HostConfig']['LogConfig']
        what = driver['Type'] + ''.join(f' {key}={value}' for key, value in driver['Config'].items())
        row(f"logs of {what}{' with a terminal' if name == 'terminal' else ''}: each log line arrives once, none is lost",
            len(got) > 20 and not gaps and not dropped[name], gaps[:3] or f'{len(got)} lines')
    row('logs of driver none: the list is empty and there is no error',
        not lines['unlogged'] and seen['sources']['logs']['error'] is None,
        told(seen, 'logs'))
    remove_all()
    # Only containers with the driver json-file. The container `first` is older than the agent, and `second` is newer.
    start('first', command=NUMBERED)
    run('systemctl', 'restart', 'system-agent')
    wait('the log of the first container', lambda: snapshot(2)['logs'].get('first'))
    start('second', command=NUMBERED)
    seen = wait('the log of the second container', lambda: (seen := snapshot(2))['logs'].get('second') and seen)
    row('the installed service reads logs of json-file from their files', seen['sources']['logs']['via'] == 'kernel',
        told(seen, 'logs'))
    remove_all()


def part_events():
    image()
    start('kept', command='sleep infinity')
    snapshot(2)
    with Stream({'sections': ['events']}) as stream:
        stream.next()
        start('short', '--health-cmd', 'true', '--health-interval', '3s', command='sleep infinity')
        wait('the healthy container', lambda: inspect()['short']['State']['Health']['Status'] == 'healthy', 60)
        run('docker', 'pause', 'short')
        run('docker', 'unpause', 'short')
        run('docker', 'rename', 'short', 'renamed')
        run('docker', 'restart', '--time', '0', 'renamed')
        run('docker', 'rm', '--force', 'renamed')
        run('docker', 'run', '--name', 'fails', 'bb', 'sh', '-c', 'exit 7', check=False)
        run('docker', 'rm', 'fails')
        got, end = [], time.monotonic() + 15
        while time.monotonic() < end:
            got += [(one['action'], one['container'], one.get('exit_code'), one.get('health')) for one in stream.next()['events']]
    counts = collections.Counter((action, name) for action, name, _, _ in got)
    wanted = {('start', 'short'): 1, ('pause', 'short'): 1, ('unpause', 'short'): 1, ('rename', 'renamed'): 1,
              ('restart', 'renamed'): 1, ('start', 'renamed'): 1, ('die', 'renamed'): 2, ('destroy', 'renamed'): 1,
              ('start', 'fails'): 1, ('die', 'fails'): 1, ('destroy', 'fails'): 1}
    wrong = {what: counts[what] for what, times in wanted.items() if counts[what] != times}
    row('events: each action is one event', not wrong, wrong or f'{len(got)} events')
    row('events: the exit code is shown', ('die', 'fails', 7, None) in got, [one for one in got if one[1] == 'fails'])
    row('events: a change of health is shown', ('health_status', 'short', None, 'healthy') in got)
    remove_all()
