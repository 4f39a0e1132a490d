#!/usr/bin/env python3
"""Prints the report of a run in Markdown: report.py SUITE VERSIONS <ROWS. Each row is a JSON line from tests/vm/guest/vm.py."""
import json
import sys

suite, versions = sys.argv[1:3]
rows = [json.loads(line) for line in sys.stdin]
failed = sum(not row['passed'] for row in rows)
cell = lambda text: text.replace('|', '\\|').replace('\n', ' ')
print(f'## Debian {suite}\n\n{versions}. {len(rows)} checks, {failed} failed.\n')
print('| part | check | | seen |\n|---|---|---|---|')
for row in rows:
    print(f"| {row['part']} | {cell(row['what'])} | {'ok' if row['passed'] else '**failed**'} | {cell(row['seen'])} |")
