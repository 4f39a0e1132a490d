"""The figures of containers, compared with their sources: the files of the control group and of the processes, the inspection,
and `docker stats`."""
import re
import json
import time

from vm import daemon, group_of, image, inspect, keyed, loop, note, read, remove_all, row, run, shell, snapshot, start, wait

MIB = 1 << 20
# Maximum time of a round, in seconds. After the first reading, a round that has already begun ends within this time.
MAX_ROUND = 1


def scene():
    """Starts containers of many kinds, some of them under load."""
    image()
    run('docker', 'network', 'create', 'other')
    start('idle', '--label', 'com.docker.compose.project=shop', '--label', 'com.docker.compose.service=web')
    start('busy', '--cpus', '0.3', command='while :; do :; done')
    start('memory', '--memory', '128m', '--memory-swap', '128m', '--pids-limit', '50', '-v', '/data', command=
          'dd if=/dev/zero of=/data/file bs=1M count=24; cat /data/file >/dev/null; head -c 30m /dev/zero | tail >/dev/null; '
          + 'head -c 20m /dev/zero | tail | sleep infinity')
    start('disk', '-v', '/data', command='dd if=/dev/zero of=/data/file bs=1M count=16 conv=fsync; '
          'echo 3 >/proc/sys/vm/drop_caches; sleep infinity')
    start('oom', '--memory', '24m', '--memory-swap', '24m', command=
          # The kernel must kill this process and not the shell, because the container would end with the shell.
          'head -c 200m /dev/zero | (echo 1000 >/proc/self/oom_score_adj; exec tail) >/dev/null; sleep infinity')
    start('checked', '--health-cmd', 'test -e /tmp/ok', '--health-interval', '5s', '--health-retries', '1',
          command='sleep 25; touch /tmp/ok; sleep infinity')
    start('hostnet', '--network', 'host')
    start('hostpid', '--pid', 'host')
    start('parented', '--cgroup-parent', 'trial.slice')
    start('hostgroups', '--cgroupns', 'host')
    start('shares', '--network', 'container:idle')
    start('none', '--network', 'none')
    start('twonets', '-p', '127.0.0.1:8080:80', command='httpd -f -p 80')
    run('docker', 'network', 'connect', 'other', 'twonets')
    start('failing', '--restart', 'always', command='sleep 20; exit 3')
    start('paused')
    run('docker', 'pause', 'paused')
    for _ in range(20):
        shell('curl -s http://127.0.0.1:8080/ >/dev/null', check=False)


def sources(one):
    """The values of a container in the files of the kernel."""
    group = group_of(one['State']['Pid'], one['Id'])
    file = lambda name: read(f'{group}/{name}', '')
    blocks = [0, 0, 0, 0]
    for line in file('io.stat').splitlines():
        fields = dict(field.split('=') for field in line.split()[1:] if '=' in field)
        for index, name in enumerate(('rbytes', 'wbytes', 'rios', 'wios')):
            blocks[index] += int(fields.get(name, 0))
    networks = {}
    mode = one['HostConfig']['NetworkMode']
    if mode != 'host' and not mode.startswith('container:'):
        for line in read(f"/proc/{one['State']['Pid']}/net/dev").splitlines()[2:]:
            name, counters = line.split(':')
            counters = counters.split()
            if name.strip() != 'lo':
                networks[name.strip()] = (int(counters[0]), int(counters[8]), int(counters[1]), int(counters[9]))
    stalls = {}
    for resource in ('cpu', 'memory', 'io'):
        for line in file(f'{resource}.pressure').splitlines():
            stalls[resource, line.split()[0]] = int(line.split('total=')[1])
    return {
        'group': group, 'memory': int(file('memory.current') or 0), 'limit': file('memory.max').strip(),
        'memory_stat': keyed(file('memory.stat')), 'memory_events': keyed(file('memory.events')),
        'cpu': keyed(file('cpu.stat')), 'pids': int(file('pids.current') or 0), 'blocks': blocks, 'networks': networks,
        'stalls': stalls,
    }


def within(seen, low, high, slack):
    """Whether a figure lies between two readings of its source. The figure can be lower or higher by up to `slack`."""
    if seen is None:
        return False
    low, high = min(low, high), max(low, high)
    return low - slack <= seen <= high + slack


def compare(seen, one, before, after):
    """Returns the figures that differ from their source. `before` and `after` are two readings of the source, one before and one
    after the snapshot."""
    wrong = []

    def expect(what, figure, holds):
        if not holds:
            wrong.append(f'{what} {figure}')

    def between(what, figure, of, slack):
        low, high = of(before), of(after)
        expect(f'{what} [{low}..{high}]', figure, within(figure, low, high, slack))

    stat = lambda name: lambda source: source['memory_stat'][name]
    between('memory_usage', seen['memory_usage'],
            lambda source: source['memory'] - source['memory_stat']['inactive_file'], 1 * MIB)
    total = int(re.search(r'MemTotal: *(\d+)', read('/proc/meminfo')).group(1)) * 1024
    limit = total if after['limit'] == 'max' else int(after['limit'])
    expect(f'memory_limit (not {limit})', seen['memory_limit'], seen['memory_limit'] == limit)
    between('memory_rss', seen.get('memory_rss'), stat('anon'), MIB // 2)
    between('memory_cache', seen.get('memory_cache'), stat('file'), MIB // 2)
    between('memory_kernel', seen.get('memory_kernel'), stat('kernel'), MIB // 2)
    between('oom_kills', seen.get('oom_kills'), lambda source: source['memory_events']['oom_kill'], 0)
    between('pids', seen.get('pids'), lambda source: source['pids'], 0)
    between('cpu_usage_ns', seen.get('cpu_usage_ns'), lambda source: source['cpu']['usage_usec'] * 1000, 0)
    throttling = seen.get('throttling')
    if one['HostConfig']['NanoCpus']:
        for name, field in (('periods', 'nr_periods'), ('throttled_periods', 'nr_throttled'), ('throttled_ns', 'throttled_usec')):
            factor = 1000 if name == 'throttled_ns' else 1
            figure = (throttling or {}).get(name)
            between('throttling.' + name, figure, lambda source: source['cpu'][field] * factor, 0)
    blocks = seen.get('block_io') or {}
    for index, name in enumerate(('read_bytes', 'write_bytes', 'read_ops', 'write_ops')):
        between('block_io.' + name, blocks.get(name), lambda source: source['blocks'][index], 0)
    for (resource, kind), _ in after['stalls'].items():
        figure = (seen.get('pressure') or {}).get(resource, {}).get(kind, {}).get('total_us')
        between(f'pressure.{resource}.{kind}', figure, lambda source: source['stalls'][resource, kind], 0)
    expect('interfaces', sorted(seen['network']), sorted(seen['network']) == sorted(after['networks']))
    for name, counters in seen['network'].items():
        for index, field in enumerate(('rx_bytes', 'tx_bytes', 'rx_packets', 'tx_packets')):
            of = lambda source: source['networks'].get(name, (0, 0, 0, 0))[index]
            between(f'network.{name}.{field}', counters[field], of, 0)
    state, host = one['State'], one['HostConfig']
    for what, figure, right in (
        ('status', seen['status'], state['Status']),
        ('restart_count', seen.get('restart_count'), one['RestartCount']),
        ('health', seen.get('health'), (state.get('Health') or {}).get('Status') or None),
        ('started_at', (seen.get('started_at') or '')[:19], state['StartedAt'][:19]),
        ('pids_limit', seen.get('pids_limit'), (host.get('PidsLimit') or None)),
        ('cpu_limit', seen.get('cpu_limit'), host['NanoCpus'] / 1e9 if host['NanoCpus'] else None),
        ('image_digest', (seen.get('image_digest') or '').split(':')[-1], one['Image'].split(':')[-1]),
    ):
        expect(f'{what} (not {right})', figure, figure == right)
    return wrong


def readings():
    """A snapshot, and for each container the readings of its source before and after the snapshot."""
    # The container `failing` is left out, because it can restart between two readings.
    known = {name: one for name, one in inspect().items() if name != 'failing'}
    before = {name: sources(one) for name, one in known.items()}
    seen = snapshot(2, measured_after=time.time() + MAX_ROUND)
    after = {name: sources(one) for name, one in known.items()}
    found = {one['name'].lstrip('/'): one for one in seen['containers']}
    return seen, known, found, before, after


def check_sources(what):
    """Adds a row: all containers have figures from the kernel that match their sources."""
    seen, known, found, before, after = readings()
    wrong = [f'{name}: {text}' for name, one in known.items() if name in found
             for text in compare(found[name], one, before[name], after[name])]
    missing = [name for name in known if name not in found]
    health = seen['sources']['docker']
    row(what, not wrong and not missing and health['via'] == 'kernel' and health['status'] == 'ok',
        '; '.join(wrong + [f'{name} is missing' for name in missing])
        or f"{len(found)} containers, via {health['via']}, {health['status']}, error {health['error']}")
    return seen, found


def docker_stats():
    """Adds a row for each figure that `docker stats` also shows."""
    unit = {'B': 1, 'KIB': 1 << 10, 'MIB': 1 << 20, 'GIB': 1 << 30, 'KB': 1e3, 'MB': 1e6, 'GB': 1e9}
    def size(text):
        number, name = re.fullmatch(r'([\d.]+)\s*([A-Za-z]+)', text.strip()).groups()
        return float(number) * unit[name.upper()]
    lines = run('docker', 'stats', '--no-stream', '--format', '{{json .}}').splitlines()
    shown = {one['Name']: one for one in map(json.loads, lines)}
    found = {one['name'].lstrip('/'): one for one in snapshot(3)['containers']}
    # The processes of the containers `failing` and `checked` can change between two readings, so they are left out.
    both = [name for name in shown if name in found and name not in ('failing', 'checked', 'paused')]
    memory = [f"{name}: {found[name]['memory_usage']}, docker stats {shown[name]['MemUsage']}" for name in both
              if abs(size(shown[name]['MemUsage'].split('/')[0]) - found[name]['memory_usage']) > max(2 * MIB, 0.05 * found[name]['memory_usage'])]
    row('memory agrees with docker stats', not memory, '; '.join(memory) or f'{len(both)} containers')
    pids = [name for name in both if abs(int(shown[name]['PIDs']) - found[name]['pids']) > 1]
    row('numbers of processes agree with docker stats', not pids, '; '.join(pids) or f'{len(both)} containers')
    blocks = []
    for name in both:
        read_bytes, written = map(size, shown[name]['BlockIO'].split('/'))
        own = found[name]['block_io']
        # docker stats shows three digits.
        if abs(own['read_bytes'] - read_bytes) > 0.01 * read_bytes + 5e4 or abs(own['write_bytes'] - written) > 0.01 * written + 5e4:
            blocks.append(f"{name}: {own['read_bytes']}/{own['write_bytes']}, docker stats {shown[name]['BlockIO']}")
    row('block I/O agrees with docker stats', not blocks, '; '.join(blocks) or f'{len(both)} containers')
    # docker stats measures over another second than the agent. The limit of 0.3 cores applies in both.
    busy = float(shown['busy']['CPUPerc'].rstrip('%')), found['busy']['cpu_percent']
    row('CPU of a container with a limit of 0.3 cores is about 30 % in the snapshot and in docker stats',
        all(15 <= one <= 40 for one in busy),
        f'agent {busy[1]:.1f} %, docker stats {busy[0]:.1f} %')


def part_figures():
    scene()
    note('the containers run')
    wait('the health check', lambda: inspect()['checked']['State']['Health']['Status'] == 'healthy', 120)
    time.sleep(10)
    _, found = check_sources('every figure of 14 kinds of containers lies between two readings of its source')
    row('CPU limit: the throttled periods are counted', found['busy'].get('throttled_percent', 0) > 50,
        f"{found['busy'].get('throttled_percent')} %")
    row('out of memory: the kills are counted', found['oom'].get('oom_kills', 0) >= 1, found['oom'].get('oom_kills'))
    row('pressure: a busy container with a limit has waited for the CPU',
        found['busy']['pressure']['cpu']['some']['total_us'] > 0, found['busy']['pressure']['cpu']['some'])
    row('the result of a health check is shown', found['checked'].get('health') == 'healthy', found['checked'].get('health'))
    row('a paused container is listed', found['paused']['status'] == 'paused', found['paused']['status'])
    row('a container that shares a network names the owner of the network',
        found['shares'].get('network_of') == 'idle', found['shares'].get('network_of'))
    row('the compose project and service are shown', found['idle'].get('compose') is not None, found['idle'].get('compose'))
    restarts = wait('a restart by policy', lambda: inspect().get('failing', {}).get('RestartCount'), 120)
    seen = wait('the number of restarts in a snapshot', lambda: [one['restart_count'] for one in snapshot(2)['containers']
                                      if one['name'] == '/failing' and one['restart_count'] >= restarts], 60)
    row('restarts by policy are counted', True, f'{seen[0]}, the engine counted {restarts}')
    docker_stats()
    run('docker', 'update', '--memory', '64m', '--memory-swap', '64m', '--cpus', '0.5', '--pids-limit', '33', 'idle')
    def updated():
        one = next(one for one in snapshot(2)['containers'] if one['name'] == '/idle')
        return (one['memory_limit'], one.get('cpu_limit'), one.get('pids_limit')) == (64 * MIB, 0.5, 33)
    started = time.monotonic()
    wait('the limits of docker update', updated, 60)
    row('limits that docker update sets are shown', True, f'after {time.monotonic() - started:.0f} s')
    network = {one['name']: one for one in snapshot(2)['system']['network']}
    owners = sorted(one['container'] for one in network.values() if one.get('container'))
    wanted = [name for name in inspect() if name not in ('hostnet', 'none', 'shares', 'failing')]
    wanted = sorted(wanted + ['twonets'])
    row('every veth has the name of its container', [one for one in owners if one != 'failing'] == wanted, owners)
    remove_all()
    run('docker', 'network', 'rm', 'other')


def part_drivers():
    """Control groups that dockerd itself makes instead of systemd, and a parent group."""
    daemon({'exec-opts': ['native.cgroupdriver=cgroupfs']})
    image()
    start('plain', command=loop(':', 1))
    start('limited', '--memory', '64m', '--cpus', '0.2', command='while :; do :; done')
    start('parented', '--cgroup-parent', '/trial/parent')
    start('hostgroups', '--cgroupns', 'host', '--privileged')
    time.sleep(8)
    check_sources('cgroup driver cgroupfs, --cgroup-parent, --cgroupns host')
    remove_all()
    daemon()
