"""Images per second of training, against what a user would write instead.

    python -m benchmarks.train                      Ray Train with 2 workers against a plain two-process DDP loop
    python -m benchmarks.train --device cuda        one GPU, torch alone: co-training, visual only, plain classification

Steady state: the first epoch warms up and is not counted; start-up is reported beside it.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from benchmarks.record import record
from sicot import config, storage
from sicot.config import Experiment, Model, Train, Visual
from sicot.model.vision import torchvision
from sicot.prepare import prepared as contract
from sicot.prepare.prepared import PreparedSet
from sicot.train.augment import augment
from sicot.train.learner import Learner, half_precision
from sicot.train.loader import Batch, TrainingBatches
from sicot.train.worker import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rows", type=int, help="training rows (default: 1,024 on the CPU, 12,288 on a GPU)")
    parser.add_argument("--epochs", type=int, default=4, help="the first is not counted")
    parser.add_argument("--processes", type=int, default=min(12, os.cpu_count() or 1), help="GPU: decoding processes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.device == "cuda":
            on_gpu(Path(folder), args.rows or 12_288, args.epochs, args.processes)
        else:
            on_ray(Path(folder), args.rows or 1024, args.epochs)


# ---------------------------------------------------------------- the data and the settings, the same for all


def prepared_set(folder: Path, rows: int, size: int, classes: int = 100, words: int = 5000) -> PreparedSet:
    """A prepared set of noise with the weight of photos: what is in them does not change the speed."""
    random = np.random.default_rng(0)
    small = random.integers(0, 255, (64, size // 8, size // 8, 3), dtype=np.uint8)
    photos = []
    for pixels in small:
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        photos.append(buffer.getvalue())
    split = {"train": rows, "val": 64, "test": 0}
    files: dict[str, list[str]] = {name: [] for name in split}
    for name, count in split.items():
        if not count:
            continue
        ids = [random.integers(1, words, 12).tolist() for _ in range(count)]
        table = pa.table(
            {
                "id": [str(n) for n in range(count)],
                "image": [photos[n % len(photos)] for n in range(count)],
                "label": random.integers(0, classes, count),
                "tokens": [[str(word) for word in each] for each in ids],
                "words": ids,
            },
            contract.ROW,
        )
        files[name] = [f"{name}/00000.parquet"]
        storage.write_table(f"{folder}/{files[name][0]}", table, row_group_size=contract.ROW_GROUP)
    n = [rows // classes] * classes
    table = {"label": [f"{c:05d}" for c in range(classes)], "count": n, "prior": [1 / classes] * classes}
    storage.write_table(f"{folder}/classes.parquet", pa.table({**table, "group": ["head"] * classes}, contract.CLASSES))
    vocabulary = {"word": [str(w) for w in range(words)], "count": [1] * words, "idf": [1.0] * words}
    storage.write_table(f"{folder}/vocabulary.parquet", pa.table(vocabulary, contract.VOCABULARY))
    from safetensors.numpy import save

    vectors = random.normal(size=(words + 1, 100)).astype(np.float32)
    storage.write_bytes(f"{folder}/word_vectors.safetensors", save({"vectors": vectors}))
    manifest = contract.Manifest(
        digest="0" * 64, images=config.Images(size=size), text=config.Text(), head_above=100, tail_below=20,
        rows=split, files=files, classes=classes, vocabulary=words, word_dimension=100, quarantined={}, source={},
    )  # fmt: skip
    storage.write_json(f"{folder}/manifest.json", manifest.model_dump(mode="json"))
    return PreparedSet.open(str(folder))


def settings(folder: Path, trunk: str, **train: Any) -> Experiment:
    """SICoT with the default losses on a trunk."""
    return Experiment(
        name="benchmark",
        storage=str(folder),
        model=Model(visual=Visual(trunk=trunk)),
        train=Train(**train),
    )


# ---------------------------------------------------------------- two workers on CPU cores


def on_ray(folder: Path, rows: int, epochs: int) -> None:
    """Ray Train with two workers against two plain processes: same model, batches, data and precision."""
    data = prepared_set(folder / "set", rows, size=128)
    train = {"workers": 2, "epochs": epochs, "batch_size": 32, "gpu": False}
    experiment = settings(folder, "mobilenet_v2", **train)
    results = []
    for _ in range(2):  # in turn, so that a slow minute of the machine meets both
        results.append({"plain": plain_ddp(folder, data, epochs), "ray": ray_train(folder, experiment, data)})
    table = []
    for method, what in (("plain", "two processes, DDP"), ("ray", "Ray Train, 2 workers")):
        speed = statistics.median([result[method]["images_per_s"] for result in results])
        start = statistics.median([result[method]["startup_s"] for result in results])
        table.append({"method": method, "what": what, "images_per_s": speed, "startup_s": start})
    for row in table:
        row["ratio"] = row["images_per_s"] / table[0]["images_per_s"]
    record("train", table)


def ray_train(folder: Path, experiment: Experiment, data: PreparedSet) -> dict[str, Any]:
    """Speed by epoch as the trainer reports it, and the seconds before the first step."""
    from sicot import cluster
    from sicot.train import trainer

    with tempfile.TemporaryDirectory(dir=folder) as run, cluster.session(4):
        begun = time.perf_counter()
        trainer.fit(experiment, data, None, run)
        took = time.perf_counter() - begun
        reports = storage.read_json(f"{run}/bundle/bundle.json")["training"]
    return {"images_per_s": reports["images_per_s"], "startup_s": took - reports["seconds"]}


def plain_ddp(folder: Path, data: PreparedSet, epochs: int, batch_size: int = 32) -> dict[str, Any]:
    """What one would write without sicot: two processes, DDP, torch's DataLoader over rows in memory."""
    context = mp.get_context("spawn")
    results = context.Queue()
    begun = time.time()
    port = 20_000 + os.getpid() % 20_000
    processes = [
        context.Process(target=plain_worker, args=(rank, port, str(folder), data.root, epochs, batch_size, results))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    first_step, speeds = results.get(timeout=600)
    for process in processes:
        process.join()
    return {"images_per_s": statistics.median(speeds[1:]), "startup_s": first_step - begun}


class InMemory(torch.utils.data.Dataset):
    """Rows of the training split, decoded when asked for."""

    def __init__(self, data: PreparedSet):
        self.table = pa.concat_tables([file.read(["image", "words", "label"]) for file in data.parquet("train")])
        self.photos, self.words = self.table["image"].to_pylist(), self.table["words"].to_pylist()
        self.labels, self.width = self.table["label"].to_pylist(), data.manifest.text.max_words

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        pixels = np.array(Image.open(io.BytesIO(self.photos[row])).convert("RGB"))
        words = torch.tensor(self.words[row] + [0] * (self.width - len(self.words[row])))
        return torch.from_numpy(pixels), words, self.labels[row]


def plain_worker(rank: int, port: int, folder: str, root: str, epochs: int, batch_size: int, results: Any) -> None:
    """One process of the plain loop."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    data = PreparedSet.open(root)
    experiment = settings(Path(folder), "mobilenet_v2")
    model = build(experiment, data).to(memory_format=torch.channels_last).train()
    parallel = DistributedDataParallel(model)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    rows = InMemory(data)
    sampler = torch.utils.data.DistributedSampler(rows, 2, rank)
    loader = torch.utils.data.DataLoader(rows, batch_size, sampler=sampler, drop_last=True)
    half = half_precision(experiment.train, torch.device("cpu"), model)
    first_step, speeds = time.time(), []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        begun, seen = time.perf_counter(), 0
        for images_BHW3, words_BT, labels_B in loader:
            with torch.autocast("cpu", half, enabled=half is not None):
                loss = parallel(augment(images_BHW3, experiment.train.augment), words_BT, labels_B)["loss"]
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), experiment.train.clip)
            optimiser.step()
            optimiser.zero_grad()
            seen += 2 * len(labels_B)
        speeds.append(seen / (time.perf_counter() - begun))
    if rank == 0:
        results.put((first_step, speeds))
    dist.destroy_process_group()


# ---------------------------------------------------------------- one GPU, no Ray


def on_gpu(folder: Path, rows: int, epochs: int, processes: int) -> None:
    """ResNet-50 at 224 pixels, bf16, channels_last, with and without torch.compile."""
    data = prepared_set(folder / "set", rows, size=224, classes=1000)
    table = []
    for compiled in (False, True):
        train = {"batch_size": 256, "compile": compiled, "loader_threads": processes, "epochs": epochs}
        experiment = settings(folder, "resnet50", **train)
        plain = classification(data, experiment)
        table.append({"method": "plain classification", "compile": compiled, **plain})
        for method, chosen in (
            ("visual only", experiment.model_copy(update={"model": experiment.model.visual_only()})),
            ("co-training", experiment),
        ):
            table.append({"method": method, "compile": compiled, **co_training(data, chosen)})
        for row in table[-3:]:
            row["ratio"] = row["images_per_s"] / plain["images_per_s"]
    record("train-cuda", table)


def co_training(data: PreparedSet, experiment: Experiment) -> dict[str, float]:
    """Speed of sicot's own step fed by its own loader."""
    device = torch.device("cuda")
    batches = TrainingBatches(data, experiment.train.batch_size, 0, 1, 0)
    moves = len(batches) * experiment.train.epochs
    learner = Learner(experiment.train, build(experiment, data), moves, device)

    def epoch(number: int) -> Iterable[Any]:
        batches.epoch = number
        return batches.loader(experiment.train.loader_threads)

    def step(batch: Batch) -> int:
        learner.step(batch)
        return len(batch)

    return measure(epoch, step, experiment.train.epochs)


def classification(data: PreparedSet, experiment: Experiment) -> dict[str, float]:
    """The plain script: torchvision's ResNet-50, cross-entropy, AdamW, DataLoader; the same precision and layout."""
    device = torch.device("cuda")
    model = torchvision.models.resnet50(num_classes=len(data.classes)).to(device, memory_format=torch.channels_last)
    if experiment.train.compile:
        model.compile()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    loader = torch.utils.data.DataLoader(
        InMemory(data), experiment.train.batch_size, shuffle=True, drop_last=True, pin_memory=True,
        num_workers=experiment.train.loader_threads, prefetch_factor=4,
    )  # fmt: skip

    def step(batch: Any) -> int:
        images_BHW3, _, labels_B = (part.to(device, non_blocking=True) for part in batch)
        with torch.autocast("cuda", torch.bfloat16):
            pixels = augment(images_BHW3, experiment.train.augment).permute(0, 3, 1, 2) / 255
            loss = functional.cross_entropy(model(pixels), labels_B)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return len(labels_B)

    return measure(lambda number: loader, step, experiment.train.epochs)


def measure(epoch: Callable[[int], Iterable[Any]], step: Callable[[Any], int], epochs: int) -> dict[str, float]:
    """Median images/s over the epochs but the first, peak GPU memory, and the share of time spent waiting for data.

    The clock of an epoch starts when its first step is done: starting loader processes is start-up. Waiting is
    measured in one more epoch in which each step is waited for, so that it does not hide behind the GPU's work.
    """
    torch.cuda.reset_peak_memory_stats()
    speeds = []
    for number in range(epochs + 1):
        waits_too = number == epochs
        batches = iter(epoch(number))
        step(next(batches))
        torch.cuda.synchronize()
        begun, seen, waited = time.perf_counter(), 0, 0.0
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            seen += step(batch)
            if waits_too:
                torch.cuda.synchronize()
        torch.cuda.synchronize()
        spent = time.perf_counter() - begun
        speeds.append(seen / spent)
    return {
        "images_per_s": statistics.median(speeds[1:-1] or speeds[:1]),
        "data_wait": waited / spent,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


if __name__ == "__main__":
    main()
