"""What a Python program does every day, through docker-py. Prints one JSON line per check: {"name", "ok", "error"}."""

import json
import sys
import threading
import time
import traceback

import docker

host, image = sys.argv[1], sys.argv[2]
client = docker.DockerClient(base_url=host, version="auto")


def pull():
    pulled = client.images.pull(image)
    assert image in pulled.tags, pulled.tags
    lines = list(client.api.pull(image, stream=True, decode=True))
    assert any("up to date" in line.get("status", "") for line in lines), lines


def system():
    assert client.ping() is True
    assert client.version()["Os"] == "linux"
    assert client.info()["Driver"] == "overlay2"


def run():
    assert client.containers.run(image, ["echo", "hello"], remove=True) == b"hello\n"


def run_failure():
    try:
        client.containers.run(image, ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    except docker.errors.ContainerError as error:
        assert error.exit_status == 3
        assert error.stderr == b"bad\n", error.stderr
    else:
        raise AssertionError("no ContainerError")


def missing():
    try:
        client.containers.create("nosuchimage:latest")
    except docker.errors.ImageNotFound as error:
        assert "No such image" in error.explanation, error.explanation
    else:
        raise AssertionError("no ImageNotFound")
    try:
        client.containers.get("nosuch")
    except docker.errors.NotFound as error:
        assert "No such container: nosuch" in error.explanation
    else:
        raise AssertionError("no NotFound")


def lifecycle():
    container = client.containers.create(image, ["sleep", "60"], name="py-life", labels={"py": "1"})
    container.start()
    container.reload()
    assert container.status == "running", container.status
    assert container.attrs["NetworkSettings"]["IPAddress"] != ""
    assert [c.id for c in client.containers.list(filters={"label": "py=1"})] == [container.id]
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    assert "sleep" in container.top()["Processes"][0][-1]
    container.rename("py-renamed")
    container.kill()
    assert container.wait()["StatusCode"] == 137
    container.remove()


def logs():
    container = client.containers.run(image, ["sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.05; done"], detach=True)
    streamed = b"".join(container.logs(stream=True, follow=True))
    assert streamed == b"line 1\nline 2\nline 3\n", streamed
    assert container.logs(tail=1) == b"line 3\n"
    assert container.logs(timestamps=True).split(b" ")[0].startswith(b"20")
    container.remove()


def attach():
    container = client.containers.create(image, ["cat"], stdin_open=True)
    api = client.api
    socket = api.attach_socket(container.id, params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    socket._sock.sendall(b"typed\n")
    time.sleep(0.3)
    data = socket._sock.recv(4096)
    assert data == b"\x01\x00\x00\x00\x00\x00\x00\x06typed\n", data
    socket.close()
    container.remove(force=True)


def executing():
    container = client.containers.run(image, ["sleep", "60"], detach=True)
    code, output = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 6"], demux=True)
    assert code == 6 and output == (b"out\n", b"err\n"), (code, output)
    code, output = container.exec_run("id -un", user="daemon", environment={"A": "1"}, workdir="/tmp")
    assert (code, output) == (0, b"daemon\n"), (code, output)
    code, output = container.exec_run(["tty"], tty=True)
    assert output.startswith(b"/dev/pts/"), output
    container.stop(timeout=0)
    container.remove()


def events():
    seen = []
    reader = client.events(decode=True, filters={"type": "container"})

    def read():
        for event in reader:
            seen.append(event["Action"])

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    client.containers.run(image, ["true"], remove=True)
    deadline = time.monotonic() + 20
    while "destroy" not in seen and time.monotonic() < deadline:
        time.sleep(0.02)
    reader.close()
    for action in ("create", "start", "die", "destroy"):
        assert action in seen, seen


def volumes():
    volume = client.volumes.create("py-volume", labels={"a": "b"})
    output = client.containers.run(image, ["sh", "-c", "echo kept > /v/f; cat /v/f"], volumes={"py-volume": {"bind": "/v", "mode": "rw"}}, remove=True)
    assert output == b"kept\n"
    assert client.volumes.get("py-volume").attrs["Labels"] == {"a": "b"}
    volume.remove()


def copies():
    container = client.containers.create(image, ["cat", "/copied/busybox"])
    chunks, stat = container.get_archive("/bin/busybox")
    archive = b"".join(chunks)
    assert stat["name"] == "busybox" and stat["size"] > 0, stat
    assert container.put_archive("/tmp", archive) is True
    assert container.get_archive("/tmp/busybox")[1]["size"] == stat["size"]
    try:
        container.put_archive("/none", archive)
    except docker.errors.NotFound as error:
        assert "Could not find the file /none in container" in error.explanation, error.explanation
    else:
        raise AssertionError("no NotFound")
    container.remove()


def images():
    shown = client.images.get(image)
    assert shown.tag("py/copy", tag="v1")
    assert "py/copy:v1" in client.images.get("py/copy:v1").tags
    client.images.remove("py/copy:v1")
    assert len(shown.history()) >= 1


failed = False
for check in (pull, system, run, run_failure, missing, lifecycle, logs, attach, executing, events, volumes, copies, images):
    try:
        check()
        print(json.dumps({"name": check.__name__, "ok": True}), flush=True)
    except Exception:
        failed = True
        print(json.dumps({"name": check.__name__, "ok": False, "error": traceback.format_exc()}), flush=True)
sys.exit(1 if failed else 0)
