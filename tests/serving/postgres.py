"""A PostgreSQL server of one's own."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


class Missing(Exception):
    """PostgreSQL cannot be started here, for a reason."""


@contextlib.contextmanager
def running() -> Iterator[Path]:
    """Its address, which is the folder of its socket; it has no databases of ours."""
    if not _PROGRAMS or shutil.which("runuser") is None:
        raise Missing("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # paths of sockets are short
    user = _other_user(folder) if os.getuid() == 0 else []
    data = folder / "data"

    def call(program: str, *arguments: str) -> None:
        command = [*user, str(_PROGRAMS[0] / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, timeout=600)

    call("initdb", f"--pgdata={data}", "--username=lumiere", "--auth=trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=200"
    call("pg_ctl", "-w", f"--pgdata={data}", f"--log={folder}/log", "-o", options, "start")
    try:
        yield folder
    finally:
        call("pg_ctl", "-w", f"--pgdata={data}", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def new_database(address: Path) -> str:
    """URL of an empty database."""
    import psycopg

    name = f"t{os.urandom(6).hex()}"
    with psycopg.connect(
        host=str(address), user="lumiere", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://lumiere@/{name}?host={address}"


def _other_user(folder: Path) -> list[str]:
    """How to run it, as it refuses to run as root."""
    try:
        owner = pwd.getpwnam("postgres")
    except KeyError as error:
        raise Missing("there is no user postgres to run it") from error
    os.chown(folder, owner.pw_uid, owner.pw_gid)
    return ["runuser", "-u", "postgres", "--"]
