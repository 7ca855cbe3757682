"""What users of the model rely on, whichever switches are set."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sicot import config
from sicot.model import losses
from sicot.model.recognizer import SICoT
from sicot.model.visual import build_trunk, trunks

CLASSES, WORDS, WIDTH, SIZE = 7, 20, 6, 32
SWITCHES = list(itertools.product(("bilinear", "linear", "mean"), (True, False), ("sum", "mlp", "gate")))


def model(kind: str = "bilinear", null_word: bool = True, fusion: str = "sum", **more: object) -> SICoT:
    """A small model with random weights, also where training would start from zero."""
    torch.manual_seed(0)
    settings = config.Model(
        dimension=12,
        visual=config.Visual(trunk="squeezenet1_1"),
        attention=config.Attention(kind=kind, null_word=null_word, rank=more.pop("rank", 5)),  # type: ignore[arg-type]
        fusion=fusion,  # type: ignore[arg-type]
        **more,  # type: ignore[arg-type]
    )
    vectors_VE = torch.randn(WORDS + 1, WIDTH)
    vectors_VE[0] = 0
    made = SICoT(settings, SIZE, torch.full((CLASSES,), 1 / CLASSES).log(), vectors_VE, torch.rand(WORDS + 1))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith("semantic.") and parameter.ndim < 2:
                parameter.normal_()
    return made.eval()


def photos(rows: int) -> Tensor:
    """uint8 photos, the same for the same number."""
    return torch.randint(0, 256, (rows, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def answer(recognizer: SICoT, images_BHW3: Tensor | None, words_BT: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return recognizer.answer(None if images_BHW3 is None else recognizer.visual(images_BHW3), words_BT)


@pytest.mark.parametrize(("kind", "null_word", "fusion"), SWITCHES)
def test_a_product_without_words_gets_exactly_its_photos_answer(kind: str, null_word: bool, fusion: str) -> None:
    recognizer, images_BHW3 = model(kind, null_word, fusion), photos(3)
    words_BT = torch.tensor([[3, 4, 0], [0, 0, 0], [0, 0, 0]])
    mixed_BC, a_BS = answer(recognizer, images_BHW3, words_BT)
    photo_BC, _ = answer(recognizer, images_BHW3, None)
    assert torch.equal(mixed_BC[1:], photo_BC[1:])
    assert not torch.allclose(mixed_BC[0], photo_BC[0])
    assert a_BS is not None
    assert a_BS[1:, -1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("kind", "null_word", "fusion"), SWITCHES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_order_of_words_and_padding_change_nothing(
    kind: str, null_word: bool, fusion: str, data: st.DataObject
) -> None:
    recognizer, images_BHW3 = model(kind, null_word, fusion), photos(1)
    words = data.draw(st.lists(st.integers(1, WORDS), min_size=1, max_size=6, unique=True))
    shuffled = data.draw(st.permutations(words))
    padding = data.draw(st.integers(0, 5))
    z_BC, a_BS = answer(recognizer, images_BHW3, torch.tensor([words]))
    other_BC, other_BS = answer(recognizer, images_BHW3, torch.tensor([shuffled + [0] * padding]))
    torch.testing.assert_close(z_BC, other_BC)
    assert a_BS is not None
    assert other_BS is not None
    weight = dict(zip(words, a_BS[0].tolist(), strict=False))
    torch.testing.assert_close(other_BS[0, : len(words)], torch.tensor([weight[word] for word in shuffled]))
    assert other_BS[0, len(words) : -1].sum() == 0  # nothing is spent on padding
    torch.testing.assert_close(other_BS.sum(), torch.tensor(1.0))


def test_under_sum_fusion_the_answers_of_photo_and_words_add_up() -> None:
    recognizer, words_BT = model("linear"), torch.tensor([[1, 2, 3], [4, 0, 0]])
    mixed_BC, _ = answer(recognizer, photos(2), words_BT)
    photo_BC, _ = answer(recognizer, photos(2), None)
    text_BC, _ = answer(recognizer, None, words_BT)
    torch.testing.assert_close(mixed_BC, photo_BC + text_BC)


def test_bilinear_attention_depends_on_the_photo_and_linear_does_not() -> None:
    words_BT = torch.tensor([[1, 2, 3], [1, 2, 3]])
    for kind, differs in (("bilinear", True), ("linear", False)):
        _, a_BS = answer(model(kind), photos(2), words_BT)
        assert a_BS is not None
        assert torch.allclose(a_BS[0], a_BS[1]) != differs


@pytest.mark.parametrize("rank", [0, 5])
def test_every_parameter_learns(rank: int) -> None:
    recognizer = model(rank=rank, loss=config.Loss(distill=0.5, contrast=0.5)).train()
    parts = recognizer(photos(8), torch.randint(1, WORDS, (8, 4)), torch.arange(8) % CLASSES)
    assert set(parts) == {"loss", "visual", "mixed", "text", "distill", "contrast"}
    parts["loss"].backward()
    assert [name for name, p in recognizer.named_parameters() if p.grad is None] == []
    assert recognizer.semantic.vectors.weight.grad is not None
    assert recognizer.semantic.vectors.weight.grad[0].abs().sum() == 0  # "no word" stays zero


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    weights = config.Loss(visual=0.3, mixed=0.7, text=0.2, distill=0.4, contrast=0.6)
    recognizer = model(loss=weights).train()
    parts = recognizer(photos(4), torch.randint(1, WORDS, (4, 3)), torch.arange(4))
    total = sum(getattr(weights, name) * part for name, part in parts.items() if name != "loss")
    torch.testing.assert_close(parts["loss"], total)


def test_a_batch_without_any_words_still_trains() -> None:
    recognizer = model(loss=config.Loss(contrast=1.0)).train()
    parts = recognizer(photos(3), torch.zeros(3, 4, dtype=torch.long), torch.arange(3))
    parts["loss"].backward()
    assert torch.isfinite(parts["loss"])
    assert parts["text"] == 0


def test_the_visual_only_baseline_never_looks_at_words() -> None:
    recognizer = model(loss=config.Loss(mixed=0, text=0))
    assert not any(name.startswith("semantic") for name, _ in recognizer.named_parameters())
    with_words_BC, a_BS = answer(recognizer, photos(2), torch.tensor([[1, 2], [3, 0]]))
    assert torch.equal(with_words_BC, answer(recognizer, photos(2), None)[0])
    assert a_BS is None
    with pytest.raises(ValueError, match="visual only"):
        answer(recognizer, None, torch.tensor([[1]]))


def test_a_frozen_trunk_keeps_weights_and_statistics() -> None:
    settings = config.Model(dimension=8, visual=config.Visual(trunk="shufflenet_v2_x0_5", freeze=1))
    recognizer = SICoT(settings, SIZE, torch.zeros(3), torch.zeros(2, 4), torch.zeros(2)).train()
    before = {name: value.clone() for name, value in recognizer.visual.trunk.state_dict().items()}
    recognizer(photos(4), torch.ones(4, 1, dtype=torch.long), torch.tensor([0, 1, 2, 0]))["loss"].backward()
    assert all(torch.equal(value, before[name]) for name, value in recognizer.visual.trunk.state_dict().items())
    assert all(parameter.grad is None for parameter in recognizer.visual.trunk.parameters())
    assert recognizer.visual.project.weight.grad is not None


def test_a_half_frozen_trunk_trains_its_later_layers_alone() -> None:
    settings = config.Model(dimension=8, visual=config.Visual(trunk="shufflenet_v2_x0_5", freeze=0.5))
    recognizer = SICoT(settings, SIZE, torch.zeros(3), torch.zeros(2, 4), torch.zeros(2)).train()
    trunk = recognizer.visual.trunk
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    recognizer(photos(4), torch.ones(4, 1, dtype=torch.long), torch.tensor([0, 1, 2, 0]))["loss"].backward()
    moved = {name for name, value in trunk.state_dict().items() if not torch.equal(value, before[name])}
    learnt = {name for name, parameter in trunk.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith(("conv1", "stage2")) for name in moved | learnt)
    assert "conv5.1.running_mean" in moved
    assert "conv5.0.weight" in learnt


def test_anothers_words_teach_the_mixed_stream_alone() -> None:
    parts = model(text_swap=1.0).train()(photos(3), torch.tensor([[1], [2], [3]]), torch.arange(3))
    assert parts["text"] == 0
    assert parts["mixed"] > 0


# regnet's and squeezenet's constructors need real tensors; the huge ones are left to their smaller siblings
LARGE = ("vit_h", "vit_l", "regnet_y_128gf", "regnet_y_32gf", "regnet_x_32gf", "regnet_y_16gf", "regnet_x_16gf")


@pytest.mark.parametrize("name", [name for name in trunks() if not name.startswith(LARGE)])
def test_every_torchvision_classifier_is_a_trunk(name: str) -> None:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        trunk, features = build_trunk(name, 224)
        out = trunk.to("meta").eval()(torch.zeros(2, 3, 224, 224, device="meta"))
    assert out.shape == (2, features)


def test_an_unknown_trunk_is_named() -> None:
    with pytest.raises(ValueError, match=r"model.visual.trunk: no torchvision classifier is called 'resnet19'"):
        build_trunk("resnet19", 64)


def test_features_of_a_photo_stand_in_for_it() -> None:
    net = model()
    images_BHW3 = torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8)
    assert torch.equal(net.visual(net.visual.features(images_BHW3)), net.visual(images_BHW3))


def test_the_mixed_stream_teaches_with_the_class_prior_as_both_streams_are_trained() -> None:
    loss = config.Loss(distill=1.0)
    net = model(loss=loss, word_dropout=0.0, text_dropout=0.0, image_dropout=0.0)
    net.log_prior_C.copy_(torch.linspace(-4, -0.5, CLASSES))
    images_BHW3, words_BT = photos(4), torch.tensor([[1, 2], [3, 0], [4, 5], [0, 0]])
    z_v_BC, z_m_BC = (answer(net, images_BHW3, words)[0] + net.log_prior_C for words in (None, words_BT))
    part = net(images_BHW3, words_BT, torch.arange(4))["distill"]
    torch.testing.assert_close(part, losses.distillation(z_m_BC, z_v_BC))
    assert not torch.isclose(part, losses.distillation(z_m_BC - net.log_prior_C, z_v_BC - net.log_prior_C))
