"""The load: wrk on one thread, which posts the photos in turn over so many connections."""

from __future__ import annotations

import io
import json
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sicot.errors import UserError

PHOTOS = 512

SCRIPT = """
local bodies, turn = {}, 0
init = function(args)
  for number = 0, %(photos)d - 1 do
    local file = io.open("%(folder)s/" .. number .. ".body", "rb")
    bodies[number] = wrk.format("POST", nil, {["Content-Type"] = "%(type)s"}, file:read("*a"))
    file:close()
  end
end
request = function()
  turn = (turn + 1) %% %(photos)d
  return bodies[turn]
end
local threads = {}
setup = function(thread) table.insert(threads, thread) end
refused = 0
%(paced)s
done = function(summary, latency, requests)
  local bad, away = summary.errors, threads[1]:get("refused")
  local good = summary.requests - bad.status
  io.write(string.format('{"requests": %%d, "seconds": %%f, "good": %%d, "refused": %%d, "errors": %%d, ',
    summary.requests, summary.duration / 1e6, good, away,
    bad.connect + bad.read + bad.write + bad.status - away + bad.timeout))
  -- refusals are quick: the slowest answers are those of requests that were taken
  io.write(string.format('"p50_ms": %%f, "p99_ms": %%f}', latency:percentile(50) / 1e3,
    latency:percentile(100 - good / math.max(1, summary.requests)) / 1e3))
end
"""


PACED = """
delay = function() return %d end
response = function(status) if status == 429 or status == 503 then refused = refused + 1 end end
"""


def photos(size: int) -> list[bytes]:
    """Distinct JPEGs that weigh what photos of that size do."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(PHOTOS):
        pixels = random.integers(0, 255, (size // 8, size // 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        made.append(file.getvalue())
    return made


def form(photo: bytes) -> bytes:
    """A photo as the `image` of a form with the boundary ``photo``."""
    head = b'--photo\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\nContent-Type: image/jpeg'
    return head + b"\r\n\r\n" + photo + b"\r\n--photo--\r\n"


class Load:
    """Bodies to send, on disk."""

    def __init__(self, folder: Path, bodies: list[bytes], kind: str, every_ms: float = 0.0):
        """
        Args:
            folder: a new one.
            bodies: of the requests.
            kind: their content type.
            every_ms: how long a connection rests before each request; 0: it asks as soon as it is answered.
        """
        if not shutil.which("wrk"):
            raise UserError("the load is made by wrk: install it first (Debian: apt-get install wrk)")
        folder.mkdir()
        self.first, self.kind, self.paced = bodies[0], kind, every_ms > 0
        for number, body in enumerate(bodies):
            (folder / f"{number}.body").write_bytes(body)
        self.script = folder / "wrk.lua"
        paced = PACED % every_ms if every_ms else ""
        self.script.write_text(SCRIPT % {"photos": len(bodies), "folder": folder, "type": kind, "paced": paced})

    def run(self, url: str, connections: int, seconds: float) -> dict[str, Any]:
        """rps of good answers, p50_ms, p99_ms of these, errors; refused, too (429 and 503) where there is a pace.

        load_cores is what wrk itself took of this machine.
        """
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(self.script), url]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = json.loads(said[said.rindex("{") :])
        names = ("p50_ms", "p99_ms", "errors", *(["refused"] if self.paced else []))
        busy = sum(after[:2]) - sum(before[:2])  # user's and system's time
        rates = {"rps": found["good"] / found["seconds"], "load_cores": busy / found["seconds"]}
        return {**rates, **{name: found[name] for name in names}}
