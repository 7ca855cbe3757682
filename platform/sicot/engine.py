"""The visual network compiled for the processor: how photos are seen where there is no GPU.

    engine.xml, engine.bin      OpenVINO's graph of photos → v, float32; made with the bundle, and out of nothing else

In float32 it gives what PyTorch gives. In bfloat16, where the processor has it, it is faster still; whether its answers
are good enough is measured when it is made. B batch, N photos, H height, W width, D feature dimension.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from sicot.errors import UserError
from sicot.index import Rows, one_thread
from sicot.model.recognizer import SICoT

# OpenVINO reports each import and each conversion to its makers, unless this package is missing: nobody asked our users
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402

FILES = ("engine.xml", "engine.bin")
AGREE = 0.995
"""Share of photos whose best class must be the same in bfloat16 for it to be used."""
CLOSE = 1e-3
"""How far float32 may be from PyTorch, in any part of a feature of length 1; more is a fault of the conversion."""
BATCH, SECONDS = 8, 20.0
"""Photos that are measured at once; how long each measurement may take."""


class Engine:
    """A compiled network. Any number of threads may call :meth:`see`; as many as it has streams run at once."""

    def __init__(self, folder: str | Path, precision: str = "f32", streams: int = 1):
        """
        Args:
            folder: what :func:`export` wrote to.
            precision: f32 or bf16; the latter is ignored where the processor lacks it.
            streams: calls that run at once, a core each. A single one shares out PyTorch's number of threads.

        Raises:
            UserError: the files are no graph.
        """
        threads = streams if streams > 1 else torch.get_num_threads()
        settings = {
            "INFERENCE_PRECISION_HINT": precision if has_bf16() else "f32",
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(threads),
            "ENABLE_CPU_PINNING": "NO",  # every process would take the same cores
        }
        try:
            self._compiled = openvino.Core().compile_model(str(Path(folder) / FILES[0]), "CPU", settings)
        except RuntimeError as error:
            raise UserError(f"{Path(folder) / FILES[0]} is no engine: fetch the bundle again") from error
        self._own = threading.local()

    def see(self, images_BHW3: Tensor) -> Tensor:
        """v_BD, float32, of photos, uint8."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        found = self._own.request.infer({0: images_BHW3.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(found[0])


def has_bf16() -> bool:
    """Whether this processor computes in bfloat16."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def export(visual: nn.Module, size: int, folder: Path) -> None:
    """Write the graph of a visual network for any number of photos of ``size`` pixels."""
    photos = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes are constant but for the number of photos
        graph = openvino.convert_model(visual.eval(), example_input=photos, input=[-1, size, size, 3])
    openvino.save_model(graph, folder / FILES[0], compress_to_fp16=False)


@torch.inference_mode()
def build(model: SICoT, images_NHW3: Tensor, folder: Path) -> dict[str, Any]:
    """Write the graph to ``folder``, and measure on photos in which precision it should run.

    Returns:
        precision, f32 or bf16; ms of a photo in batches of `BATCH` in one thread, by precision, and as PyTorch has it
        (`eager`); `agreement`, the share of photos that bfloat16 gives the same class, None if it was not tried.

    Raises:
        ValueError: the network cannot be converted.
    """
    try:
        export(model.visual, images_NHW3.shape[1], folder)
    except Exception as error:
        raise ValueError(f"OpenVINO cannot convert {model.config.visual.trunk}: {error}") from error
    rows, ms = Rows.of(model.classifier), {}
    few_NHW3 = images_NHW3[: 4 * BATCH]
    eager_ND, ms["eager"] = _timed(model.visual, few_NHW3)
    exact_ND, ms["f32"] = _timed(Engine(folder).see, images_NHW3)
    apart = float((exact_ND[: len(eager_ND)] - eager_ND[: len(exact_ND)]).abs().max())
    if apart > CLOSE:
        for name in FILES:
            (folder / name).unlink()
        raise ValueError(f"OpenVINO's {model.config.visual.trunk} is {apart:.2g} from PyTorch's")
    about: dict[str, Any] = {"precision": "f32", "agreement": None}
    if has_bf16():
        fast_ND, ms["bf16"] = _timed(Engine(folder, "bf16").see, images_NHW3[: len(exact_ND)])
        best_N1 = rows.nearest(exact_ND[: len(fast_ND)], 1)
        about["agreement"] = round(float((rows.nearest(fast_ND, 1) == best_N1).float().mean()), 4)
        if about["agreement"] >= AGREE and ms["bf16"] < ms["f32"]:
            about["precision"] = "bf16"
    return {**about, "ms": {name: round(each, 3) for name, each in ms.items()}}


def _timed(see: Any, images_NHW3: Tensor) -> tuple[Tensor, float]:
    """Features of the photos, or of as many as time allows, and the median milliseconds a photo takes in one thread."""
    with one_thread():
        see(images_NHW3[:BATCH])  # the first call prepares
        seen, times = [], [time.perf_counter()]
        for images_BHW3 in images_NHW3.split(BATCH):
            seen.append(see(images_BHW3))
            times.append(time.perf_counter())
            if times[-1] - times[0] > SECONDS:
                break
    return torch.cat(seen), 1000 * median(end - start for start, end in pairwise(times)) / BATCH
