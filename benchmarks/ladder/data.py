"""The ladder's data sets, prepared once for each text column."""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sicot import config
from sicot.errors import UserError
from sicot.prepare import pipeline
from sicot.prepare.prepared import PreparedSet

COLUMNS = {"fashion": ("title", "title_nolabel"), "grocery_lt": ("title",), "synthetic": ("title",)}
"""Data set → the text columns that models are trained on, the catalogue's own title first."""


def prepare(name: str, folder: str, size: int, storage: str) -> dict[str, PreparedSet]:
    """Prepared sets by text column; needs a running Ray session.

    Args:
        name: one of `COLUMNS`.
        folder: where ``fashion/`` and ``grocery/`` lie; of no meaning for ``synthetic``.
        size: side of the photos, pixels.
        storage: where to write.
    """
    groups = config.Groups()
    catalogue = config.Catalogue(synthetic=config.Synthetic(rows=4800, classes=120, imbalance=100.0))
    if name == "fashion":
        catalogue = config.Catalogue(path=f"{_folder(folder, name)}/*.parquet")
    elif name == "grocery_lt":
        groups = config.Groups(head_above=20, tail_below=5)
        catalogue = config.Catalogue(path=str(_long_tailed(Path(_folder(folder, "grocery")), Path(storage))))
    sets = {}
    for column in COLUMNS[name]:
        experiment = config.Experiment(
            name=f"{name}-{column}-{size}",
            storage=storage,
            catalogue=catalogue.model_copy(update={"columns": config.Columns(title=column)}),
            prepare=config.Prepare(
                images=config.Images(size=size), text=config.Text(pairs=True, max_words=48), groups=groups
            ),
        )
        sets[column] = pipeline.prepare(experiment)
    return sets


def add_options(parser: argparse.ArgumentParser, size: int) -> None:
    """What names the data, the trunk's weights and how photos are seen; :func:`parsed` fills in what was left out."""
    parser.add_argument("--data", choices=COLUMNS, default="synthetic", help="data set")
    parser.add_argument("--folder", default=os.environ.get("SICOT_DATA", ""), help="where product data lies")
    parser.add_argument("--weights", help="the trunk's weights; default: those in the folder, random for synthetic")
    parser.add_argument("--size", type=int, default=size, help="side of the photos, pixels")
    parser.add_argument("--views", type=int, default=3, help="views of each photo, the first as it is")


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, with the weights that lie in the folder where none were named."""
    options = parser.parse_args()
    if options.weights is None and options.data != "synthetic":
        options.weights = f"{options.folder}/weights/mobilenet_v2_imagenet_fp16.pt"
    return options


def _folder(folder: str, name: str) -> str:
    if not folder or not (Path(folder) / name).is_dir():
        raise UserError(f"--folder: there is no folder {name} in {folder or 'it'!r}: name the folder of product data")
    return f"{folder}/{name}"


def _long_tailed(source: Path, storage: Path) -> Path:
    """The grocery photos with the training rows of its long-tailed index alone, as a catalogue of its own."""
    target = storage / "grocery_lt"
    target.mkdir(parents=True, exist_ok=True)
    with (source / "train_lt_ir50.csv").open() as file:
        kept = pa.array([row["id"] for row in csv.DictReader(file)])
    for split in ("train", "val", "test"):
        table = pq.read_table(source / f"{split}.parquet", columns=["id", "image", "title", "tags", "label", "split"])
        if split == "train":
            table = table.filter(pa.compute.is_in(table["id"], kept))
        if not (target / f"{split}.parquet").exists():
            pq.write_table(table, target / f"{split}.part", compression="none")
            (target / f"{split}.part").rename(target / f"{split}.parquet")
    return target
