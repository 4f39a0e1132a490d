"""Asks Beszel's agent for its figures every 5 s, as Beszel's hub does: over one SSH connection, with one session for each request.

beszel.py PORT KEY_FILE

Prints the number of bytes of each answer. Needs the package asyncssh.
"""
import asyncio
import sys
import time

import asyncssh

# The map {0: 0, 1: {0: 1000, 1: false}} in CBOR: the request for figures that are at most a second old.
REQUEST = bytes.fromhex("a2000001a2001903e801f4")
INTERVAL = 5


async def main(port, key):
    connection = await asyncssh.connect(
        "127.0.0.1",
        port,
        username="u",
        client_keys=[key],
        known_hosts=None,
        config=None,
        # The agent takes the version of the hub from this name.
        client_version="beszel_0.18.0",
    )
    due = time.monotonic()
    while True:
        session = await connection.create_process(encoding=None)
        session.stdin.write(REQUEST)
        session.stdin.write_eof()
        print(len(await session.stdout.read()), flush=True)
        due += INTERVAL
        await asyncio.sleep(max(0, due - time.monotonic()))


asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
