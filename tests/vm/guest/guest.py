"""An agent that runs in a container with limits and measures this container."""
import os
import time

from vm import HAND_KEY, Stream, keyed, read, remove_all, row, run, seconds, shell, wait

MIB = 1 << 20
PORT = 9002
# Holds 64 MiB of memory and keeps a CPU busy.
PROGRAM = "import time; held = b'x' * (64 << 20)\nwhile True: pass"


def image(engine):
    """Makes an image without files. Its programs are those of the machine."""
    shell(f'''d=$(mktemp -d); cd $d; mkdir usr proc sys dev etc tmp run root
ln -s usr/lib lib; ln -s usr/lib64 lib64; ln -s usr/bin bin; ln -s usr/sbin sbin
tar -c . | {engine} import - guest; cd /; rm -rf $d''')


def time_of(seen):
    return seconds(seen['sources']['system']['collected_at'])


def check_guest(engine, name):
    image(engine)
    own = 'guest' if engine == 'docker' else 'localhost/guest'
    run(engine, 'run', '--detach', '--name', 'guest', '--network', 'host', '--volume', '/usr:/usr:ro',
        '--memory', '256m', '--cpus', '0.5', '--env', f'API_KEY={HAND_KEY}', '--env', f'SOCKET_PORT={PORT}',
        '--env', 'DOCKER_ENABLED=false', '--env', 'SYSTEM_INTERVAL=2s', own,
        'sh', '-c', f'python3 -c "{PROGRAM}" & exec /usr/bin/system-agent')
    process = run(engine, 'inspect', '--format', '{{.State.Pid}}', 'guest')
    # crun sets the limits of a group below the one that has the container's name.
    group = '/sys/fs/cgroup' + read(f'/proc/{process}/cgroup').strip().split('::', 1)[1]

    def sources():
        stat = keyed(read(f'{group}/memory.stat'))
        used = int(read(f'{group}/memory.current')) - stat['inactive_file']
        return time.time(), used / MIB, keyed(read(f'{group}/cpu.stat'))['usage_usec'] / 1e6

    def connect():
        try:
            return Stream(None, PORT, HAND_KEY)
        except OSError:
            return None
    with wait('a connection to the agent', connect, 90) as stream:
        seen, readings = stream.next(), [sources()]
        end = time.monotonic() + 90
        while seen['system']['memory_used'] < 64 and time.monotonic() < end:
            seen = stream.next()
            readings.append(sources())
        first = time_of(seen)
        while time_of(seen) <= first:
            seen = stream.next()
            readings.append(sources())
    system = seen['system']
    row(f'{name}: total memory and CPUs are those of the container',
        system['memory_total'] == 256 and seen['host']['cpus'] == 1 and 'cpu_cores' not in system,
        (system['memory_total'], seen['host']['cpus']))
    used = [used for _, used, _ in readings[-3:]]
    row(f'{name}: used memory is that of the control group', min(used) - 4 <= system['memory_used'] <= max(used) + 4,
        (system['memory_used'], used))
    (begun, _, cpu_before), (ended, _, cpu_after) = readings[0], readings[-1]
    busy = min(100, (cpu_after - cpu_before) / ((ended - begun) * 0.5) * 100)
    row(f'{name}: the use of the CPU is a share of the quota', abs(system['cpu_percent'][0] - busy) < 15,
        (system['cpu_percent'], busy))
    row(f'{name}: the load is that of the container', 0.5 <= system['load_avg']['1m'] < 4, system['load_avg'])
    word = run(engine, 'exec', 'guest', 'systemd-detect-virt')
    row(f'{name}: the kind of virtualization is that of systemd-detect-virt', seen['host'].get('virtualization') == word, word)
    # The limits change while the agent runs. Without a quota the container has one core of its own.
    for file, value in (('memory.max', 128 * MIB), ('cpu.max', 'max'), ('cpuset.cpus', 0)):
        with open(f'{group}/{file}', 'w') as limit:
            limit.write(str(value))

    def changed():
        with Stream(None, PORT, HAND_KEY) as stream:
            seen = stream.next()
        return seen if seen['system']['memory_total'] == 128 and len(seen['system'].get('cpu_cores', [])) == 1 else None
    row(f'{name}: new limits show without a restart', wait('the new limits', changed, 60)['host']['cpus'] == 1)
    remove_all(engine)


def part_guest():
    check_guest('docker', 'a container of Docker')
    check_guest('podman', 'a container of Podman')
    word = run('systemd-detect-virt', check=False)
    seen = run('env', 'DOCKER_ENABLED=false', '/usr/bin/system-agent', 'snapshot')
    row('the kind of virtualization of the machine is that of systemd-detect-virt', f'"virtualization":"{word}"' in seen, word)
    row('the machine has all of its CPUs', f'"cpus":{os.cpu_count()}' in seen, os.cpu_count())
