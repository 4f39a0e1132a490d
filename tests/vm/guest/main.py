#!/usr/bin/env python3
"""Runs parts of the test inside the virtual machine: main.py PART... Prints each row of the report as a JSON line."""
import sys
import time
import traceback

import cost
import engines
import figures
import guest
import host
import logs
import pages
import podman
import release
import services
import units
import vm
import web

PARTS = {name[5:]: function for module in (units, services, figures, logs, host, guest, engines, podman, cost, pages, web,
                                                                                  release)
         for name, function in vars(module).items() if name.startswith('part_') and function.__module__ == module.__name__}

for name in sys.argv[1:]:
    vm.part = name
    begun = time.monotonic()
    try:
        PARTS[name]()
    except Exception:
        # A part that ends with an exception has not passed.
        traceback.print_exc()
        vm.row('the part ends without an error', False, traceback.format_exc().strip().splitlines()[-1])
        # The next part must begin without containers. Not every machine has Podman.
        for engine in ('docker', 'podman'):
            try:
                vm.remove_all(engine)
            except (RuntimeError, FileNotFoundError):
                pass
    vm.note(f'{name}: {time.monotonic() - begun:.0f} s')
