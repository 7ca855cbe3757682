"""What is served, and starting and stopping what serves it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import torch

from benchmarks.serving import load
from benchmarks.train import prepared_set, settings
from sicot import bundle, ports
from sicot.train import worker

OURS = ("ours", "echo")
SIZE, CLASSES, WARM = 128, 1000, 3.0


def make(root: Path, trunk: str) -> str:
    """A bundle of an untrained network, with its engine; gives its folder."""
    prepared = prepared_set(root / "prepared", 64, SIZE, CLASSES)
    experiment = settings(root, trunk)
    regimes = ("image", "image_text", "text")
    calibration = {"temperature": dict.fromkeys(regimes, 1.0), "threshold": dict.fromkeys(regimes, 0.0)}
    photos = torch.randint(0, 256, (64, SIZE, SIZE, 3), dtype=torch.uint8)
    model = worker.build(experiment, prepared).eval()
    model.means_2CD = torch.zeros(2, CLASSES, experiment.model.dimension)
    info = bundle.write(f"{root}/bundle", "benchmark", model, prepared, calibration, {}, images_NHW3=photos)
    print(f"engine: {info.engine}", flush=True)
    return f"{root}/bundle"


@contextmanager
def serving(case: str, folder: str, work: load.Load) -> Iterator[str]:
    """The URL to post photos to, for the length of the block."""
    (port,) = ports.free()
    name, _, how = case.partition("-")
    module = ["benchmarks.serving.ours" if case in OURS else "benchmarks.serving.rivals", name]
    command = [sys.executable, "-m", *module, folder, str(port), *(["--eager"] if how == "eager" else [])]
    path = "/v1/recognize" if case in OURS else "/"
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            _wait(f"http://127.0.0.1:{port}{path}", work, process, said)
            yield f"http://127.0.0.1:{port}{path}"
        finally:
            process.terminate()
            process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers that outlive their server


def _wait(url: str, work: load.Load, process: subprocess.Popen[bytes], said: Any, seconds: float = 120) -> None:
    """Until a photo is answered there."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds and process.poll() is None:
        try:
            if httpx.post(url, content=work.first, headers={"content-type": work.kind}, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    said.seek(0)
    raise RuntimeError(f"{url} does not answer:\n{said.read()[-3000:]}")
