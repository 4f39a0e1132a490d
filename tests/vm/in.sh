#!/usr/bin/env bash
# Runs a command as root in the virtual machine and passes standard input to it: in.sh PORT COMMAND...
port=$1
shift
vm=$(dirname "$(realpath "$0")")/../../target/vm
vm=$(realpath "$vm")
# One connection stays open, because a login takes a second on the emulated processor.
exec ssh -q -i "$vm/key" -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5 \
    -o ControlMaster=auto -o "ControlPath=$vm/ssh-%p" -o ControlPersist=600 root@127.0.0.1 "$@"
