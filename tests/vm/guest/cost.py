"""The CPU time that the installed agent adds to the engine."""
import statistics
import time

from vm import UNIT, Stream, image, remove_all, row, run, snapshot, start, wait

WINDOW = 30


def engine_seconds():
    """CPU time of dockerd, containerd and the shims in seconds, from their control groups."""
    total = 0
    for unit in ('docker', 'containerd'):
        with open(f'/sys/fs/cgroup/system.slice/{unit}.service/cpu.stat') as file:
            total += int(file.readline().split()[1])
    return total / 1e6


def window():
    before = engine_seconds()
    time.sleep(WINDOW)
    return engine_seconds() - before


def added(what, limit):
    """Measures the engine's CPU time with the installed agent and a client, and without both, in turns. Adds a row that compares
    the two times. `limit` is in seconds of the emulated processor, which is about 25 times slower than a real processor."""
    with_agent, without = [], []
    for _ in range(3):
        run('systemctl', 'stop', UNIT)
        time.sleep(5)
        without.append(window())
        run('systemctl', 'start', UNIT)
        wait('the agent', lambda: snapshot(2)['logs'])
        with Stream() as stream:
            stream.socket.settimeout(600)
            time.sleep(10)
            with_agent.append(window())
    noise = max(without) - min(without)
    difference = statistics.median(with_agent) - statistics.median(without)
    row(what, difference <= max(limit, noise), f"{difference:+.2f} s ({statistics.median(with_agent):.2f} with the agent, "
        f"{statistics.median(without):.2f} without, in {WINDOW} s; windows without the agent differ by {noise:.2f})")


def part_cost():
    image()
    for number in range(20):
        start(f'quiet-{number}', command='echo the only line; sleep infinity')
    time.sleep(60)
    added('20 quiet containers: the installed agent adds no engine CPU beyond noise', 0.3)
    remove_all()
    start('long', command='head -c 60m /dev/zero | tr "\\0" x; sleep infinity')
    wait('the log line', lambda: int(run('bash', '-c', 'cat /var/lib/docker/containers/*/*-json.log | wc -c')) > 60 << 20, 180, 5)
    time.sleep(10)
    added('one unfinished log line of 60 MB: the installed agent adds no engine CPU beyond noise', 0.3)
    seen = snapshot(2)
    row('the log line of 60 MB is truncated', len(str(seen['logs'])) < 40000, f"{len(str(seen['logs']))} bytes of logs")
    remove_all()
