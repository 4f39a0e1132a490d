#!/usr/bin/env bash
# Checks the dependencies with cargo-deny: advisories, licences, bans, sources.
set -euo pipefail

if ! cargo deny --version >/dev/null 2>&1; then
    echo 'installing cargo-deny'
    cargo install --quiet --locked cargo-deny
fi

if cargo deny --log-level off fetch db >/dev/null 2>&1; then
    exec cargo deny --locked check
fi
echo 'NOTE: cannot download the advisory database: ADVISORIES ARE NOT CHECKED; licences, bans and sources are checked'
exec cargo deny --locked check licenses bans sources
