#!/usr/bin/env bash
# Runs a command in the virtual machine, as root: in.sh PORT COMMAND...; standard input goes along.
port=$1
shift
vm=$(dirname "$(realpath "$0")")/../../target/vm
vm=$(realpath "$vm")
# One connection is kept open: a login takes the emulated processor a second.
exec ssh -q -i "$vm/key" -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5 \
    -o ControlMaster=auto -o "ControlPath=$vm/ssh-%p" -o ControlPersist=600 root@127.0.0.1 "$@"
