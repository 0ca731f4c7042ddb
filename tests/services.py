"""Real servers for tests, on loopback and in a temporary folder: Postgres, an S3 of moto, and what one of Prefect needs."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import GUARD_SECONDS

POSTGRES_PASSWORD = "p4ss 'word\\"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Callable[..., None]]]:
    """The URL of a private Postgres server's ``postgres`` database, and a function that restarts it.

    Its password is ``POSTGRES_PASSWORD``.
    """
    found = shutil.which("initdb") or next(
        iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))), None
    )
    if found is None:
        pytest.skip("needs the binaries of a Postgres server (apt-get install postgresql)")
    binaries = Path(found).resolve().parent
    run_as: list[str] = []
    if os.geteuid() == 0:
        user = next(
            (name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}), None
        )
        if user is None or shutil.which("setpriv") is None:
            pytest.skip("Postgres refuses to run as root, and there is no setpriv or no other user")
        run_as = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups", "--"]
    folder = Path(f"/tmp/factory-postgres-{uuid.uuid4().hex[:8]}")  # short: the socket's path may have 107 bytes
    folder.mkdir(mode=0o755)
    data, password_file = folder / "data", folder / "password"
    data.mkdir(mode=0o700)
    password_file.write_text(POSTGRES_PASSWORD)
    if run_as:
        for path in (folder, data, password_file):
            os.chown(path, pwd.getpwnam(user or "").pw_uid, -1)

    def call(*command: str) -> None:
        done = subprocess.run([*run_as, *command], cwd=folder, capture_output=True, text=True, timeout=GUARD_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr

    port = free_port()
    call(
        str(binaries / "initdb"), "-D", str(data), "-U", "factory", "-A", "scram-sha-256",
        "--pwfile", str(password_file), "-E", "UTF8", "--locale", "C", "--no-sync",
    )  # fmt: skip
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
    options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off -c max_connections=60"

    def restart() -> None:
        call(*control, "-m", "fast", "stop")
        call(*control, "-o", options, "start")

    call(*control, "-o", options, "start")
    try:
        yield f"postgres://factory@127.0.0.1:{port}/postgres", restart
    finally:
        call(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: tuple[str, Callable[..., None]], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a fresh database on a private Postgres server; skips where no server can be started.

    The password is in the environment's PGPASSWORD.
    """
    import psycopg

    monkeypatch.setenv("PGPASSWORD", POSTGRES_PASSWORD)

    server, _ = postgres_server
    name = f"db_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, password=POSTGRES_PASSWORD, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.removesuffix("postgres") + name
    with psycopg.connect(server, password=POSTGRES_PASSWORD, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of a moto server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ``s3://`` address of a fresh bucket; the AWS_* environment points to a local server."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-s3")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of Prefect's: making one takes seconds, so the homes of most servers get a copy of this one."""
    path = tmp_path_factory.mktemp("migrated") / "prefect.db"
    environment = os.environ | {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{path}"}
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=GUARD_SECONDS)
    return path


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
