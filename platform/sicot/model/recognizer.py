"""SICoT: a visual and a mixed stream, co-trained through one classifier.

After Zhou, Pan, Zheng, Xu, Jin, "Large Scale Long-tailed Product Recognition System at Alibaba", CIKM 2020.
The four streams and the shared classifier are the paper's; its equations are not public in a form we could
read, so the formulas here and in the modules beside are our reading.

B batch, H height, W width, T words, S = T + 1 words and the null word, V vocabulary, E word dimension,
D feature dimension, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sicot.config import Model as ModelConfig
from sicot.model import losses
from sicot.model.attention import WordAttention
from sicot.model.classifier import Classifier
from sicot.model.fusion import FUSIONS
from sicot.model.visual import Visual


class SICoT(nn.Module):
    """The recognizer. In training, calling it gives the loss parts; :meth:`answer` gives logits."""

    log_prior_C: Tensor
    means_2CD: Tensor
    """Each class's mean direction by its photos and by its words, which imprinted classes are compared with; see
    :mod:`sicot.model.imprint`. Empty until training is over."""

    def __init__(
        self,
        config: ModelConfig,
        size: int,
        log_prior_C: Tensor,
        vectors_VE: Tensor,
        idf_V: Tensor,
        sharded: bool = False,
    ):
        """
        Args:
            config: the model section of the experiment.
            size: side of the photos, pixels.
            log_prior_C: log of the class prior, smoothed so that it is finite.
            vectors_VE: first word vectors by word id, row 0 zero.
            idf_V: inverse document frequency by word id.
            sharded: the classifier's rows are elsewhere: :class:`Streams` and the sharded classifier train it.
        """
        super().__init__()
        self.config = config
        self.visual = Visual(config.visual, size, config.dimension)
        rows = 0 if sharded else len(log_prior_C)
        self.classifier = Classifier(config.classifier, rows, config.dimension, config.scale)
        self.classifier.weight.requires_grad_(not sharded)
        self.register_buffer("log_prior_C", log_prior_C.clone())
        self.register_buffer("means_2CD", torch.zeros(2, 0, config.dimension))
        if config.uses_words:
            self.semantic = WordAttention(config.attention, vectors_VE, idf_V, config.dimension)
            self.fusion = FUSIONS[config.fusion](config.dimension)

    def forward(self, images_BHW3: Tensor, words_BT: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """Loss parts by name; ``loss`` is their weighted sum."""
        weights = self.config.loss
        v_BD = self.visual(images_BHW3)
        z_v_BC = self.classifier(v_BD)
        parts = {"visual": self._cross_entropy(z_v_BC, labels_B)}
        if not self.config.uses_words:
            return {"loss": weights.visual * parts["visual"], **parts}
        m_BD, t_BD, own_B = self.noisy_streams(v_BD, words_BT)
        z_m_BC = self.classifier(m_BD)
        parts["mixed"] = self._cross_entropy(z_m_BC, labels_B)
        z_t_BC = self.classifier(t_BD)[own_B]
        # the sum over no rows keeps the parameters in the graph of every rank
        parts["text"] = self._cross_entropy(z_t_BC, labels_B[own_B]) if len(z_t_BC) else z_t_BC.sum()
        if weights.distill:
            adjustment_C = self.config.loss.tau * self.log_prior_C
            parts["distill"] = losses.distillation(z_m_BC + adjustment_C, z_v_BC + adjustment_C)
        if weights.contrast:
            parts["contrast"] = losses.contrast(v_BD, t_BD, labels_B, own_B, weights.contrast_temperature)
        return {"loss": torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum(), **parts}

    def noisy_streams(self, v_BD: Tensor, words_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What training shows the classifier beside v: m_BD and t_BD, both under training's noise.

        Also own_B: False where there are no words, or another product's: to be doubted, not to be learnt from.
        """
        config = self.config
        words_BT, own_B = losses.swap_words(words_BT, config.text_swap)
        words_BT = losses.hide_words(words_BT, config.word_dropout, config.text_dropout)
        has_words_B = (words_BT > 0).any(1)
        has_words_B1 = has_words_B[:, None]
        hidden_B1 = (torch.rand_like(v_BD[:, :1]) < config.image_dropout) & has_words_B1
        seen_BD = v_BD.masked_fill(hidden_B1, 0.0)
        t_BD, _ = self.semantic(words_BT, seen_BD)
        return self.fusion(seen_BD, t_BD, has_words_B1), t_BD, own_B & has_words_B

    def _cross_entropy(self, z_BC: Tensor, labels_B: Tensor) -> Tensor:
        return losses.adjusted_cross_entropy(z_BC, labels_B, self.log_prior_C, self.config.loss.tau)

    def answer(self, v_BD: Tensor | None, words_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Logits z_BC for photos (z_v), photos with words (z_m) or words (z_t), and the attention a_BS.

        A product without words gets exactly its photo's answer. A visual-only model does not look at words;
        the attention is None where no words were looked at.

        Args:
            v_BD: photos as :attr:`visual` sees them; None where there are none.
            words_BT: word ids, 0 = no word; None to ask by photo alone.

        Raises:
            ValueError: neither photos nor words, or words alone for a visual-only model.
        """
        x_BD, a_BS = self.feature(v_BD, words_BT)
        return self.classifier(x_BD), a_BS

    def feature(self, v_BD: Tensor | None, words_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the classifier is shown for :meth:`answer`: x_BD, and the attention a_BS. Raises what it raises."""
        if v_BD is not None and (words_BT is None or not self.config.uses_words):
            return v_BD, None
        if words_BT is None or not self.config.uses_words:
            raise ValueError("a photo is needed" + ("" if self.config.uses_words else ": this model is visual only"))
        t_BD, a_BS = self.semantic(words_BT, v_BD)
        if v_BD is None:
            v_BD = torch.zeros_like(t_BD)
        has_words_B1 = (words_BT > 0).any(1, keepdim=True)
        return self.fusion(v_BD, t_BD, has_words_B1), a_BS


STREAMS = ("visual", "mixed", "text")


class Streams(nn.Module):
    """The part of a model whose classifier is sharded that every worker holds: photos and words → the streams."""

    def __init__(self, model: SICoT):
        super().__init__()
        self.model = model

    def forward(self, images_BHW3: Tensor, words_BT: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the streams (`STREAMS`; the first alone if visual only), times the scale, x_BSD; 1 where a row
        counts in a stream, counts_BS; and the contrast part of the loss."""
        model = self.model
        v_BD = model.visual(images_BHW3)
        scale, one_B = model.classifier.log_scale.exp(), torch.ones_like(v_BD[:, 0])
        if not model.config.uses_words:
            return scale * v_BD[:, None], one_B[:, None], v_BD.new_zeros(())
        m_BD, t_BD, own_B = model.noisy_streams(v_BD, words_BT)
        contrast = v_BD.new_zeros(())
        if model.config.loss.contrast:
            contrast = losses.contrast(v_BD, t_BD, labels_B, own_B, model.config.loss.contrast_temperature)
        counts_BS = torch.stack([one_B, one_B, own_B.to(one_B)], 1)
        return scale * torch.stack([v_BD, m_BD, t_BD], 1), counts_BS, contrast
