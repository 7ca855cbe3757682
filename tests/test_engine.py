"""The compiled network sees what PyTorch's sees, from any number of threads, and tells nobody about it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sicot import config, engine
from sicot.bundle import Bundle, Query
from sicot.engine import Engine
from sicot.errors import UserError
from sicot.model.visual import Visual
from tests.builders import LABELS, bundle_folder, photo

SIZE = 64


def photos(count: int, size: int = SIZE) -> Tensor:
    coarse = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(count)).float()
    return functional.interpolate(coarse, size=(size, size), mode="bilinear").permute(0, 2, 3, 1).to(torch.uint8)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Visual, Path]:
    torch.manual_seed(0)
    visual, folder = Visual(config.Visual(trunk="mobilenet_v2"), SIZE, 32).eval(), tmp_path_factory.mktemp("engine")
    engine.export(visual, SIZE, folder)
    return visual, folder


@pytest.mark.parametrize(
    "trunk",
    ["mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1", "resnet18", "efficientnet_b0", "swin_t", "vit_b_32"],
)
@torch.inference_mode()
def test_it_sees_what_pytorch_sees_whatever_the_network(trunk: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    visual = Visual(config.Visual(trunk=trunk), SIZE, 32).eval()
    engine.export(visual, SIZE, tmp_path)
    for count in (1, 3):
        torch.testing.assert_close(Engine(tmp_path).see(photos(count)), visual(photos(count)), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_threads_that_ask_at_once_get_their_own_answers(network: tuple[Visual, Path]) -> None:
    visual, folder = network
    shared = Engine(folder, streams=2)
    asked = [photos(1 + n % 7) for n in range(60)]
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(shared.see, asked))
    for images, seen in zip(asked, told, strict=True):
        torch.testing.assert_close(seen, visual(images), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_what_it_gave_stays_when_it_is_asked_again(network: tuple[Visual, Path]) -> None:
    one = Engine(network[1])
    first = one.see(photos(2))
    kept = first.clone()
    one.see(photos(3))
    assert torch.equal(first, kept)


@pytest.mark.skipif(not engine.has_bf16(), reason="the processor has no bfloat16")
@torch.inference_mode()
def test_bfloat16_is_near_and_taken_for_what_it_is(network: tuple[Visual, Path]) -> None:
    visual, folder = network
    apart = (Engine(folder, "bf16").see(photos(9)) - visual(photos(9))).abs().max()
    assert 1e-5 < apart < 0.05


def test_something_else_in_its_place_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "engine.xml").write_text("<net/>")
    with pytest.raises(UserError, match=r"engine.xml is no engine"):
        Engine(tmp_path)


def test_nobody_is_told_that_it_is_used() -> None:
    script = "import sicot.engine, sys; print(sorted(n for n in sys.modules if n.startswith('openvino_telemetry.')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestInABundle:
    """A bundle that was written with an engine."""

    @pytest.fixture(scope="class")
    def quick(self, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
        return Bundle.load(bundle_folder(tmp_path_factory.mktemp("quick"), images_NHW3=photos(20, 32)))

    def test_answers_are_those_without_it(self, quick: Bundle) -> None:
        plain = Bundle.load(quick.folder)
        plain.engine = None
        queries = [Query(photo(label, n), label.replace("-", " ") if n % 2 else "") for n, label in enumerate(LABELS)]
        queries.append(Query(None, "blue mug"))
        near = 1e-4 if quick.info.engine and quick.info.engine["precision"] == "f32" else 0.02
        for mine, theirs in zip(quick.predict(queries), plain.predict(queries), strict=True):
            assert mine.score == pytest.approx(theirs.score, abs=near)
            assert [word.token for word in mine.words] == [word.token for word in theirs.words]

    def test_what_was_measured_stays_with_it(self, quick: Bundle) -> None:
        about = quick.info.engine
        assert about is not None
        assert about["precision"] in about["ms"]
        assert about["ms"].keys() >= {"eager", "f32"}
        if about["precision"] == "bf16":
            assert about["agreement"] >= engine.AGREE

    def test_another_file_in_its_place_is_refused(self, quick: Bundle, tmp_path: Path) -> None:
        folder = bundle_folder(tmp_path, images_NHW3=photos(8, 32))
        Path(folder, "engine.bin").write_bytes(b"\0" * 99)
        with pytest.raises(UserError, match=r"engine\.bin is missing or not the file that was bundled"):
            Bundle.load(folder)

    def test_a_network_that_cannot_be_converted_is_seen_by_pytorch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Strange(nn.Module):
            def forward(self, images_BHW3: Tensor) -> Tensor:
                return torch.special.bessel_j0(images_BHW3.float())

        monkeypatch.setattr(engine, "export", lambda visual, size, to, real=engine.export: real(Strange(), size, to))
        loaded = Bundle.load(bundle_folder(tmp_path, images_NHW3=photos(8, 32)))
        assert "OpenVINO cannot convert squeezenet1_1" in capsys.readouterr().out
        assert (loaded.engine, loaded.info.engine) == (None, None)
        assert len(loaded.predict([Query(photo("red-bag", 1))])) == 1

    def test_a_wrong_conversion_is_not_taken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other = Visual(config.Visual(trunk="squeezenet1_1"), 32, 16)
        monkeypatch.setattr(engine, "export", lambda visual, size, to, real=engine.export: real(other, size, to))
        loaded = Bundle.load(bundle_folder(tmp_path, images_NHW3=photos(8, 32)))
        assert loaded.info.engine is None
        assert not Path(loaded.folder, "engine.xml").exists()
