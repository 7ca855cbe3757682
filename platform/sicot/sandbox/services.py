"""What stands beside a sandbox's Ray nodes: S3, a database, MLflow and Prometheus.

They share a place in the sandbox's network, so that other machines, which may route to this one's addresses, do not
reach them. An ``address`` there is host:port.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pyarrow.fs as pafs
import requests
import yaml

from sicot.errors import UserError
from sicot.sandbox.processes import Command

PLACE = "services"
"""Where they are in the network."""
BUCKET = "sicot"
KEYS = {"AWS_ACCESS_KEY_ID": "sandbox", "AWS_SECRET_ACCESS_KEY": "sandbox", "AWS_DEFAULT_REGION": "us-east-1"}
"""What S3's clients want to be given; the sandbox's server takes anything."""
PACKAGES = "apt-get install postgresql prometheus (make packages does it)"


@dataclass(frozen=True)
class Part:
    """One thing that runs in the sandbox."""

    name: str
    address: str
    """For people."""
    command: Command
    ready: Callable[[], bool]
    """Whether it answers."""
    needs: tuple[str, ...] = ()
    """Parts that must answer before this one is started."""
    place: str = ""
    """Where it is in the network; "": it needs none."""


def store(address: str, folder: Path) -> Part:
    """An S3 server that keeps everything in memory."""
    if importlib.util.find_spec("moto") is None:
        raise UserError(
            "the sandbox's S3 server needs moto: pip install -r requirements-dev.txt (make develop does it)"
        )
    host, _, port = address.rpartition(":")
    line = [sys.executable, "-m", "moto.server", "-H", host, "-p", port]

    def ready() -> bool:
        try:
            system = pafs.S3FileSystem(
                access_key="sandbox", secret_key="sandbox", endpoint_override=address, scheme="http",
                region=KEYS["AWS_DEFAULT_REGION"], allow_bucket_creation=True,
            )  # fmt: skip
            system.create_dir(BUCKET)
        except OSError:
            return False
        return True

    return Part("s3", f"http://{address}", Command(line, clean(), folder), ready, place=PLACE)


def s3_environment(address: str) -> dict[str, str]:
    """How Arrow, boto3 and whatever else speaks S3 finds the store."""
    return {**KEYS, "AWS_ENDPOINT_URL": f"http://{address}", "AWS_EC2_METADATA_DISABLED": "true"}


def database(folder: Path) -> Part:
    """PostgreSQL, behind a socket in ``folder``, which no other user may enter; root has it run by its own user."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not programs:
        raise UserError(f"the sandbox's database needs PostgreSQL: {PACKAGES}")
    user = "postgres" if os.getuid() == 0 else None
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    if user:
        shutil.chown(folder, user, user)
    data, place = shlex.quote(str(folder / "data")), shlex.quote(str(programs[-1].parent))
    line = (
        f"test -e {data}/PG_VERSION || {place}/initdb -D {data} -U sicot -A trust;"
        f" exec {place}/postgres -D {data} -c listen_addresses= -c unix_socket_directories={shlex.quote(str(folder))}"
    )

    def ready() -> bool:
        try:
            psycopg.connect(database_url(folder).replace("+psycopg", ""), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    return Part("database", database_url(folder), Command(["sh", "-c", line], clean(), folder, user), ready)


def database_url(folder: Path) -> str:
    """The database as SQLAlchemy wants it named."""
    return f"postgresql+psycopg://sicot@/postgres?host={folder}"


def mlflow(address: str, database: str, s3: dict[str, str], folder: Path) -> Part:
    """MLflow's server, through which all artefacts pass on their way to S3."""
    host, _, port = address.rpartition(":")
    line = [
        sys.executable, "-m", "mlflow", "server", "--host", host, "--port", port, "--workers", "1",
        "--backend-store-uri", database, "--serve-artifacts", "--artifacts-destination", f"s3://{BUCKET}/mlflow",
    ]  # fmt: skip
    environment = clean() | s3 | {"MLFLOW_S3_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"]}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    url, command = f"http://{address}", Command(line, environment, folder)
    return Part("mlflow", url, command, lambda: answers(f"{url}/health"), ("database", "s3"), PLACE)


def prometheus(address: str, settings: Path, targets: Path, folder: Path) -> Part:
    """Prometheus by ``settings``, watching the nodes that Ray names in the file ``targets``."""
    if shutil.which("prometheus") is None:
        raise UserError(f"the sandbox needs Prometheus: {PACKAGES}")
    try:
        config = yaml.safe_load(settings.read_text())
        (found,) = config["scrape_configs"][0]["file_sd_configs"]
    except (OSError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"{settings} does not begin with Ray's nodes: {error}") from error
    found["files"] = [str(targets)]
    config["rule_files"] = [str(settings.parent / name) for name in config.get("rule_files", [])]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    line = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}"]
    line.append(f"--web.listen-address={address}")
    url = f"http://{address}"
    return Part("prometheus", url, Command(line, clean(), folder), lambda: answers(f"{url}/-/ready"), place=PLACE)


def clean() -> dict[str, str]:
    """This process's environment, without what would lead to another cluster, store or server."""
    foreign = ("RAY_", "AWS_", "MLFLOW_", "SICOT_", "PYTHON", "PG", "OMP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def answers(url: str, headers: dict[str, str] | None = None) -> bool:
    """Whether a server says yes there."""
    try:
        return requests.get(url, headers=headers, timeout=5).ok
    except requests.RequestException:
        return False
