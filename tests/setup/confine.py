#!/usr/bin/python3
"""Runs a command with a list of allowed system calls. Any other system call kills the command.

    confine.py FILE COMMAND [ARGUMENT...]

FILE has the name of one system call on each line. Like systemd, this script ignores names that this machine's architecture does
not have."""
import os
import sys

import seccomp

with open(sys.argv[1]) as names:
    allowed = names.read().split()
calls = seccomp.SyscallFilter(defaction=seccomp.KILL_PROCESS)
for name in allowed:
    try:
        calls.add_rule(seccomp.ALLOW, name)
    except (OSError, RuntimeError, ValueError):
        pass
calls.load()
os.execvp(sys.argv[2], sys.argv[2:])
