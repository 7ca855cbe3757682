"""torchvision, imported so that it also works beside a CPU build of torch.

The torchvision wheel's C++ operators do not load there, and ``import torchvision`` then fails because it
registers meta kernels for them. On that error only, it is imported again with these registrations left out:
models and transforms work; ``io.decode_jpeg`` and ``ops.nms`` do not. Everything imports torchvision from here.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import torch


def _import() -> Any:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    register = torch.library.register_fake
    torch.library.register_fake = lambda *_, **__: lambda function: function
    try:
        return importlib.import_module("torchvision")
    finally:
        torch.library.register_fake = register


torchvision = _import()
