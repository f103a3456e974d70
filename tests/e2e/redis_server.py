"""A real Redis on an address of its own, for as long as a `with` block; nothing of it is on disk."""

import random
import shutil
import socket
import subprocess
import tempfile
import time

import pytest

PASSWORD = "a-password-that-no-log-shows"


class RedisServer:
    """`url` has the password; kill() and start() keep the address, which nobody else on this machine binds or connects from."""

    def __init__(self):
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed (deploy/install-deps.sh --test does it)")
        self.folder = tempfile.mkdtemp(prefix="sextant-redis-")
        self.process = None
        self.host = ".".join(["127", *(str(random.randint(2, 254)) for _ in range(3))])
        self.port = random.randint(10000, 30000)

    @property
    def url(self):
        return f"redis://:{PASSWORD}@{self.host}:{self.port}/3"

    def command(self, *words):
        """The raw answer to one command."""
        with socket.create_connection((self.host, self.port), timeout=30) as connection:
            sent = b""
            for line in (("AUTH", PASSWORD), ("SELECT", "3"), words):
                sent += b"*%d\r\n" % len(line) + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in line)
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        assert answer.startswith(b"+OK\r\n+OK\r\n"), answer[:100]
        return answer[10:].decode()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", self.host, "--requirepass", PASSWORD, "--save", "", "--appendonly", "no",
             "--dir", self.folder, "--enable-debug-command", "yes"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if self.command("PING").startswith("+PONG"):
                    return
            except (OSError, AssertionError):
                assert self.process.poll() is None, "redis-server ended"
                time.sleep(0.02)
        raise AssertionError("redis-server did not answer in 60 s")

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait(timeout=60)
            self.process = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
