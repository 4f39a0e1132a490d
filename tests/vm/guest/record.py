#!/usr/bin/env python3
"""Prints the files of a container's control group and network, in the format of tests/fixtures/cgroup-v2.txt:

    tests/vm/in.sh PORT 'cd /root && python3 record.py' >tests/fixtures/cgroup-v2.txt

The container is throttled by its CPU limit, has read from and written to a disk, has lost a process because of its memory
limit, and has two networks."""
import os
import time

from vm import group_of, image, inspect, keyed, read, remove_all, run, start, wait, write

FILES = ('cpu.stat', 'memory.current', 'memory.max', 'memory.stat', 'memory.events', 'cpu.pressure', 'memory.pressure',
         'io.pressure', 'pids.current', 'io.stat')

image()
run('docker', 'network', 'create', 'other')
start('recorded', '--cpus', '0.2', '--memory', '64m', '--memory-swap', '64m', '-v', '/data', command='''
dd if=/dev/zero of=/data/file bs=1M count=8 conv=fsync 2>/dev/null
head -c 200m /dev/zero | (echo 1000 >/proc/self/oom_score_adj; exec tail) >/dev/null
head -c 8m /dev/zero | tail | sleep infinity &
while :; do cat /data/file >/dev/null; done''')
run('docker', 'network', 'connect', 'other', 'recorded')
one = inspect()['recorded']
group, process = group_of(one['State']['Pid'], one['Id']), one['State']['Pid']
wait('a process killed by the kernel', lambda: keyed(read(os.path.join(group, 'memory.events')))['oom_kill'], 600)
# Drops the page cache, so that later reads come from the disk.
write('/proc/sys/vm/drop_caches', '3')
time.sleep(60)
for name in FILES:
    print(f'==> {name} <==\n{read(os.path.join(group, name))}', end='')
print(f'==> net/dev <==\n{read(f"/proc/{process}/net/dev")}', end='')
remove_all()
run('docker', 'network', 'rm', 'other')
