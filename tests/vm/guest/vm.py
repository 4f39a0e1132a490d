"""Functions that all parts share: commands, containers, the agent's stream, and the rows of the report."""
import datetime
import json
import os
import socket
import subprocess
import sys
import time

ENV = '/etc/system-agent/agent.env'
UNIT = 'system-agent'
HAND_KEY = 'key-of-an-agent-by-hand'
part = '?'


def row(what, passed, seen=''):
    """Prints a row of the report: one JSON line on standard output."""
    print(json.dumps({'part': part, 'what': what, 'passed': bool(passed), 'seen': str(seen)[:300]}), flush=True)


def note(text):
    print(f'  {time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)


def run(*command, check=True, **options):
    """Runs a command and returns its standard output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if check and done.returncode != 0:
        raise RuntimeError(f'{" ".join(command)}: status {done.returncode}: {(done.stdout + done.stderr)[-500:]}')
    return done.stdout.strip()


def succeeds(*command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def shell(script, check=True):
    return run('bash', '-c', script, check=check)


def wait(what, condition, seconds=90, pause=1):
    """Waits until a condition holds and returns its value. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise RuntimeError(f'waited {seconds} s for {what}')
        time.sleep(pause)


def read(path, default=None):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        if default is None:
            raise
        return default


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as file:
        file.write(text)


def keyed(text):
    """Parses lines of a name and a number."""
    return {line.split()[0]: int(line.split()[1]) for line in text.splitlines()}


# --- the agent -------------------------------------------------------------------------------------------------------


def unit(name):
    """A property of the agent's unit."""
    return run('systemctl', 'show', '--property', name, '--value', UNIT)


def key():
    return next(line[8:].strip() for line in read(ENV).splitlines() if line.startswith('API_KEY='))


def configure(**variables):
    """Sets variables in the agent's environment file. None removes a variable."""
    lines = [line for line in read(ENV).splitlines() if line.split('=')[0] not in variables]
    lines += [f'{name}={value}' for name, value in variables.items() if value is not None]
    with open(ENV, 'w') as file:
        file.write('\n'.join(lines) + '\n')


class Stream:
    """A client of an agent."""

    def __init__(self, options=None, port=9000, secret=None):
        hello = secret or key()
        if options:
            hello += ' ' + json.dumps(options)
        self.socket = socket.create_connection(('127.0.0.1', port), 30)
        self.socket.settimeout(120)
        self.socket.sendall(hello.encode() + b'\n')
        self.file = self.socket.makefile('rb')

    def next(self):
        line = self.file.readline()
        if not line:
            raise RuntimeError('the agent has closed the connection')
        return json.loads(line)

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def snapshot(count=2, options=None, port=9000, secret=None, measured_after=None):
    """Reads `count` snapshots and returns the newest snapshot. An agent's first snapshot has no rates. `measured_after` is in
    Unix seconds. If it is set, reads further snapshots until the containers were measured after this time. On a busy host this
    needs several snapshots, because the agent measures the containers less often."""
    def connect():
        try:
            return Stream(options, port, secret)
        except OSError:
            return None
    with wait('a connection to the agent', connect, 60) as stream:
        for _ in range(count - 1):
            stream.next()
        while True:
            seen = stream.next()
            collected_at = seen['sources']['docker']['collected_at']
            if measured_after is None or (collected_at and seconds(collected_at) > measured_after):
                return seen


def seconds(timestamp):
    """Converts a timestamp of a snapshot to Unix seconds."""
    return datetime.datetime.fromisoformat(timestamp.replace('Z', '+00:00')).timestamp()


class ByHand:
    """An agent that root or another user starts by hand, on its own port."""

    def __init__(self, port=9001, user=None, **variables):
        self.port = port
        environment = {'PATH': os.environ['PATH'], 'API_KEY': HAND_KEY, 'SOCKET_ADDRESS': '127.0.0.1',
                       'SOCKET_PORT': str(port), **variables}
        command = ['/usr/bin/system-agent', 'run']
        if user:
            command = ['setpriv', '--reuid', user, '--regid', user, '--init-groups', *command]
        self.log = open('/root/by-hand.log', 'w')
        self.process = subprocess.Popen(command, env=environment, stderr=self.log)

    def snapshot(self, count=2, options=None, measured_after=None):
        return snapshot(count, options, self.port, HAND_KEY, measured_after)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def told(seen, *sources):
    """A short description of the state of these sources in a snapshot."""
    def one(name):
        health = seen['sources'][name]
        reason = health['error'] or health.get('via_reason')
        return f"{name} via {health.get('via')}, {health['status']}" + (f' ({reason})' if reason else '')
    return '; '.join(map(one, sources))


# --- engines and containers ------------------------------------------------------------------------------------------

def loop(command, pause):
    """A shell script for containers that runs a command every `pause` seconds. The script starts no other process to wait."""
    return f'mkfifo /tmp/wait; exec 3<>/tmp/wait; i=0; while :; do i=$((i+1)); {command}; read -t {pause} x <&3; done'


def image(engine='docker'):
    """Makes the busybox image `bb` if the engine does not have it."""
    script = f'''d=$(mktemp -d); cd $d; mkdir -p bin tmp proc sys etc data root; cp /bin/busybox bin/
for a in $(/bin/busybox --list); do [ $a = busybox ] || ln -s busybox bin/$a; done
echo root:x:0:0:root:/root:/bin/sh >etc/passwd
tar -c . | {engine} import --change 'CMD ["sleep","infinity"]' - bb; cd /; rm -rf $d'''
    if not succeeds(engine, 'image', 'inspect', 'bb'):
        shell(script)


def start(name, *options, command=None, engine='docker'):
    """Starts a container with these options and this shell script."""
    script = ['sh', '-c', command] if command else []
    own = 'bb' if engine == 'docker' else 'localhost/bb'
    return run(engine, 'run', '--detach', '--name', name, *options, own, *script)


def remove_all(engine='docker'):
    if engine == 'podman':
        run('podman', 'pod', 'rm', '--force', '--all', '--time', '0', check=False)
        run('podman', 'rm', '--force', '--all', '--time', '0')
        return
    ids = run(engine, 'ps', '--all', '--quiet').split()
    if ids:
        run(engine, 'rm', '--force', *ids)


def inspect(engine='docker'):
    """The inspection of each running container, by name."""
    ids = run(engine, 'ps', '--quiet', '--no-trunc').split()
    known = json.loads(run(engine, 'inspect', *ids)) if ids else []
    return {one['Name'].lstrip('/'): one for one in known}


def daemon(settings=None, environment=None):
    """Restarts dockerd with this daemon.json and environment."""
    file, drop_in = '/etc/docker/daemon.json', '/etc/systemd/system/docker.service.d/trial.conf'
    for path in (file, drop_in):
        if os.path.exists(path):
            os.remove(path)
    if settings:
        write(file, json.dumps(settings))
    if environment:
        write(drop_in, '[Service]\n' + ''.join(f'Environment={name}={value}\n' for name, value in environment.items()))
    run('systemctl', 'daemon-reload')
    run('systemctl', 'reset-failed', 'docker', check=False)
    run('systemctl', 'restart', 'docker')
    wait('dockerd', lambda: succeeds('docker', 'version'), 120)


def group_of(process, id):
    """The directory of a container's control group."""
    path = read(f'/proc/{process}/cgroup').strip().split('::', 1)[1]
    # The process can be in a control group below the container's control group, so go up to the container's control group.
    parts = path.split('/')
    while len(parts) > 1 and id not in parts[-1]:
        parts.pop()
    return '/sys/fs/cgroup' + ('/'.join(parts) if len(parts) > 1 else path)
