"""Where this process comes from: the job that was submitted to a cluster, who sent it, and with which code.

`python -m jobs.submit` writes user and commit into the job's metadata, since neither is there where the job runs; Ray
hands the metadata to the job's process. What the job finds out, it adds (:func:`tell`), and the dashboard's page of the
job and `python -m jobs.list` show it.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def submission() -> str:
    """Id of the job that this process is, "" where none was submitted."""
    return _metadata().get("job_submission_id", "")


def user() -> str:
    """Who submitted the job, else whose process this is."""
    return _metadata().get("user") or getpass.getuser()


def commit() -> str:
    """The commit of the code that runs, with `-dirty` if files were changed since; "" where nobody knows."""
    return _metadata().get("commit") or _git_commit()


def tell(facts: Mapping[str, str]) -> None:
    """Add facts to the submitted job's metadata; nothing where none was submitted. A cluster that does not take them
    stops nobody."""
    if not submission() or "RAY_ADDRESS" not in os.environ:
        return
    from ray._private.ray_constants import KV_NAMESPACE_JOB
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.dashboard.modules.job.common import JobInfoStorageClient
    from ray.exceptions import RayError

    key = JobInfoStorageClient.JOB_DATA_KEY.format(job_id=submission()).encode()
    try:  # Ray has no call for it. It writes here itself when the job starts and ends, never in between
        gcs = GcsClient(address=os.environ["RAY_ADDRESS"])
        known: dict[str, Any] = json.loads(gcs.internal_kv_get(key, KV_NAMESPACE_JOB, timeout=5))
        known["metadata"] = {**(known.get("metadata") or {}), **facts}
        gcs.internal_kv_put(key, json.dumps(known).encode(), True, KV_NAMESPACE_JOB, timeout=5)
    except (RayError, OSError, TypeError, ValueError) as error:
        log.warning("the cluster did not take what the job has to tell: %s", error)


def _metadata() -> dict[str, str]:
    submitted: dict[str, Any] = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return submitted.get("metadata") or {}


@cache
def _git_commit() -> str:
    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", Path(__file__).name):  # installed somewhere inside another repository
            return ""
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
