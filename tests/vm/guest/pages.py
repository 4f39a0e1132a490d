"""Runs the commands of docs/install.md and docs/prometheus.md as a new user types them, block by block, in their order.

The pages need a second machine. Here it is a network namespace with its own address, which can log in to this machine by ssh.
"""
import json
import os
import re
import shutil
import subprocess

from vm import ENV, Stream, image, key, read, remove_all, row, run, shell, start, unit, wait, write

# The directory in which the page's user works. It holds the built program and the package.
WORK = '/root/work'
# The headings whose commands run here. The tests of the pages read this table.
FOLLOWED = (
    ('docs/install.md', 'Install the package'),
    ('docs/install.md', 'Verify the installation'),
    ('docs/install.md', 'Change the configuration'),
    ('docs/install.md', 'Let other hosts connect by TLS'),
    ('docs/install.md', 'Watch it from another host'),
    ('docs/install.md', 'Require client certificates'),
    ('docs/install.md', 'Install by hand'),
    ('docs/install.md', 'Install in a container'),
    ('docs/install.md', 'Use it with Podman of root'),
    ('docs/install.md', 'Use it with Podman of a user'),
    ('docs/install.md', 'Remove the package'),
    ('docs/install.md', 'Remove an installation by hand'),
    ('docs/prometheus.md', 'Scrape it'),
)
# This machine has no sudo, so everything runs as root. It has no compiler, so the commands in ELSEWHERE are left out.
BEFORE = 'set -euo pipefail; sudo() { "$@"; }; '
ELSEWHERE = ('make deb', 'make image', 'cargo build --locked --release')
USER = ('setpriv', '--reuid', '1000', '--regid', '1000', '--init-groups', 'env', '-i', 'HOME=/home/user', 'PATH=/usr/local/bin:/usr/bin:/bin',
        'XDG_RUNTIME_DIR=/run/user/1000', 'DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus')
SECOND = ('ip', 'netns', 'exec', 'second', 'env', 'HOME=/root/second')


def blocks(page, heading):
    """The blocks of shell commands below a heading."""
    assert (page, heading) in FOLLOWED, heading
    section = re.search(rf'^#+ {re.escape(heading)}$(.*?)(?=^##+ |\Z)', read(f'/root/{os.path.basename(page)}'), re.M | re.S).group(1)
    return [block.strip() for block in re.findall(r'^```sh$(.*?)^```$', section, re.M | re.S)]


def follow(page, heading, launcher=()):
    """Runs the commands of a section and returns their output. The terminal view runs for 20 seconds."""
    printed = ''
    for block in blocks(page, heading):
        if block in ELSEWHERE:
            continue
        if re.search(r'system-agent watch ', block):
            printed += in_terminal(block, launcher)
            continue
        done = subprocess.run([*launcher, 'bash', '-c', BEFORE + block], cwd='/' if launcher else WORK, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        printed += done.stdout
        if done.returncode:
            raise RuntimeError(f'{heading}: {block}: status {done.returncode}: {done.stdout[-500:]}')
    return printed


def in_terminal(command, launcher):
    """Runs a command in a terminal for up to 20 s and returns its output. Types the key for the prompt."""
    command = f"stty rows 50 cols 200; timeout --foreground 20 bash -c {shell_quoted(command)}"
    process = subprocess.Popen([*launcher, 'env', 'TERM=xterm', 'NO_COLOR=1', 'script', '-qec', command, '/dev/null'],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdin.write(key().encode() + b'\n')
    process.stdin.flush()
    printed = process.stdout.read().decode(errors='replace')
    process.wait()
    return printed


def shell_quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def second_machine():
    """Makes a network namespace with its own address. In the namespace, the name of this machine is web-1, and ssh can log in to
    this machine."""
    write('/etc/netns/second/hosts', '127.0.0.1 localhost\n192.0.2.1 web-1\n')
    shell('''ip netns add second
        ip link add to-second type veth peer name eth0 netns second
        ip address add 192.0.2.1/24 dev to-second
        ip link set to-second up
        ip -n second address add 192.0.2.2/24 dev eth0
        ip -n second link set eth0 up
        ip -n second link set lo up
        mkdir -p /root/second
        ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
        cat /root/.ssh/id_ed25519.pub >>/root/.ssh/authorized_keys''')
    write('/root/.ssh/config', 'StrictHostKeyChecking accept-new\n')


def is_active():
    return unit('ActiveState') == 'active'


def prepare():
    """Makes the working directory of the page's user and removes the package."""
    shell('DEBIAN_FRONTEND=noninteractive apt-get purge -y system-agent 2>&1')
    for directory in ('target/release', 'config'):
        os.makedirs(f'{WORK}/{directory}', exist_ok=True)
    shutil.copy('/root/1.deb', f'{WORK}/system-agent_1_amd64.deb')
    shutil.copy('/root/system-agent', f'{WORK}/target/release/')
    for file in ('agent.env', 'system-agent.service', 'compose.yml'):
        shutil.copy(f'/root/{file}', f'{WORK}/config/')


def part_pages():
    prepare()
    image()
    start('web', command='while :; do echo a line of the log; sleep 1; done')

    printed = follow('docs/install.md', 'Install the package')
    row('install.md: the package is installed and its key is printed', re.search(r'^API_KEY=[0-9a-f]{64}$', printed, re.M))
    wait('the unit', is_active)
    wait('a first snapshot', lambda: 'PASS' in shell(f'set -a; . {ENV}; system-agent check socket', check=False))
    printed = follow('docs/install.md', 'Verify the installation')
    lines = [line for line in printed.splitlines() if line.startswith(('PASS', 'FAIL', 'SKIP'))]
    row('install.md: check and check socket find no error', len(lines) > 8 and not any(line.startswith('FAIL') for line in lines),
        ' / '.join(lines))
    row('install.md: watch shows the host and its container', 'web' in printed.split('API key')[-1])
    follow('docs/install.md', 'Change the configuration')
    wait('the unit', is_active)

    printed = follow('docs/prometheus.md', 'Scrape it')
    row('prometheus.md: curl gets the figures with the token', 'node_load1 ' in printed)

    second_machine()
    follow('docs/install.md', 'Let other hosts connect by TLS')
    wait('the unit', is_active)
    wait('the port', lambda: '*:9000' in run('ss', '-Hltn'))
    printed = follow('docs/install.md', 'Watch it from another host', SECOND)
    row('install.md: openssl verifies the certificate from a second machine', 'Verification: OK' in printed)
    row('install.md: watch over TLS shows the host from a second machine', 'web-1' in printed.split('Verification: OK')[-1]
        and 'web' in printed.split('Verification: OK')[-1])

    printed = follow('docs/install.md', 'Require client certificates', SECOND)
    row('install.md: watch with a client certificate shows the host from a second machine', 'web-1' in printed)
    row('install.md: without a client certificate no key is accepted', not snapshot_line())
    shell(f"sed -i '/^TLS_CLIENT_CA_FILE=/d' {ENV}; systemctl restart system-agent")
    wait('the unit', is_active)

    run('systemctl', 'stop', 'system-agent')
    run('docker', 'load', '--quiet', '--input', '/root/image.tar')
    printed = follow('docs/install.md', 'Install in a container')
    row('install.md: check finds no error in the container', 'PASS' in printed and 'FAIL' not in printed,
        ' / '.join(line for line in printed.splitlines() if line.startswith(('PASS', 'FAIL', 'SKIP'))))
    shell(f'cd {WORK} && docker-compose --env-file config/.env -f config/compose.yml down 2>&1')
    run('systemctl', 'start', 'system-agent')

    remove_all()
    shell('systemctl stop docker.socket docker')
    follow('docs/install.md', 'Use it with Podman of root')
    wait('the unit', is_active)
    image('podman')
    start('pod', engine='podman')
    seen = wait('a container of Podman', lambda: [one for one in snapshot_tls()['containers'] if one['name'].strip('/') == 'pod'])
    told = snapshot_tls()['sources']['docker']
    row('install.md: with Podman the container has figures', seen[0]['memory_usage'] > 0, f"via {told['via']}, {told['error']}")
    remove_all('podman')
    shell('systemctl stop podman.socket podman.service; systemctl start docker')

    run('loginctl', 'enable-linger', 'user')
    wait("the user's own systemd", lambda: run('systemctl', 'is-active', 'user@1000', check=False) == 'active')
    follow('docs/install.md', 'Use it with Podman of a user', USER)
    user = read('/home/user/.config/system-agent/agent.env')
    secret = re.search('API_KEY=(.*)', user).group(1)
    def sees_engine():
        try:
            with Stream(None, 9001, secret) as stream:
                return stream.next()['sources']['docker']['status'] == 'ok'
        except ConnectionRefusedError:
            # The agent does not listen yet.
            return False
    row('install.md: the agent of a user reaches the Podman of this user', wait('its engine', sees_engine))
    shell("runuser -u user -- env XDG_RUNTIME_DIR=/run/user/1000 systemctl --user disable --now system-agent podman.socket 2>&1")
    run('loginctl', 'disable-linger', 'user')

    follow('docs/install.md', 'Remove the package')
    row('install.md: no file is left after the package is removed', not os.path.exists('/etc/system-agent')
        and not os.path.exists('/usr/bin/system-agent'))
    shell('ip netns delete second')
    shell('DEBIAN_FRONTEND=noninteractive apt-get install -y /root/1.deb 2>&1')
    wait('the unit', is_active)


def snapshot_tls():
    """The newest snapshot of an agent that serves TLS."""
    return json.loads(snapshot_line())


def snapshot_line():
    """The first line that an agent with TLS sends to a client with the right key and without a certificate."""
    done = subprocess.run(['bash', '-c', '(echo "$KEY"; sleep 3) | openssl s_client -quiet -connect 127.0.0.1:9000 2>/dev/null | head -n 1'],
                          env={**os.environ, 'KEY': key()}, stdout=subprocess.PIPE)
    return done.stdout
