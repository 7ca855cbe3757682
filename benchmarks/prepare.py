"""Rows/s of the Ray Data preparation against a plain loop times cores: `python -m benchmarks.prepare`.

Input: 1,000 x 1,000 pixel JPEGs of about 150 KB with Chinese titles of 25 characters, as Parquet. The loop does the
same work without Ray: decode, resize, re-encode, tokenise, write Parquet. Ray Data is timed when its workers are
up; what starting takes is reported beside it. `photos` is the pass that the loop is compared with, `whole job` goes
to the end (splits, vocabulary, files, word vectors). The ratio of rows/s wants a machine with nothing else to do;
CPU time per row, over all processes of Ray, says the same on a busy one.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks import record
from sicot import cluster, config, storage
from sicot.catalogue import sources
from sicot.prepare import flow, pipeline, staging
from sicot.prepare.images import decode, encode
from sicot.prepare.text import tokenise

SIDE, KILOBYTES, CHARACTERS = 1000, 150, 25
ROWS_PER_FILE = 200
FEW = 8 * ROWS_PER_FILE  # enough that every worker starts
PHRASES = [
    "无线蓝牙耳机", "头戴式", "主动降噪", "运动跑步", "新款", "女士连衣裙", "夏季薄款", "纯棉", "男鞋",
    "透气网面", "休闲", "加厚保暖", "羽绒服", "保温杯", "大容量", "便携", "厨房置物架", "免打孔",
]  # fmt: skip


def photo(random: np.random.Generator) -> Image.Image:
    """Detail at every scale, as in a photo."""
    pixels = np.zeros((SIDE, SIDE, 3), np.float32)
    for cells in (4, 12, 40, 125, 333, 1000):
        noise = random.integers(0, 256, (cells, cells, 3), np.uint8)
        layer = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels += (np.asarray(layer, np.float32) - 128) * cells**-0.25
    return Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int) -> bytes:
    """The photo as a shop stores it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def title(random: np.random.Generator) -> str:
    """25 characters of shop Chinese."""
    return "".join(random.permutation(PHRASES))[:CHARACTERS]


def catalogue(folder: Path, rows: int, photos: int) -> float:
    """Write the input; photos recur under other ids, and each is decoded each time. Gives the mean KB of a photo."""
    random = np.random.default_rng(0)
    first = photo(random)
    quality = min(range(20, 96), key=lambda each: abs(len(jpeg(first, each)) - KILOBYTES * 1000))
    pool = [jpeg(photo(random), quality) for _ in range(photos)]
    folder.mkdir()
    for start in range(0, rows, ROWS_PER_FILE):
        numbers = range(start, min(start + ROWS_PER_FILE, rows))
        table = {
            "id": [f"row-{number}" for number in numbers],
            "image": [pool[number % photos] for number in numbers],
            "title": [title(random) for _ in numbers],
            "label": [f"class-{int(random.zipf(1.3)) % 500}" for _ in numbers],
            "split": ["train" if number % 10 else "test" for number in numbers],
        }
        pq.write_table(pa.table(table), folder / f"{start:06d}.parquet", compression="none")
    return sum(map(len, pool)) / photos / 1000


def loop(folder: Path, out: Path, prepare: config.Prepare, rows: int) -> None:
    """The first ``rows`` rows of a catalogue by one process without Ray."""
    out.mkdir()
    done = 0
    for path in sorted(folder.glob("*.parquet")):
        table = []
        for row in pq.read_table(path).to_pylist():
            image = encode(decode(row["image"], prepare.images), prepare.images.quality)
            tokens = tokenise(row["title"], None, prepare.text)
            table.append({"id": row["id"], "image": image, "label": row["label"], "tokens": tokens})
        storage.write_table(str(out / path.name), pa.Table.from_pylist(table))
        done += len(table)
        if done >= rows:
            return


def photos(folder: Path, out: Path, prepare: config.Prepare) -> None:
    """The pass over the photos of a catalogue by Ray Data."""
    dataset = sources.read(config.Catalogue(path=str(folder)))
    for _ in flow.run(dataset, staging.stage, str(out), prepare, np.zeros(0, np.int64)):
        pass


def timed(work: Callable[[], object], rows: int) -> dict[str, float]:
    """Rows/s of ``work``, and milliseconds of CPU a row over this process and all it has started."""
    used, begin = cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    return {"rows_per_s": rows / seconds, "cpu_ms_per_row": 1000 * (cpu_seconds() - used) / rows}


def cpu_seconds() -> float:
    """CPU time of this process and its descendants."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def main() -> None:
    """Make the input, time both, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=6000, help="rows of the catalogue")
    parser.add_argument("--photos", type=int, default=150, help="distinct photos among them")
    parser.add_argument("--size", type=int, default=128, help="side of the prepared photos, pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sicot-benchmark-") as place:
        folder = Path(place)
        kilobytes = catalogue(folder / "catalogue", options.rows, options.photos)
        catalogue(folder / "few", FEW, photos=8)
        settings = config.Prepare(images=config.Images(size=options.size))
        experiment = config.Experiment(
            storage=place, catalogue=config.Catalogue(path=str(folder / "catalogue")), prepare=settings
        )
        tokenise("耳机", None, settings.text)  # reads jieba's dictionary
        source, part = folder / "catalogue", options.rows // 4
        before = timed(lambda: loop(source, folder / "loop-1", settings, part), part)
        start = time.perf_counter()
        with cluster.session(2 * record.cores()):
            up = time.perf_counter()
            photos(folder / "few", folder / "staged-few", settings)
            warm = time.perf_counter()
            passed = timed(lambda: photos(source, folder / "staged", settings), options.rows)
            whole = timed(lambda: pipeline.prepare(experiment), options.rows)
        after = timed(lambda: loop(source, folder / "loop-2", settings, part), part)
    once = {name: (before[name] + after[name]) / 2 for name in before}
    ideal = {**once, "rows_per_s": once["rows_per_s"] * record.cores()}
    measured = {
        "loop, one process": once,
        f"loop x {record.cores()} cores": ideal,
        "Ray Data: photos": passed,
        "Ray Data: whole job": whole,
    }
    rows = [
        {
            "what": what,
            "rows": options.rows,
            "photo_kb": kilobytes,
            "pixels": options.size,
            **each,
            "ratio": each["rows_per_s"] / ideal["rows_per_s"],
            "cpu_ratio": once["cpu_ms_per_row"] / each["cpu_ms_per_row"],
        }
        for what, each in measured.items()
    ]
    starts = {"start: Ray": up - start, f"start: workers, with a pass over {FEW} rows": warm - up}
    record.record("prepare", [*rows, *({"what": what, "seconds": seconds} for what, seconds in starts.items())])


if __name__ == "__main__":
    main()
