"""A real PostgreSQL in a folder of its own, for as long as a `with` block; it listens on a socket in that folder alone."""

import glob
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile

import pytest

FOLDERS = sorted(glob.glob("/usr/lib/postgresql/*/bin"))


class PostgresServer:
    """`url` names its database. It refuses to run as root, hence the user."""

    def __init__(self):
        if not FOLDERS:
            pytest.skip("PostgreSQL is not installed (deploy/install-deps.sh --test does it)")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sextant-pg-"))
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user)
        self.is_running = False

    @property
    def url(self):
        return f"postgresql://advisor@/postgres?host={self.folder}"

    def _run(self, program, *arguments):
        options = {"user": self.user, "group": self.user, "extra_groups": []} if os.geteuid() == 0 else {}
        subprocess.run([f"{FOLDERS[-1]}/{program}", *map(str, arguments)], check=True, cwd=self.folder, stdout=subprocess.DEVNULL,
                       timeout=120, **options)

    def start(self):
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-t", "100", "-l", self.folder / "log", "-o",
                  f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off", "start")
        self.is_running = True

    def stop(self, mode="immediate"):
        """`immediate` is what a crash is; connections are cut."""
        self._run("pg_ctl", "-D", self.folder / "data", "-m", mode, "-w", "stop")
        self.is_running = False

    def __enter__(self):
        try:
            self._run("initdb", "-D", self.folder / "data", "-U", "advisor", "--auth=trust", "--no-sync", "--locale=C.UTF-8")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        try:
            if self.is_running:
                self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
