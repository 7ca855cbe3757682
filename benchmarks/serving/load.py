"""The load: wrk on one thread, which posts the photos in turn over so many connections."""

from __future__ import annotations

import io
import json
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
done = function(summary, latency, requests)
  local bad = summary.errors
  io.write(string.format('{"requests": %%d, "seconds": %%f, "p50_ms": %%f, "p99_ms": %%f, "errors": %%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    bad.connect + bad.read + bad.write + bad.status + bad.timeout))
end
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

    def __init__(self, folder: Path, bodies: list[bytes], kind: str):
        """
        Args:
            folder: a new one.
            bodies: of the requests.
            kind: their content type.
        """
        if not shutil.which("wrk"):
            raise UserError("the load is made by wrk: install it first (Debian: apt-get install wrk)")
        folder.mkdir()
        self.first, self.kind = bodies[0], kind
        for number, body in enumerate(bodies):
            (folder / f"{number}.body").write_bytes(body)
        self.script = folder / "wrk.lua"
        self.script.write_text(SCRIPT % {"photos": len(bodies), "folder": folder, "type": kind})

    def run(self, url: str, connections: int, seconds: float) -> dict[str, Any]:
        """rps of answers that are no errors, p50_ms, p99_ms, errors."""
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(self.script), url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = json.loads(said[said.rindex("{") :])
        rate = (found["requests"] - found["errors"]) / found["seconds"]
        return {"rps": rate, **{name: found[name] for name in ("p50_ms", "p99_ms", "errors")}}
