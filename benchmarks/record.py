"""What every benchmark ends with: a table for people and a JSON file for machines."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from sicot import origin


def record(name: str, rows: list[dict[str, Any]], folder: str = "runs/benchmarks") -> Path:
    """Print ``rows`` as a table and write ``folder``/``name``.json: machine, command, rows. Gives the file's path."""
    about, typed = machine(), command()
    content = json.dumps({"machine": about, "command": typed, "rows": rows}, indent=1, ensure_ascii=False)
    path = Path(folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text(content + "\n")
    aside.replace(path)
    print(f"\n{typed}\n{', '.join(f'{key} {value}' for key, value in about.items())}\n")
    print(table(rows), f"\nwritten to {path}", sep="\n")
    return path


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned text, columns in order of appearance; numbers with four digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([_cell(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 10_000 else str(value)


def command() -> str:
    """The command line that started this process, as one would type it."""
    module = getattr(sys.modules["__main__"].__spec__, "name", None)
    start = ["python", "-m", module.removesuffix(".__main__")] if module else ["python", sys.argv[0]]
    return shlex.join([*start, *sys.argv[1:]])


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Processor, cores, memory, GPU if PyTorch is in use and sees one, load, Python, commit."""
    about: dict[str, Any] = {"cpu": _processor(), "cores": cores()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        about["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    torch = sys.modules.get("torch")
    if torch is not None:
        about["torch"] = torch.__version__
        if torch.cuda.is_available():
            about["gpu"] = torch.cuda.get_device_name()
    if hasattr(os, "getloadavg"):
        about["load"] = round(os.getloadavg()[0], 1)  # of the last minute, the benchmark's own included
    return {**about, "python": platform.python_version(), "commit": origin.commit()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
