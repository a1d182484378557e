#!/bin/sh
# Runs what the host asks for, one line a command: `<id> <seconds> <command in base64>`. Says when the system has booted.
until [ -e /dev/virtio-ports/skiff.vm ]; do sleep 0.2; done
exec 3<>/dev/virtio-ports/skiff.vm
printf 'boot %s\n' "$(cat /proc/sys/kernel/random/boot_id)" >&3
while read -r id limit command <&3; do
  printf %s "$command" | base64 -d >/run/vm-command
  status=0
  timeout -s KILL "$limit" sh /run/vm-command </dev/null >/run/vm-out 2>/run/vm-err || status=$?
  printf 'done %s %s o%s e%s\n' "$id" "$status" "$(base64 -w0 /run/vm-out)" "$(base64 -w0 /run/vm-err)" >&3
done
