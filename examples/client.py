#!/usr/bin/env python3
"""Prints one line for each snapshot of an agent. Needs Python 3.8 or newer, and only its standard library.

    API_KEY=… examples/client.py [--tls] [HOST:PORT]

The default is 127.0.0.1:9000. Environment variables:

    API_KEY or API_KEY_FILE         the key, or a file that contains only the key
    AGENT_CA                        use TLS, and trust the authorities in this PEM file
                                    (--tls without AGENT_CA: trust the authorities of the system)
    AGENT_NAME                      the name that the agent's certificate must contain; default: HOST
    AGENT_CERT, AGENT_KEY           PEM files with this client's certificate and key, for mutual TLS
    AGENT_TIMEOUT                   reconnect after this many seconds without a snapshot; default: 90
"""
import json
import os
import random
import signal
import socket
import ssl
import sys
import time

# This client needs only two sections of a snapshot, so it does not request the other sections.
OPTIONS = {"sections": ["system", "containers"]}
MAX_WAIT = 30  # seconds
# If the agent's host loses power, nothing closes the connection, so the client needs a timeout. 90 s is many times the
# agent's default PUBLISH_INTERVAL of 5 s. If the agent has a much longer interval, set AGENT_TIMEOUT.
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
    """Yields one snapshot after the other, without end. Connects again whenever the connection is lost."""
    wait, options = 1, OPTIONS
    while True:
        why = "the agent closed the connection"
        try:
            with connect(host, port, tls) as stream, stream.makefile("rb") as lines:
                stream.sendall(f"{key} {json.dumps(options)}\n".encode())
                for line in lines:
                    if line == b"Unauthorized\n":
                        fail("the agent refused the API key", 2)
                    if not line.endswith(b"\n"):
                        break  # The connection broke before the end of the line.
                    snapshot = json.loads(line)
                    if "error" in snapshot:
                        fail(snapshot["error"])
                    yield snapshot
                    # With `"logs": "new"` or the section events, the next connection continues after this snapshot.
                    cursor = snapshot.get("agent", {}).get("cursor")
                    wait, options = 1, {**OPTIONS, "resume": cursor} if cursor else OPTIONS
        except socket.timeout:
            why = f"no answer within 10 s, or no snapshot for {SILENCE:g} s"
        except (OSError, ValueError) as error:
            why = error
        # The pause is random, so that many clients do not connect at the same time after the agent restarts.
        pause = wait * random.uniform(0.75, 1)
        print(f"client.py: {why}; retry in {pause:.1f} s", file=sys.stderr)
        time.sleep(pause)
        wait = min(2 * wait, MAX_WAIT)


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
            # The program that reads this output has ended. Without this, Python would write again at its exit and print an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return


if __name__ == "__main__":
    main()
