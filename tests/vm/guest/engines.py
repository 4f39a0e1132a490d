"""Engines with other settings and in other states."""
import os
import time

from figures import check_sources
from logs import NUMBERED
from vm import HAND_KEY, daemon, image, note, read, remove_all, row, run, shell, snapshot, start, told, wait


def ready(names):
    """Waits for a snapshot with figures and logs of these containers."""
    def complete():
        seen = snapshot(2)
        found = {one['name'].lstrip('/') for one in seen['containers']}
        return seen if found >= set(names) and all(seen['logs'].get(name) for name in names) else None
    return wait(f'{names}', complete, 60)


def part_minimum():
    """An engine that refuses clients with an old API version, as Docker 29 does."""
    daemon(environment={'DOCKER_MIN_API_VERSION': '1.44'})
    image()
    start('one', command=NUMBERED)
    seen = ready(['one'])
    row('an engine that accepts only API 1.44 and later, as Docker 29 does, has status ok', seen['status'] == 'ok', told(seen, 'docker'))
    remove_all()
    daemon()


def part_containerd():
    """Images in containerd's image store."""
    daemon({'features': {'containerd-snapshotter': True}})
    image()
    start('one', command=NUMBERED)
    ready(['one'])
    seen, found = check_sources("the containerd image store: figures")
    row('the containerd image store: logs from files', seen['sources']['logs']['via'] == 'kernel', told(seen, 'logs'))
    remove_all()
    daemon()


def part_live_restore():
    """Containers that run while dockerd is down. The output of these containers waits in their pipes until dockerd runs again."""
    daemon({'live-restore': True})
    image()
    start('one', command=NUMBERED)
    ready(['one'])
    run('systemctl', 'stop', 'docker.socket', 'docker')
    time.sleep(12)
    before, after = snapshot(1), snapshot(3)
    usage = lambda seen: next((one['cpu_usage_ns'] for one in seen['containers'] if one['name'] == '/one'), None)
    row('live-restore: figures stay fresh while dockerd is down, and sources reports the failure',
        usage(before) and usage(after) > usage(before) and after['logs'].get('one') and after['status'] == 'degraded',
        after['sources']['docker']['error'])
    run('systemctl', 'start', 'docker')
    wait('status ok', lambda: snapshot(1)['status'] == 'ok', 60)
    last = after['logs']['one'][-1]
    seen = wait('later lines', lambda: (seen := snapshot(1)) and seen['logs']['one'][-1] != last and seen, 60)
    row('live-restore: after dockerd returns the list is the same and new log lines arrive',
        [one['name'] for one in seen['containers']] == ['/one'], seen['logs']['one'][-1])
    remove_all()
    daemon()


def part_userns():
    """Containers whose root user is not root of the host."""
    shell('grep -q dockremap /etc/subuid || { useradd --system dockremap; echo dockremap:200000:65536 >>/etc/subuid; '
          'echo dockremap:200000:65536 >>/etc/subgid; }')
    daemon({'userns-remap': 'dockremap'})
    image()
    start('one', command=NUMBERED)
    seen = ready(['one'])
    check_sources('userns-remap: figures')
    row('userns-remap: logs from files', seen['sources']['logs']['via'] == 'kernel', told(seen, 'logs'))
    remove_all()
    daemon()


def part_data_root():
    """A data root that is not Docker's default."""
    daemon({'data-root': '/srv/docker'})
    image()
    start('one', command=NUMBERED)
    seen = ready(['one'])
    row('another data root: logs from files', seen['sources']['logs']['via'] == 'kernel', told(seen, 'logs'))
    remove_all()
    daemon()


def part_no_memory_controller():
    """A kernel with the option cgroup_disable=memory."""
    assert 'cgroup_disable=memory' in read('/proc/cmdline')
    image()
    start('one', command=NUMBERED)
    seen = ready(['one'])
    one = seen['containers'][0]
    figures = ('memory_usage', 'memory_percent', 'memory_rss', 'memory_cache', 'memory_kernel', 'oom_kills')
    present = {name: one[name] for name in figures if name in one}
    row('without the memory controller the memory figures are absent', not present, present or '')
    row('without the memory controller the other figures come from the kernel',
        seen['sources']['docker']['via'] == 'kernel' and one['cpu_usage_ns'] > 0 and one['pids'] >= 1, told(seen, 'docker'))
    remove_all()


def part_compose():
    """The image of `make image`, started with config/compose.yml."""
    run('docker', 'load', '--input', '/root/image.tar')
    image()
    start('one', command=NUMBERED)
    run('docker', 'compose', '-f', '/root/compose.yml', 'up', '-d', env={**os.environ, 'API_KEY': HAND_KEY,
        'SOCKET_ADDRESS': '127.0.0.1', 'SOCKET_PORT': '9001'})
    def complete():
        seen = snapshot(2, port=9001, secret=HAND_KEY)
        return seen if len(seen['containers']) == 2 and seen['logs'].get('one') else None
    try:
        seen = wait('a complete snapshot of the composed agent', complete, 90)
    except RuntimeError:
        note(run('docker', 'logs', 'system-agent', check=False))
        raise
    own = snapshot(2)
    row('the image with compose.yml: figures and logs come from the kernel and from files',
        seen['sources']['docker']['via'] == 'kernel'
        and seen['sources']['logs']['via'] == 'kernel', told(seen, 'docker', 'logs'))
    same = all(seen['host'].get(name) == own['host'].get(name)
               for name in ('hostname', 'os', 'kernel', 'cpus', 'boot_time', 'virtualization'))
    row("the image with compose.yml: the host's name, system, CPUs, boot time and virtualization are right", same, seen['host'])
    mounts = lambda of: sorted(one['mount'] for one in of['system']['disks'])
    row("the image with compose.yml: the host's file systems are listed", mounts(seen) == mounts(own), mounts(seen))
    remove_all()
