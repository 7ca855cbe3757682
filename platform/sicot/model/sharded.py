"""The shared classifier with its rows dealt to all workers: from a hundred thousand classes to millions.

Each rank owns a contiguous range of the classes' rows and the state of their optimiser; none of it is in DDP. The
features of all streams and all ranks are gathered at once, so that all streams share one subset of the rows: every
class in the batch, and random others. For row n with label y, over the classes c in the subset:

    z_c  = x_n·ŵ_c + τ·log π_c - log q_c        (x carries the scale; ŵ normalised rows, or rows as they are)
    loss = log Σ_c exp z_c - z_y

q_c is the probability that c is in the subset: 1 for the batch's classes, k / (R - P) for the k drawn of a rank's other
R - P. So the sum estimates that over all classes (Jean et al., 2015, "On Using Very Large Target Vocabulary for Neural
Machine Translation"). Sharding and sampling are after Partial FC (An et al., 2021, "Partial FC: Training 10 Million
Identities on a Single Machine"); one subset for several streams, the prior and the correction are our reading.

Rows are read and written block by block, and gradients exist for the rows in use alone. Nothing has the size of C
times anything but the rows and their optimiser's state.

B rows of a batch, S streams, N rows of all ranks, M = N·S, D feature dimension, C classes, R classes of this
rank, K of them in use, P of them in the batch; W ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from sicot.model.nearest import merge, nearest
from sicot.model.ranks import Ranks
from sicot.model.rows import At, RowOptimiser
from sicot.model.sampling import draw

BLOCK = 8192  # rows in work at a time


def bounds(classes: int, rank: int, world: int) -> tuple[int, int]:
    """First class of a rank, and first of the next."""
    return classes * rank // world, classes * (rank + 1) // world


def initial_rows(classes: int, dimension: int, rank: int, world: int, seed: int) -> Tensor:
    """Random rows_RD of a rank, about the unit sphere; what a class gets hangs on the seed alone, not on the ranks."""
    first, end = bounds(classes, rank, world)
    rows_RD = torch.empty(end - first, dimension)
    for block in range(first // BLOCK, -(-end // BLOCK)):
        low, high = max(first, block * BLOCK), min(end, (block + 1) * BLOCK)
        random = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
        drawn_KD = torch.randn(BLOCK, dimension, generator=random) / math.sqrt(dimension)
        rows_RD[low - first : high - first] = drawn_KD[low - block * BLOCK : high - block * BLOCK]
    return rows_RD


class _Block(NamedTuple):
    """Some of the rows in use, and what the features see in them."""

    at: At
    here: Tensor  # which of the batch's rows have their label among them, and
    place: Tensor  # where
    truth: Tensor  # their logits there, in all streams
    unit_KD: Tensor  # rows as the logits see them
    inverse_K1: Tensor  # 1 / their length
    p_MK: Tensor  # softmax over this block alone
    lse_M: Tensor
    expected_MD: Tensor  # Σ p·ŵ over this block alone


class ShardedClassifier:
    """One rank's rows. All ranks must make the same calls in the same order; their batches may differ in size."""

    def __init__(
        self,
        rows_RD: Tensor,
        log_prior_C: Tensor,
        optimiser: RowOptimiser,
        *,
        kind: Literal["cosine", "linear"] = "cosine",
        tau: float = 1.0,
        sampled: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        """
        Args:
            rows_RD: this rank's rows, trained in place.
            log_prior_C: log of the prior of all classes.
            optimiser: of these rows.
            kind: cosine normalises rows.
            tau: strength of the logit adjustment.
            sampled: classes in use in a step, of all ranks; 0: all of them.
            rank, world: this process among all; above one, a process group must be up.
        """
        self.classes = len(log_prior_C)
        self.first, end = bounds(self.classes, rank, world)
        if len(rows_RD) != end - self.first:
            raise ValueError(f"rank {rank} of {world} has classes {self.first} to {end}, not {len(rows_RD)} rows")
        self.rows_RD, self.optimiser, self.kind = rows_RD, optimiser, kind
        self.prior_R = tau * log_prior_C[self.first : end].to(rows_RD)
        self.sampled_R = min(-(-sampled // world) or len(rows_RD), len(rows_RD))
        self.ranks = Ranks(rank, world)
        self.waiting: list[tuple[At, Tensor, int]] = []

    # ------------------------------------------------------------ learning

    def loss(
        self,
        x_BSD: Tensor,
        labels_B: Tensor,
        weights_S: Tensor,
        counts_BS: Tensor,
        distill: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy over the classes in use; the rows' gradient waits for :meth:`step`.

        Args:
            x_BSD: features, times the scale.
            labels_B: class of each row.
            weights_S: weight of each stream's loss.
            counts_BS: 1 where a row counts in a stream, 0 where it does not.
            distill: weight of KL(softmax(z of stream 1) ‖ softmax(z of stream 0)); none of it moves stream 1.
            dtype: what products of matrices are computed in; None: as x.

        Returns:
            The weighted sum over all ranks, which carries the gradient of this rank's x, times W, since DDP takes
            the mean over the ranks; and each stream's mean, parts_S, behind them the KL if it has a weight.
        """
        x_NSD, labels_N, counts_NS, mine = self.ranks.gather(x_BSD.detach(), labels_B, counts_BS.to(x_BSD))
        gradient_NSD, parts = self._learn(x_NSD, labels_N, counts_NS, weights_S.to(x_NSD), distill, dtype)
        carried = (x_BSD * gradient_NSD[mine] * self.ranks.world).sum()
        weights = torch.cat([weights_S.to(parts), parts.new_tensor([distill])])[: len(parts)]
        return (weights * parts).sum() + carried - carried.detach(), parts

    @torch.no_grad()
    def step(self, learning_rate: float, batches: int = 1) -> None:
        """Move the rows that were in use since the last step by their gradients, those of so many batches."""
        for at, gradient_KD, batch in self.waiting:
            self.optimiser.update(self.rows_RD, at, gradient_KD / batches, learning_rate, batch)
        self.waiting.clear()

    @torch.no_grad()
    def _learn(
        self,
        x_NSD: Tensor,
        labels_N: Tensor,
        counts_NS: Tensor,
        weights_S: Tensor,
        distill: float,
        dtype: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        """Gradient of x_NSD, and the parts of the loss; notes the rows' gradient.

        With u = Σ_c p_c·ŵ_c, the row that the softmax expects, all of it is sums of products of matrices: of the
        cross-entropy ∂x = u - ŵ_y, of the KL ∂x_0 = u_0 - u_1 and its value (x_1 - x_0)·u_1 + lse_0 - lse_1. Each
        block has a softmax of its own, p_block; p = p_block · exp(lse_block - lse).
        """
        rows, streams, _ = x_NSD.shape
        low_MD = x_NSD.flatten(0, 1).to(dtype or x_NSD.dtype)
        blocks = [self._look(low_MD, streams, *chosen) for chosen in self._choose(labels_N)]
        truth_NS, own_ND = x_NSD.new_zeros(rows, streams), torch.zeros_like(x_NSD[:, 0])
        for block in blocks:
            truth_NS[block.here] = block.truth
            own_ND[block.here] = block.unit_KD[block.place].to(x_NSD)
        none_M = low_MD.new_full((len(low_MD),), -math.inf, dtype=x_NSD.dtype)  # a rank may have no rows
        lse_M = self.ranks.logsumexp(torch.stack([none_M, *(block.lse_M for block in blocks)]).logsumexp(0))
        expected_MD = torch.zeros_like(x_NSD).flatten(0, 1)
        shares = [(block.lse_M - lse_M).exp() for block in blocks]
        for block, share_M in zip(blocks, shares, strict=True):
            expected_MD += share_M[:, None] * block.expected_MD
        u_NSD, own_ND = self.ranks.sum(expected_MD).view(x_NSD.shape), self.ranks.sum(own_ND)
        lse_NS = lse_M.view(rows, streams)

        share_NS = counts_NS / counts_NS.sum(0).clamp(min=1)
        parts = (share_NS * (lse_NS - self.ranks.sum(truth_NS))).sum(0)
        weight_NS1 = (share_NS * weights_S)[..., None]
        gradient_NSD = weight_NS1 * (u_NSD - own_ND[:, None])
        pulling_NSD = weight_NS1 * x_NSD  # what each row's p pulls the rows by
        if distill:
            apart_N = ((x_NSD[:, 1] - x_NSD[:, 0]) * u_NSD[:, 1]).sum(1) + lse_NS[:, 0] - lse_NS[:, 1]
            parts = torch.cat([parts, apart_N.mean()[None]])
            gradient_NSD[:, 0] += distill / rows * (u_NSD[:, 0] - u_NSD[:, 1])
            pulling_NSD[:, 0] += distill / rows * x_NSD[:, 0]
            pulling_NSD[:, 1] -= distill / rows * x_NSD[:, 0]
        right_ND = (weight_NS1 * x_NSD).sum(1)
        for block, share_M in zip(blocks, shares, strict=True):
            gradient_KD = self._row_gradient(block, share_M, pulling_NSD.flatten(0, 1), right_ND)
            self.waiting.append((block.at, gradient_KD, rows))
        return gradient_NSD, parts

    def _look(self, low_MD: Tensor, streams: int, at: At, shift_K: Tensor, here: Tensor, place: Tensor) -> _Block:
        """Compare the features with a block of rows."""
        unit_KD, inverse_K1 = self._unit(at)
        unit_KD = unit_KD.to(low_MD.dtype)
        z_MK = low_MD @ unit_KD.T + shift_K
        truth = z_MK.view(-1, streams, len(shift_K))[here, :, place]
        p_MK = z_MK.softmax(1)
        lse_M = z_MK.amax(1) - p_MK.amax(1).log()
        p_MK = p_MK.to(low_MD.dtype)
        return _Block(at, here, place, truth, unit_KD, inverse_K1, p_MK, lse_M, (p_MK @ unit_KD).to(shift_K))

    def _row_gradient(self, block: _Block, share_M: Tensor, pulling_MD: Tensor, right_ND: Tensor) -> Tensor:
        """Gradient of a block's rows."""
        pulling_MD = (share_M[:, None] * pulling_MD).to(block.p_MK.dtype)
        gradient_KD = (block.p_MK.T @ pulling_MD).to(right_ND)
        gradient_KD.index_add_(0, block.place, right_ND[block.here], alpha=-1)
        if self.kind == "cosine":  # through the normalisation: what points along the row moves nothing
            along_K1 = (gradient_KD * block.unit_KD).sum(1, keepdim=True)
            gradient_KD.addcmul_(block.unit_KD.to(gradient_KD), along_K1, value=-1).mul_(block.inverse_K1)
        return gradient_KD

    def _choose(self, labels_N: Tensor) -> Iterator[tuple[At, Tensor, Tensor, Tensor]]:
        """The classes in use, block by block: their rows, what is added to their logits (τ·log π - log q), which of
        the batch's rows have their label among them, and where."""
        total = len(self.rows_RD)
        local_N = labels_N - self.first
        if self.sampled_R == total:
            index_K, shift_K = None, self.prior_R
        else:
            met_P = local_N[(local_N >= 0) & (local_N < total)].unique()
            index_K = draw(met_P, total, max(self.sampled_R - len(met_P), 1))
            drawn, free = len(index_K) - len(met_P), total - len(met_P)
            shift_K = self.prior_R[index_K] - (math.log(drawn / free) if drawn else 0.0)
            shift_K[torch.searchsorted(index_K, met_P)] = self.prior_R[met_P]
        for low in range(0, len(shift_K), BLOCK):
            high = min(low + BLOCK, len(shift_K))
            at: At = slice(low, high)
            place_N, found_N = local_N - low, (local_N >= low) & (local_N < high)
            if index_K is not None:
                at = index_K[low:high]
                place_N = torch.searchsorted(at, local_N)
                found_N = at[place_N.clamp(max=high - low - 1)] == local_N
            here = found_N.nonzero()[:, 0]
            yield at, shift_K[low:high], here, place_N[here]

    def _unit(self, at: At) -> tuple[Tensor, Tensor]:
        """Rows as the logits see them, and 1 / their length."""
        rows_KD = self.rows_RD[at]
        if self.kind == "linear":
            return rows_KD, rows_KD.new_ones(())
        inverse_K1 = 1 / rows_KD.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return rows_KD * inverse_K1, inverse_K1

    # ------------------------------------------------------------ answering

    @torch.no_grad()
    def top(self, x_BD: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best of all classes (at most all) for each row: logits z_BK, falling, and class numbers. Exact."""
        zero_B = torch.zeros(len(x_BD), dtype=torch.long, device=x_BD.device)
        x_NSD, _, _, mine = self.ranks.gather(x_BD[:, None], zero_B, x_BD[:, :1])
        blocks = (self._unit(slice(low, low + BLOCK))[0] for low in range(0, len(self.rows_RD), BLOCK))
        best_NK, class_NK = nearest(x_NSD[:, 0], blocks, k)
        short = k - best_NK.shape[1]  # a rank may have fewer rows than are asked for
        best_NK, class_NK = pad(best_NK, (0, short), value=-math.inf), pad(class_NK + self.first, (0, short))
        best_NK, class_NK = merge(self.ranks.everyone(best_NK), self.ranks.everyone(class_NK), k)
        return best_NK[mine], class_NK[mine]

    @torch.no_grad()
    def add(self, sums_RD: Tensor, x_BD: Tensor, labels_B: Tensor) -> None:
        """Add each row of all ranks to its class in ``sums_RD``, a table beside the rows."""
        x_NSD, labels_N, _, _ = self.ranks.gather(x_BD[:, None], labels_B, x_BD[:, :1])
        local_N = labels_N - self.first
        own_N = (local_N >= 0) & (local_N < len(sums_RD))
        sums_RD.index_add_(0, local_N[own_N], x_NSD[own_N, 0].to(sums_RD))

    def mean(self, some_KD: Tensor) -> Tensor:
        """The mean of all ranks' rows of a table, [D]."""
        return self.ranks.sum(some_KD.sum(0)) / self.ranks.sum(some_KD.new_tensor(len(some_KD))).clamp(min=1)
