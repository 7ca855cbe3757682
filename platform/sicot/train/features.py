"""Features of a trunk that is kept as it is: computed once per photo, kept on disk, trained on many times.

    <folder>/<key>/*.safetensors   `photo` int64 [M]: hashes of prepared photos; `features` float16 [M, W, F]

The key names the trunk, its weights, the photos' size and how views differ, so nothing stale is ever read; photos are
found by their content, so sets that differ in their words share them. An interrupted extraction goes on.

B batch, M photos of a file, N rows of a split, W views of a photo (the first as it is, the others augmented),
F features of the trunk, T words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from sicot import storage
from sicot.config import Augment, Train, Visual
from sicot.model import visual
from sicot.model.attention import pad
from sicot.prepare.prepared import PreparedSet
from sicot.train import processor, weights
from sicot.train.augment import augment
from sicot.train.learner import half_precision
from sicot.train.loader import decode

PART = 512  # photos of a file
BATCH = 64
DRAWING = Lock()  # random numbers have one state a process: one thread draws its batch's changes at a time


@dataclass(frozen=True)
class Rows:
    """The rows of a split, with features in place of photos."""

    ids: list[str]
    features_NWF: Tensor
    tokens: list[list[str]]
    words_NT: Tensor
    labels_N: Tensor


def load(
    prepared: PreparedSet, config: Visual, changes: Augment, views: int, folder: str, splits: tuple[str, ...]
) -> dict[str, Rows]:
    """Rows of ``splits``, their features from the cache in ``folder`` (a local path); what is missing is computed.

    Raises:
        UserError: the trunk's weights cannot be read or do not fit.
    """
    trunk = visual.Visual(config, prepared.manifest.images.size, 2).eval()
    weights.initialise(trunk, config)
    place = Path(folder) / _key(trunk, config.trunk, prepared.manifest.images.size, changes, views)
    tables = {split: pa.concat_tables(map(storage.read_table, prepared.uris(split))) for split in splits}
    photos = pa.chunked_array([chunk for table in tables.values() for chunk in table["image"].chunks])
    hashes = {split: _hashes(table["image"]) for split, table in tables.items()}
    _extract(trunk, photos, torch.cat(list(hashes.values())), changes, views, place)
    parts = [load_file(path) for path in sorted(place.glob("*.safetensors"))]
    known, features_MWF = (torch.cat([part[name] for part in parts]) for name in ("photo", "features"))
    known, order = known.sort()
    return {
        split: Rows(
            table["id"].to_pylist(),
            features_MWF[order[torch.searchsorted(known, hashes[split])]],
            table["tokens"].to_pylist(),
            pad(table["words"].to_pylist(), prepared.manifest.text.max_words),
            torch.from_numpy(table["label"].to_numpy().astype(np.int64)),
        )
        for split, table in tables.items()
    }


def _key(trunk: visual.Visual, name: str, size: int, changes: Augment, views: int) -> str:
    said = [name, size, changes.model_dump() if views > 1 else {}, views]
    digest = hashlib.sha256(json.dumps(said).encode())
    for tensor in trunk.trunk.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _hashes(photos: pa.ChunkedArray) -> Tensor:
    """Hash of each photo's bytes, int64 [N]."""
    digests = b"".join(hashlib.blake2b(photo.as_buffer(), digest_size=8).digest() for photo in photos)
    return torch.from_numpy(np.frombuffer(digests, np.int64).copy())


def _extract(
    trunk: visual.Visual, photos: pa.ChunkedArray, hashes_N: Tensor, changes: Augment, views: int, place: Path
) -> None:
    """Write the features of all photos that have none yet, `PART` photos a file."""
    known: set[int] = set()
    for path in place.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:  # of the file, the hashes alone are read
            known.update(file.get_tensor("photo").tolist())
    missing = {photo: row for row, photo in enumerate(hashes_N.tolist()) if photo not in known}
    if not missing:
        return
    place.mkdir(parents=True, exist_ok=True)
    trunk = trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    hashes = sorted(missing)
    parts = [hashes[start : start + PART] for start in range(0, len(hashes), PART)]
    bar = tqdm(desc="trunk features", total=len(hashes), unit=" photos", mininterval=2.0)

    def work(part: list[int]) -> None:
        wanted = photos.take(pa.array([missing[photo] for photo in part]))
        seen = torch.cat(list(_views(trunk, wanted, changes, views, part[0], bar)))
        content = save({"photo": torch.tensor(part), "features": seen})
        storage.write_bytes(str(place / f"{part[0] % 2**64:016x}.safetensors"), content)

    # a thread a core, each computing on its own core: nearly twice as fast as both cores on one batch
    with bar, ThreadPoolExecutor(torch.get_num_threads(), initializer=processor.use, initargs=(1,)) as pool:
        list(pool.map(work, parts))


@torch.inference_mode()
def _views(
    trunk: visual.Visual, photos: pa.ChunkedArray, changes: Augment, views: int, seed: int, bar: tqdm
) -> Iterator[Tensor]:
    """features_BWF, batch by batch."""
    half = half_precision(Train(), torch.device("cpu"))
    with torch.autocast("cpu", half, enabled=half is not None):
        for start in range(0, len(photos), BATCH):
            images_BHW3 = decode(photos.slice(start, BATCH))
            with DRAWING, torch.random.fork_rng(devices=[]):
                torch.manual_seed((seed + start) % 2**63)
                seen = [images_BHW3, *(augment(images_BHW3, changes) for _ in range(views - 1))]
            yield torch.stack([trunk.features(images).float() for images in seen], 1).half()
            bar.update(len(images_BHW3))
