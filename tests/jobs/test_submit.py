"""Jobs sent to a head node that somebody has started, as a user of a cluster sends them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.jobs.conftest import RAY, ROOT

pytestmark = pytest.mark.timeout(600)  # half a minute where the machine is idle

# Where the code of a job comes from, in its driver and in a worker.
WHENCE = """
import json, ray, sicot, sys
ray.init()
worker = ray.remote(lambda: __import__("sicot").__file__)
json.dump([sicot.__file__, ray.get(worker.remote())], open(sys.argv[1], "w"))
"""


def submit(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """The command that runtime_env.yaml and the README name."""
    line = [RAY, "job", "submit", "--working-dir", ".", "--runtime-env", "runtime_env.yaml", "--", *command]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)


def test_a_job_runs_the_code_that_was_submitted_on_driver_and_workers(head: dict[str, str], tmp_path: Path) -> None:
    done = submit(head, "python", "-c", WHENCE, str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    files = [Path(each) for each in json.loads((tmp_path / "out.json").read_text())]
    assert all(each.is_relative_to(head["RAY_TMPDIR"]) for each in files), files


def test_prepare_runs_as_a_submitted_job(head: dict[str, str], tmp_path: Path) -> None:
    few = ["--catalogue.synthetic.rows", "120", "--catalogue.synthetic.classes", "6"]
    done = submit(head, "python", "-m", "jobs.prepare", "--preset", "demo", *few, "--storage", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "demo" / "prepared" / "manifest.json").read_text())["classes"] == 6
