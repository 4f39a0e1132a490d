#!/usr/bin/env python3
"""Prints one line for each snapshot of an agent. Python 3.8 or newer, nothing else.

    API_KEY=… examples/client.py [--tls] [HOST:PORT]

By default 127.0.0.1:9000. From the environment:

    API_KEY, or API_KEY_FILE        the key, or a file that holds it alone
    AGENT_CA                        TLS, with an agent whose certificate this PEM file vouches for
                                    (--tls alone: the system's authorities)
    AGENT_NAME                      the name that the certificate must have, if it is not HOST
    AGENT_CERT, AGENT_KEY           PEM files of this client's certificate and key, for mutual TLS
    AGENT_TIMEOUT                   how many seconds without a snapshot are too many: 90
"""
import json
import os
import random
import signal
import socket
import ssl
import sys
import time

# Less for the agent to send, and for us to read.
OPTIONS = json.dumps({"sections": ["system", "containers"]})
LONGEST_WAIT = 30
# A host that loses its power says nothing more, and nothing ends the connection. 90 s are many times the agent's
# PUBLISH_INTERVAL of 5 s; where that is longer, so must this be.
SILENCE = float(os.environ.get("AGENT_TIMEOUT") or 90)


def fail(why, status=1):
    print(f"client.py: {why}", file=sys.stderr)
    sys.exit(status)


def read_key():
    key, path = os.environ.get("API_KEY"), os.environ.get("API_KEY_FILE")
    if not key and path:
        with open(path, encoding="ascii") as file:
            key = file.read().strip()
    return key or fail("set API_KEY or API_KEY_FILE")


def tls_context():
    context = ssl.create_default_context(cafile=os.environ.get("AGENT_CA") or None)
    if os.environ.get("AGENT_CERT"):
        context.load_cert_chain(os.environ["AGENT_CERT"], os.environ.get("AGENT_KEY"))
    return context


def connect(host, port, tls):
    stream = socket.create_connection((host, port), timeout=10)
    if tls:
        stream = tls.wrap_socket(stream, server_hostname=os.environ.get("AGENT_NAME") or host)
    stream.settimeout(SILENCE)
    return stream


def snapshots(host, port, key, tls):
    """One after the other, for ever: connects again whenever the connection is lost."""
    wait = 1
    while True:
        why = "the agent closed the connection"
        try:
            with connect(host, port, tls) as stream, stream.makefile("rb") as lines:
                stream.sendall(f"{key} {OPTIONS}\n".encode())
                for line in lines:
                    if line == b"Unauthorized\n":
                        fail("the key was refused: it is not one of the agent's", 2)
                    if not line.endswith(b"\n"):
                        break  # The connection broke within it.
                    snapshot = json.loads(line)
                    if "error" in snapshot:
                        fail(snapshot["error"])
                    yield snapshot
                    wait = 1
        except socket.timeout:
            why = f"no answer within 10 s, or no snapshot for {SILENCE:g} s"
        except (OSError, ValueError) as error:
            why = error
        # Not exactly: clients that were cut off at once must not all come back at once.
        pause = wait * random.uniform(0.75, 1)
        print(f"client.py: {why}; again in {pause:.1f} s", file=sys.stderr)
        time.sleep(pause)
        wait = min(2 * wait, LONGEST_WAIT)


def summary(snapshot):
    text = f"{snapshot['host']['hostname']}  cpu {snapshot['system']['cpu_percent'][0]:.1f} %"
    busiest = sorted(snapshot["containers"], key=lambda one: -one["cpu_percent"])[:3]
    if busiest:
        named = (f"{one['name'].lstrip('/')} {one['cpu_percent']:.1f} %" for one in busiest)
        text += "  busiest: " + ", ".join(named)
    return text


def main():
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: sys.exit(0))
    arguments = [one for one in sys.argv[1:] if one != "--tls"]
    host, _, port = (arguments or ["127.0.0.1:9000"])[0].rpartition(":")
    if len(arguments) > 1 or not (host and port):
        fail("usage: client.py [--tls] [HOST:PORT]")
    try:
        key = read_key()
        tls = tls_context() if "--tls" in sys.argv or os.environ.get("AGENT_CA") else None
    except (OSError, ValueError) as error:
        fail(error)
    for snapshot in snapshots(host.strip("[]"), port, key, tls):
        try:
            print(summary(snapshot), flush=True)
        except BrokenPipeError:
            # Nobody reads any more. Python would try once more as it ends, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return


if __name__ == "__main__":
    main()
