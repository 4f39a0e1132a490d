#!/usr/bin/env python3
"""Prints every log line of an agent's containers once, also if this program or the agent is restarted.

    API_KEY=… examples/shipper.py CURSOR_FILE [HOST:PORT]

The default is 127.0.0.1:9000, without TLS. CURSOR_FILE stores the position. It is written after the lines are printed. If the
program is killed between the two, the lines of the newest snapshot are printed again.
"""
import json
import os
import random
import socket
import sys
import time


def stored(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def store(path, cursor):
    # A power failure must not leave half a cursor: the new file replaces the old one when it is complete.
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(cursor)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def ship(snapshot):
    for container, count in snapshot["logs_dropped"].items():
        print(f"{container}: {count} lines are missing here", file=sys.stderr)
    for container, lines in snapshot["logs"].items():
        for line in lines:
            print(container, line)
    sys.stdout.flush()


def follow(host, port, key, path):
    options = {"sections": ["logs"], "logs": "new"}
    cursor = stored(path)
    if cursor:
        options["resume"] = cursor
    with socket.create_connection((host, port), timeout=90) as stream, stream.makefile("rb") as lines:
        stream.sendall(f"{key} {json.dumps(options)}\n".encode())
        for line in lines:
            if not line.endswith(b"\n"):
                return  # The connection broke in the middle of a line. The next connection gets this line again.
            if line == b"Unauthorized\n":
                sys.exit("shipper.py: the agent refused the API key")
            snapshot = json.loads(line)
            if "error" in snapshot:
                sys.exit(f"shipper.py: {snapshot['error']}")
            ship(snapshot)
            store(path, snapshot["agent"]["cursor"])


def main():
    if len(sys.argv) not in (2, 3) or not os.environ.get("API_KEY"):
        sys.exit("usage: API_KEY=… shipper.py CURSOR_FILE [HOST:PORT]")
    host, _, port = (sys.argv[2:] or ["127.0.0.1:9000"])[0].rpartition(":")
    while True:
        try:
            follow(host, port, os.environ["API_KEY"], sys.argv[1])
        except (OSError, ValueError) as error:
            print(f"shipper.py: {error}", file=sys.stderr)
        time.sleep(random.uniform(1, 3))


if __name__ == "__main__":
    main()
