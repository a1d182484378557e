#!/bin/sh
# After `npm install -g`: the package carries the native program for x86-64; elsewhere it is built here.
set -eu
cd "$(dirname "$0")/.."
# A checkout builds its own (`npm run setup`).
[ ! -e src ] || exit 0
[ "$(uname -s)" = Linux ] || { echo "skiff: runs on Linux only" >&2; exit 1; }
if [ "$(uname -m)" = x86_64 ] && [ -x native/build/skiff-native ]; then exit 0; fi
rm -f native/build/skiff-native
if command -v musl-gcc >/dev/null; then exec make -s -C native; fi
# Any C compiler with a static libc will do.
if command -v make >/dev/null && command -v "${CC:-cc}" >/dev/null; then
  exec make -s -C native CC="${CC:-cc}" KERNEL_HEADERS=
fi
echo "skiff: the daemon needs its native program, which is built on this machine: install make and musl-tools" >&2
echo "skiff: (apt-get install make musl-tools), then install skiff again. The command line works without it." >&2
