"""The host's figures in snapshots of the installed service."""
import os
import re
import time

from vm import image, read, remove_all, row, run, shell, snapshot, start, wait

GIB = 1 << 30
# Tolerance for sizes in MiB with two decimals, in KiB.
ROUNDED_KIB = 11


def part_host():
    shell('''dd if=/dev/zero of=/swapfile bs=1M count=64 2>/dev/null; chmod 600 /swapfile; mkswap -q /swapfile; swapon /swapfile
        modprobe zram && { grep -q [1-9] /sys/block/zram0/disksize || echo 64M >/sys/block/zram0/disksize; } && mkswap -q /dev/zram0 && swapon /dev/zram0''')
    seen = snapshot(2)['system']
    memory = {name: int(kb) for name, kb in re.findall(r'^(\w+): *(\d+)', read('/proc/meminfo'), re.M)}
    row('swap of a file and of zram is counted',
        abs(seen['swap_total'] * 1024 - memory['SwapTotal']) < ROUNDED_KIB, f"{seen['swap_total']} MiB")
    row('total and available memory are as in /proc/meminfo', abs(seen['memory_total'] * 1024 - memory['MemTotal']) < ROUNDED_KIB
        and abs(seen['memory_available'] * 1024 - memory['MemAvailable']) < 30 * 1024, f"{seen['memory_available']} MiB available")
    row('the pressure of the CPU is counted', seen['pressure']['cpu']['some']['total_us'] > 0, seen['pressure']['cpu']['some'])
    row('each core has a figure', len(seen['cpu_cores']) == os.cpu_count(), seen['cpu_cores'])
    shell('swapoff /dev/zram0; swapoff /swapfile; rm /swapfile')


def file_systems(seen):
    return {one['mount']: one for one in seen['system']['disks']}


def part_file_systems():
    """File systems at paths that the unit's hardening affects, mounted before the service starts and while it runs."""
    def mount(place, size='48M'):
        name = place.strip('/').replace('/', '-')
        shell(f'''mkdir -p {place}; truncate -s {size} /var/{name}.img; mkfs.ext4 -q /var/{name}.img
            mount -o loop /var/{name}.img {place}''')
    before = ('/home', '/srv/data', '/root/backup', '/var/tmp')
    after = ('/home/later', '/opt/later', '/root/later')
    for place in before:
        mount(place)
    # Only root can read below these directories.
    shell('chmod 700 /root; mkdir -p /srv/private/disk; chmod 700 /srv/private')
    mount('/srv/private/disk')
    shell('mkdir -p /mnt/lower /mnt/upper /mnt/work /mnt/overlay; mount --bind /srv /mnt/bind 2>/dev/null; '
          'mount -t overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/overlay')
    run('systemctl', 'restart', 'system-agent')
    snapshot(2)
    for place in after:
        mount(place)
    time.sleep(6)
    seen = file_systems(snapshot(2))
    wrong = []
    for place in (*before, '/srv/private/disk', *after, '/'):
        size, used = map(int, run('df', '-B1', '--output=size,used', place).splitlines()[1].split())
        one = seen.get(place)
        if one is None or 'used' not in one:
            wrong.append(f"{place}: {(one or {}).get('error', 'absent')}")
        elif abs(one['used'] * GIB - used) > (2 << 20 if place != '/' else 64 << 20) or abs(one['total'] * GIB - size) > 1 << 20:
            wrong.append(f"{place}: {one['used'] * GIB:.0f} of {one['total'] * GIB:.0f}, df {used} of {size}")
    row('file systems at and below /home, /root, /srv and /var/tmp, mounted before and after the start, have the figures of df',
        not wrong, '; '.join(wrong) or f'{len(before) + len(after) + 2} file systems')
    extra = set(seen) - {*before, *after, '/srv/private/disk', '/'}
    row('no other file systems are listed', not extra, extra)
    shell('umount /mnt/overlay')
    for place in (*reversed(after), '/srv/private/disk', *reversed(before)):
        shell(f'umount {place}')
    run('systemctl', 'restart', 'system-agent')
    snapshot(2)


def part_processes():
    image()
    start('root', command='while :; do :; done')
    start('dropped', '--user', '1000', command='while :; do :; done')
    def of_containers():
        top = snapshot(2)['system']['top_processes']
        found = {one['container']: one['user'] for one in top if one.get('container')}
        return found if len(found) == 2 else None
    found = wait('both processes', of_containers)
    row('the busiest processes have their user and container', found == {'root': 'root', 'dropped': 'user'}, found)
    remove_all()
