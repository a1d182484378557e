"""Drives a command in a real pseudo-terminal. argv: a JSON list of steps, then the command.

A step is [wait-for, action, argument]: once wait-for was printed after the last step, `type` writes the argument,
`size` sets [rows, columns] and signals, `signal` sends a signal by number. Prints {"output", "code", "restored"}.
"""
import fcntl, json, os, pty, select, signal, struct, sys, termios, time

steps = json.loads(sys.argv[1])
ready, go = os.pipe()
pid, fd = pty.fork()
if pid == 0:
    # The command must not see a terminal without a size, nor change its settings before they were read.
    os.read(ready, 1)
    os.execvp(sys.argv[2], sys.argv[2:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
before = termios.tcgetattr(fd)
os.write(go, b"x")
output, seen, deadline = b"", 0, time.time() + 40
status = None
while time.time() < deadline:
    if select.select([fd], [], [], 0.05)[0]:
        try:
            chunk = os.read(fd, 65536)
        except OSError:
            break
        if not chunk:
            break
        output += chunk
    if steps and steps[0][0].encode() in output[seen:]:
        _, action, argument = steps.pop(0)
        seen = len(output)
        if action == "type":
            os.write(fd, argument.encode())
        elif action == "size":
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", argument[0], argument[1], 0, 0))
            os.kill(pid, signal.SIGWINCH)
            time.sleep(0.4)
        elif action == "signal":
            os.kill(pid, argument)
    done, raw = os.waitpid(pid, os.WNOHANG)
    if done:
        status = raw
        break
after = None
try:
    after = termios.tcgetattr(fd)
    while select.select([fd], [], [], 0.1)[0]:
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        output += chunk
except OSError:
    pass
if status is None:
    time.sleep(0.2)
    done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        status = None
code = None if status is None else os.waitstatus_to_exitcode(status)
print(json.dumps({"output": output.decode("utf8", "replace"), "code": code, "restored": after is None or after == before}))
