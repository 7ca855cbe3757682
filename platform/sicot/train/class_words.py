"""A sharded classifier's rows begin at what the words of their classes say.

Of very many classes most are met once or twice. While their rows are random, the photo is pulled in a random direction
when that happens, and learns nothing from it. Word vectors know before training which products are alike: a row that
begins near the mean of its class's words pulls its photos towards those of products that share a word with it. What
all products say is taken off, and the random row stays in it, so that no two classes begin in one place. Classes that
are met often begin near their random row: photos tell them apart soon enough. Our reading of what side information is
for in the tail.

B rows of a batch, T words, E word dimension, R classes of this rank, D feature dimension.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from sicot.model.attention import pad
from sicot.model.recognizer import SICoT
from sicot.model.sharded import ShardedClassifier
from sicot.prepare.prepared import PreparedSet
from sicot.train.loader import Rows

BATCH = 8192
FEW = 5.0  # a class of so many training rows is moved by half as much as the rarest can be


@torch.no_grad()
def begin_with_words(model: SICoT, head: ShardedClassifier, prepared: PreparedSet, rank: int, world: int) -> None:
    """Move each row by the direction of what the words of its class's training rows say, by the first word vectors.

    All ranks must call. The rows of a visual-only model stay, and those of classes without words.
    """
    if not model.config.uses_words:
        return
    model.to(head.rows_RD.device)
    sums_RD = torch.zeros_like(head.rows_RD)
    for table in Rows(prepared, "train").dealt(rank, world, BATCH, ("words", "label"), equally=True):
        words_BT = pad(table["words"].to_pylist(), prepared.manifest.text.max_words).to(sums_RD.device)
        labels_B = torch.from_numpy(table["label"].to_numpy().astype(np.int64))
        rare_BT1 = model.semantic.idf_V[words_BT][..., None]
        said_BE = (model.semantic.vectors(words_BT) * rare_BT1).sum(1)
        head.add(sums_RD, functional.normalize(model.semantic.value(said_BE), dim=1), labels_B.to(sums_RD.device))
    has_R1 = (sums_RD != 0).any(1, keepdim=True)
    said_RD = functional.normalize(sums_RD, dim=1)
    said_RD -= has_R1 * head.mean(said_RD[has_R1[:, 0]])
    count_R = torch.from_numpy(prepared.classes.count[head.first : head.first + len(said_RD)].copy()).to(said_RD)
    head.rows_RD += has_R1 * functional.normalize(said_RD, dim=1) * (FEW / (FEW + count_R))[:, None]
