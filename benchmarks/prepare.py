"""Rows/s of the Ray Data preparation against a plain loop times cores: `python -m benchmarks.prepare`.

Input: 1,000 x 1,000 pixel JPEGs of about 150 KB with Chinese titles of 25 characters, as Parquet. The loop does the
same work without Ray: decode, resize, re-encode, tokenise, write Parquet. Ray Data is timed when its workers are
up; what starting takes is reported beside it. `photos` is the pass that the loop is compared with, `whole` the job
to its end (splits, vocabulary, files, word vectors).
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
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
PHRASES = [
    "无线蓝牙耳机", "头戴式", "主动降噪", "运动跑步", "新款", "女士连衣裙", "夏季薄款", "纯棉", "男鞋",
    "透气网面", "休闲", "加厚保暖", "羽绒服", "保温杯", "大容量", "便携", "厨房置物架", "免打孔",
]  # fmt: skip


def photo(random: np.random.Generator) -> bytes:
    """A JPEG with detail at every scale, its quality chosen so that it has the size of a shop's photo."""
    pixels = np.zeros((SIDE, SIDE, 3), np.float32)
    for cells in (4, 12, 40, 125, 333, 1000):
        noise = random.integers(0, 256, (cells, cells, 3), np.uint8)
        layer = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels += (np.asarray(layer, np.float32) - 128) * cells**-0.25
    image = Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
    tries = []
    for quality in range(95, 20, -5):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        tries.append(file.getvalue())
        if len(tries[-1]) < KILOBYTES * 1000:
            break
    return min(tries, key=lambda content: abs(len(content) - KILOBYTES * 1000))


def title(random: np.random.Generator) -> str:
    """25 characters of shop Chinese."""
    return "".join(random.permutation(PHRASES))[:CHARACTERS]


def catalogue(folder: Path, rows: int, photos: int) -> float:
    """Write the input; photos recur under other ids, and each is decoded each time. Gives the mean KB of a photo."""
    random = np.random.default_rng(0)
    pool = [photo(random) for _ in range(photos)]
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


def loop(folder: Path, out: Path, prepare: config.Prepare, rows: int) -> float:
    """Rows/s of one process without Ray."""
    out.mkdir()
    tokenise("耳机", None, prepare.text)  # reads jieba's dictionary
    done, start = 0, time.perf_counter()
    for path in sorted(folder.glob("*.parquet")):
        table = []
        for row in pq.read_table(path).to_pylist():
            image = encode(decode(row["image"], prepare.images), prepare.images.quality)
            tokens = tokenise(row["title"], None, prepare.text)
            table.append({"id": row["id"], "image": image, "label": row["label"], "tokens": tokens})
        storage.write_table(str(out / path.name), pa.Table.from_pylist(table))
        done += len(table)
        if done >= rows:
            break
    return done / (time.perf_counter() - start)


def photos(folder: Path, out: Path, prepare: config.Prepare) -> float:
    """Rows/s of the pass over the photos."""
    begin = time.perf_counter()
    dataset = sources.read(config.Catalogue(path=str(folder)))
    blocks = flow.run(dataset, staging.stage, str(out), prepare, np.zeros(0, np.int64))
    return sum(block.num_rows for block in blocks) / (time.perf_counter() - begin)


def main() -> None:
    """Make the input, time both, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000, help="rows of the catalogue")
    parser.add_argument("--photos", type=int, default=200, help="distinct photos among them")
    parser.add_argument("--size", type=int, default=128, help="side of the prepared photos, pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sicot-benchmark-") as place:
        folder = Path(place)
        kilobytes = catalogue(folder / "catalogue", options.rows, options.photos)
        catalogue(folder / "few", 4 * ROWS_PER_FILE, photos=4)
        settings = config.Prepare(images=config.Images(size=options.size))
        experiment = config.Experiment(
            storage=place, catalogue=config.Catalogue(path=str(folder / "catalogue")), prepare=settings
        )
        before = loop(folder / "catalogue", folder / "loop-1", settings, options.rows // 4)
        start = time.perf_counter()
        with cluster.session(2 * record.cores()):
            up = time.perf_counter()
            photos(folder / "few", folder / "staged-few", settings)
            warm = time.perf_counter()
            passed = photos(folder / "catalogue", folder / "staged", settings)
            begin = time.perf_counter()
            pipeline.prepare(experiment)
            whole = options.rows / (time.perf_counter() - begin)
        after = loop(folder / "catalogue", folder / "loop-2", settings, options.rows // 4)
    ideal = (before + after) / 2 * record.cores()
    about = {"rows": options.rows, "photo_kb": kilobytes, "pixels": options.size}
    record.record(
        "prepare",
        [
            {"what": "loop, one process", **about, "rows_per_s": ideal / record.cores()},
            {"what": f"loop x {record.cores()} cores", **about, "rows_per_s": ideal, "ratio": 1.0},
            {"what": "Ray Data: photos", **about, "rows_per_s": passed, "ratio": passed / ideal},
            {"what": "Ray Data: whole job", **about, "rows_per_s": whole, "ratio": whole / ideal},
            {"what": "start: Ray", "seconds": up - start},
            {"what": "start: workers, with a pass over 800 rows", "seconds": warm - up},
        ],
    )


if __name__ == "__main__":
    main()
