"""The bundle: what goes in comes out, what was tampered with does not, and answers keep their promises."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from sicot import bundle, config, enrol, index
from sicot.bundle import Bundle, Query
from sicot.errors import UserError
from sicot.prepare.images import BadImage
from tests.builders import LABELS, WORDS, bundle_folder, photo


@pytest.fixture(scope="module")
def loaded(tiny_bundle: str) -> Bundle:
    return Bundle.load(tiny_bundle)


def test_answers_are_ranked_probabilities_with_a_share_of_attention_for_each_word(loaded: Bundle) -> None:
    (answer,) = loaded.predict([Query(photo("red-bag", 1), "Red 红色包 frobnicator", ("sale",))], k=6)
    p = [each.probability for each in answer.ranked]
    assert sorted(each.label for each in answer.ranked) == LABELS
    assert p == sorted(p, reverse=True)
    assert sum(p) == pytest.approx(1, abs=1e-5)
    assert [word.token for word in answer.words] == ["red", "红色", "包", "frobnicator", "sale"]
    assert [word.known for word in answer.words] == [True, True, True, False, True]
    assert answer.words[3].weight == 0
    assert sum(word.weight for word in answer.words) + answer.no_word == pytest.approx(1, abs=1e-5)


def test_a_mixed_batch_answers_each_query_as_if_it_came_alone(loaded: Bundle) -> None:
    queries = [
        Query(photo("red-bag", 1)),
        Query(None, "blue mug"),
        Query(photo("blue-mug", 2), "blue mug"),
        Query(photo("pink-shoe", 3), "frobnicator"),
    ]
    together = loaded.predict(queries, 3)
    for query, answer in zip(queries, together, strict=True):
        (alone,) = loaded.predict([query], 3)
        assert [each.label for each in alone.ranked] == [each.label for each in answer.ranked]
        assert alone.ranked[0].probability == pytest.approx(answer.ranked[0].probability, abs=1e-5)
    assert together[0].no_word == together[3].no_word == 1.0


def test_words_nobody_knows_leave_the_photos_answer_exactly(loaded: Bundle) -> None:
    images_BHW3 = torch.from_numpy(loaded.decode(photo("white-mug", 4)))[None]
    plain_BC, _ = loaded.logits(images_BHW3, None)
    with_words_BC, _ = loaded.logits(images_BHW3, loaded.pad([[0, 0]]))
    assert torch.equal(plain_BC, with_words_BC)


def test_a_query_with_nothing_to_go_by_is_refused(loaded: Bundle) -> None:
    for query in (Query(), Query(None, "frobnicator"), Query(None, "   ")):
        with pytest.raises(UserError, match="nothing to go by"):
            loaded.encode(query)
    with pytest.raises(BadImage):
        loaded.encode(Query(b"not a photo", "red"))


def test_a_visual_only_bundle_answers_photos_alone(tmp_path: Path) -> None:
    from sicot.config import Loss

    visual = Bundle.load(bundle_folder(tmp_path, loss=Loss(mixed=0, text=0)))
    assert visual.regimes == ["image"]
    (answer,) = visual.predict([Query(photo("red-bag", 1), "red bag")])
    assert answer.no_word == 1.0
    with pytest.raises(UserError, match="photos only"):
        visual.encode(Query(None, "red"))


def test_the_same_model_has_the_same_digest_and_metrics_do_not_change_it(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path)
    first = Bundle.load(folder).info
    bundle.annotate(folder, {"image": {"top1": 0.5}})
    second = Bundle.load(folder).info
    assert second.metrics == {"image": {"top1": 0.5}}
    assert first.digest == second.digest == Bundle.load(bundle_folder(tmp_path)).info.digest


@pytest.mark.parametrize("name", [*bundle.FILES, "thumbnails.parquet"])
def test_a_changed_or_missing_file_is_refused_by_name(tiny_bundle: str, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is missing or not the file that was bundled"):
        Bundle.load(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        Bundle.load(folder)


def test_no_bundle_or_one_of_another_version_is_told(tiny_bundle: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no bundle at"):
        Bundle.load(tmp_path / "nothing")
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    info = json.loads((folder / "bundle.json").read_text())
    for broken in ({**info, "surprise": 1}, {}, {**info, "version": 99}, []):
        (folder / "bundle.json").write_text(json.dumps(broken))
        with pytest.raises(UserError, match="not one this version reads"):
            Bundle.load(folder)


def test_a_bundle_holds_no_pickle_and_no_path_of_the_machine_that_made_it(tiny_bundle: str) -> None:
    names = sorted(path.name for path in Path(tiny_bundle).iterdir())
    assert names == sorted([*bundle.FILES, "bundle.json", "thumbnails.parquet"])
    assert json.loads(Path(tiny_bundle, "bundle.json").read_text())["model"]["visual"]["weights"] is None


def test_an_answer_below_the_threshold_of_its_way_of_asking_is_unknown_and_still_ranked(loaded: Bundle) -> None:
    queries = [Query(photo("red-bag", 1)), Query(photo("red-bag", 1), "red bag"), Query(None, "red bag")]
    answers = loaded.predict([*queries, Query(photo("red-bag", 1), "frobnicator")])
    assert [answer.unknown for answer in answers] == [True, False, False, True]  # words nobody knows ask by photo
    assert all(answer.score == answer.ranked[0].probability and len(answer.ranked) == 5 for answer in answers)
    assert [answer.regime for answer in answers] == ["image", "image_text", "text", "image"]
    groups = dict(zip(loaded.classes.labels, loaded.classes.group, strict=True))
    assert [answer.group for answer in answers] == [groups[answer.ranked[0].label] for answer in answers]


def test_a_bundle_of_before_scores_were_kept_answers_all_the_same(tiny_bundle: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, folder := tmp_path / "bundle")
    info = json.loads((folder / "bundle.json").read_text())
    assert info.pop("scores").keys() == {"image", "image_text", "text"}
    (folder / "bundle.json").write_text(json.dumps(info))
    before = Bundle.load(folder)
    assert before.info.scores == {}
    assert before.predict([Query(None, "red bag")]) == Bundle.load(tiny_bundle).predict([Query(None, "red bag")])


def asked(loaded: Bundle) -> list[tuple[torch.Tensor | None, torch.Tensor | None]]:
    """Features and words in every way of asking, some rows without words the model knows."""
    v_BD = torch.nn.functional.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    words_BT = loaded.pad([[1], [0, 0], [], [2, 3, 0], [WORDS.index("mug") + 1]])
    return [(v_BD, None), (v_BD, words_BT), (None, words_BT[[0, 3, 4]])]


class TestLookedUp:
    """A bundle that is made to look its six classes up."""

    @pytest.fixture(scope="class")
    def looking(self, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
        folder = tmp_path_factory.mktemp("looking")
        return Bundle.load(bundle_folder(folder, config.Index(), torch.randn(20, 16)))

    @pytest.mark.parametrize("kind", ["cosine", "linear"])
    def test_with_all_classes_as_candidates_it_says_what_comparing_with_all_says(
        self, tmp_path: Path, kind: str
    ) -> None:
        looking = Bundle.load(bundle_folder(tmp_path, config.Index(), classifier=kind))
        for v_BD, words_BT in asked(looking):
            top = looking.top(v_BD, words_BT, 6)
            z_BC, a_BS = looking.judge(v_BD, words_BT)
            best = z_BC.softmax(1).topk(6)
            torch.testing.assert_close(top.p_BK, best.values)
            assert torch.equal(top.classes_BK, best.indices)
            assert (top.a_BS is None) == (a_BS is None)

    def test_with_few_candidates_probabilities_are_shared_out_among_them(self, tmp_path: Path) -> None:
        looking = Bundle.load(bundle_folder(tmp_path, config.Index(candidates=3)))
        for v_BD, words_BT in asked(looking):
            top = looking.top(v_BD, words_BT, 6)
            best = looking.judge(v_BD, words_BT)[0].topk(3)
            assert torch.equal(top.classes_BK, best.indices)
            torch.testing.assert_close(top.p_BK, best.values.softmax(1))

    def test_answers_name_the_same_classes_as_without_an_index(self, looking: Bundle, loaded: Bundle) -> None:
        queries = [
            Query(photo("red-bag", 1)),
            Query(None, "blue mug"),
            Query(photo("blue-mug", 2), "blue mug"),
            Query(photo("pink-shoe", 3), "frobnicator"),
        ]
        for mine, theirs in zip(looking.predict(queries, 9), loaded.predict(queries, 9), strict=True):
            assert [each.label for each in mine.ranked] == [each.label for each in theirs.ranked]
            assert mine.score == pytest.approx(theirs.score, abs=1e-5)
            assert (mine.unknown, mine.no_word) == (theirs.unknown, pytest.approx(theirs.no_word))

    def test_what_was_measured_stays_with_it(self, looking: Bundle, loaded: Bundle) -> None:
        about = json.loads(Path(looking.folder, "bundle.json").read_text())["index"]
        assert about["recall"] == 1
        assert about["kind"] in ("half", "int8", "lists")
        assert (looking.info.ranks, loaded.info.index) == (6, None)

    def test_a_changed_or_missing_index_is_refused_by_name(self, looking: Bundle, tmp_path: Path) -> None:
        folder = tmp_path / "bundle"
        shutil.copytree(looking.folder, folder)
        content = bytearray((folder / index.FILE).read_bytes())
        content[-1] ^= 1
        (folder / index.FILE).write_bytes(content)
        with pytest.raises(UserError, match=f"{index.FILE} is missing or not the file that was bundled"):
            Bundle.load(folder)
        (folder / index.FILE).unlink()
        with pytest.raises(UserError, match=index.FILE):
            Bundle.load(folder)

    def test_no_product_can_be_enrolled_and_none_is_carried(self, looking: Bundle, loaded: Bundle) -> None:
        given = {"green-mug": [Query(photo("green-mug", 1))]}
        with pytest.raises(UserError, match="6 classes"):
            enrol.enrol(looking, given)
        carried, left = enrol.carry(enrol.enrol(loaded, given), looking)
        assert carried is looking
        assert list(left) == ["green-mug"]
        assert enrol.carry(loaded, looking) == (looking, {})
