"""Podman of root and of a user, with pods."""
import collections
import subprocess
import time

from figures import MAX_ROUND, compare, sources
from logs import NUMBERED
from vm import ByHand, HAND_KEY, Stream, image, inspect, note, remove_all, row, run, shell, start, told, wait


def check_figures(what, agent):
    known = inspect('podman')
    for one in known.values():
        # Podman leaves out fields that the comparison needs.
        one['HostConfig']['NetworkMode'] = one['HostConfig'].get('NetworkMode', '')
        one['HostConfig']['NanoCpus'] = one['HostConfig'].get('NanoCpus', 0)
        one['HostConfig']['PidsLimit'] = one['HostConfig'].get('PidsLimit', 0)
        if not isinstance(one['State'].get('Health'), dict) or not one['State']['Health'].get('Status'):
            one['State']['Health'] = None
    before = {name: sources(one) for name, one in known.items()}
    seen = agent.snapshot(2, measured_after=time.time() + MAX_ROUND)
    after = {name: sources(one) for name, one in known.items()}
    found = {one['name'].lstrip('/'): one for one in seen['containers']}
    # Podman reports these fields in another form than Docker, so they are not compared.
    skip = ('started_at', 'pids_limit', 'image_digest', 'status')
    wrong = [f'{name}: {text}' for name, one in known.items() if name in found
             for text in compare(found[name], one, before[name], after[name]) if not text.startswith(skip)]
    missing = [f'{name} is missing' for name in known if name not in found]
    row(what, not wrong and not missing, '; '.join(wrong + missing) or
        f"{len(found)} containers, via {seen['sources']['docker']['via']}, {seen['sources']['docker']['error']}")
    return seen, found


def part_podman():
    shell('systemctl stop docker.socket docker; systemctl start podman.socket')
    image('podman')
    start('idle', engine='podman')
    start('limited', '--memory', '64m', '--pids-limit', '60', '--cpus', '0.3', engine='podman', command='while :; do :; done')
    start('logs', engine='podman', command=NUMBERED)
    start('hostnet', '--network', 'host', engine='podman')
    start('shares', '--network', 'container:idle', engine='podman')
    run('podman', 'pod', 'create', '--name', 'pod')
    run('podman', 'run', '--detach', '--pod', 'pod', '--name', 'inpod', 'localhost/bb')
    start('paused', engine='podman')
    run('podman', 'pause', 'paused')
    with ByHand(DOCKER_HOST='unix:///run/podman/podman.sock') as agent:
        wait('the containers of Podman', lambda: len(agent.snapshot(2)['containers']) >= 7, 90)
        seen, found = check_figures('Podman of root: every figure lies between two readings of its source', agent)
        row('Podman of root: a paused container stays listed', found.get('paused', {}).get('status') == 'paused')
        row('Podman of root: the container of a pod is listed', 'inpod' in found, sorted(found))
        owners = sorted(one['container'] for one in seen['system']['network'] if one.get('container'))
        row('Podman of root: every veth has the name of its container', {'idle', 'limited', 'logs', 'paused'} <= set(owners), owners)
        lines = wait('logs', lambda: agent.snapshot(2)['logs'].get('logs'))
        row('Podman of root: logs are read', lines, lines[-1])
        with Stream({'sections': ['events']}, agent.port, HAND_KEY) as stream:
            stream.next()
            run('podman', 'restart', '--time', '0', 'logs')
            run('podman', 'rm', '--force', '--time', '0', 'hostnet')
            got, end = [], time.monotonic() + 12
            while time.monotonic() < end:
                got += [(one['action'], one['container']) for one in stream.next()['events']]
        counts = collections.Counter(got)
        wrong = [(what, counts[what]) for what in (('die', 'logs'), ('start', 'logs'), ('die', 'hostnet'), ('destroy', 'hostnet'))
                 if counts[what] != 1]
        row('Podman of root: each action is one event', not wrong, wrong or got)
    remove_all('podman')
    shell('systemctl stop podman.socket podman.service; systemctl start docker')


ROOTLESS = '''export XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus; cd
systemctl --user start podman.socket
python3 - <<'X'
import sys; sys.path.insert(0, '/usr/local/share/trial')
from vm import image; image('podman')
X
podman run -d --name idle localhost/bb
podman run -d --name limited --memory 64m --pids-limit 60 localhost/bb
podman run -d --name logs localhost/bb sh -c '%s'
'''


def part_rootless():
    shell('mkdir -p /usr/local/share/trial; cp /root/*.py /usr/local/share/trial/; chmod -R a+rX /usr/local/share/trial')
    run('loginctl', 'enable-linger', 'user')
    wait("the user's own systemd", lambda: run('systemctl', 'is-active', 'user@1000', check=False) == 'active')
    script = ROOTLESS % NUMBERED
    done = subprocess.run(['setpriv', '--reuid', '1000', '--regid', '1000', '--init-groups', '--reset-env', 'bash', '-c', script],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    note(done.stdout[-500:])
    with ByHand(user='user', DOCKER_HOST='unix:///run/user/1000/podman/podman.sock') as agent:
        def complete():
            seen = agent.snapshot(3)
            return seen if len(seen['containers']) == 3 and seen['logs'].get('logs') else None
        try:
            seen = wait('the containers of Podman', complete, 120)
        except (RuntimeError, OSError):
            note(open('/root/by-hand.log').read()[-1500:])
            raise
        found = {one['name'].lstrip('/'): one for one in seen['containers']}
        row('Podman of a user: containers, limits and logs are shown', found['limited']['memory_limit'] == 64 << 20,
            {name: (one['memory_usage'], one.get('pids')) for name, one in found.items()})
        row('Podman of a user: figures come from the kernel', seen['sources']['docker']['via'] == 'kernel', told(seen, 'docker'))
    shell("runuser -u user -- env XDG_RUNTIME_DIR=/run/user/1000 podman rm --force --all --time 0", check=False)
    run('loginctl', 'disable-linger', 'user')
