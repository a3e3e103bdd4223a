"""One table of laws that every task obeys, then what each task promises of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, recall_score
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel

from archsmith.errors import ArchsmithError, BadInput
from archsmith.tasks import SentenceEmbedding, Task, TextClassification
from archsmith.tasks.encodings import batches
from archsmith.tasks.labels import number_labels
from archsmith.tasks.metrics import confusion, find_metric

ENGLISH = ("good", "bad", "great", "dull", "slow", "fast", "fun", "film", "plot", "actor", "music", "very", "not", "is")
CHINESE = "这部电影很好看不坏差剧情太慢了我喜欢演员音乐非常棒无聊浪费时间"
KINDS = ("english", "chinese", "pairs", "embedding")


def some_text(i: int, chinese: bool = False) -> str:
    rng = np.random.default_rng(i)
    length = int(rng.integers(4, 14))
    return "".join(rng.choice(list(CHINESE), length)) if chinese else " ".join(rng.choice(ENGLISH, length))


@pytest.fixture(params=KINDS)
def task(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: Any) -> Any:
    return build(request.param, tmp_path, tokenizer)


def build(kind: str, folder: Path, tokenizer: Any, count: int = 120) -> Any:
    path = folder / "d.tsv"
    rng = np.random.default_rng(0)
    if kind in ("pairs", "embedding"):
        lines = [f"{i % 3}\t{some_text(i)}\t{some_text(i + 5000)}" for i in range(count)]
        path.write_text("label\tquestion\tanswer\n" + "\n".join(lines))
        if kind == "embedding":
            return SentenceEmbedding.from_files(path, tokenizer=tokenizer, rng=rng)
    else:
        lines = [f"{'neg' if i % 2 else 'pos'}\t{some_text(i, kind == 'chinese')}" for i in range(count)]
        path.write_text("label\ttext\n" + "\n".join(lines))
    return TextClassification.from_files(path, tokenizer=tokenizer, rng=rng)


def model_for(task: Task, vocabulary: int) -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=3,
    )
    built = BertModel(config) if isinstance(task, SentenceEmbedding) else BertForSequenceClassification(config)
    return built.eval()


def answers(task: Task, wrapped: nn.Module, part: Any, size: int = 16) -> np.ndarray:
    found: dict[int, np.ndarray] = {}
    with torch.inference_mode():
        for rows in task.batches(part, size):
            found |= dict(zip(rows, wrapped(**task.inputs(part, rows)).numpy(), strict=True))
    return np.stack([found[row] for row in range(task.size(part))])


def test_a_task_is_a_task(task: Any) -> None:
    seam: Task = task
    assert {name for name in vars(Task) if not name.startswith("_")} <= set(dir(seam))


def test_inputs_are_padded_to_the_longest_and_masked(task: Any) -> None:
    rows = [3, 0, 7]
    inputs = task.inputs("train", rows)
    lengths = task.lengths("train")[rows]
    assert list(inputs) == list(task.dynamic())
    assert {tuple(value.shape) for value in inputs.values()} == {(3, int(lengths.max()))}
    assert inputs["attention_mask"].sum(dim=1).tolist() == lengths.tolist()
    assert (inputs["input_ids"][inputs["attention_mask"] == 0] == task.frame.pad).all()


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_pass_serves_every_row_once_in_batches_of_like_length(task: Any, shuffled: bool) -> None:
    served = list(task.batches("train", 8, np.random.default_rng(1) if shuffled else None))
    assert sorted(row for rows in served for row in rows) == list(range(task.size("train")))
    assert max(map(len, served)) == 8
    lengths = task.lengths("train")
    assert np.mean([np.ptp(lengths[rows]) for rows in served]) < np.ptp(lengths) / 3
    if shuffled:
        assert served != list(task.batches("train", 8, np.random.default_rng(2)))


def test_rows_of_one_length_meet_others_in_every_pass() -> None:
    lengths = np.full(500, 7)
    passes = [{frozenset(rows) for rows in batches(lengths, 4, np.random.default_rng(seed))} for seed in (0, 1)]
    assert len(passes[0] & passes[1]) < 5


@pytest.mark.parametrize(("batch", "length"), [(1, 8), (2, 64), (5, 31)])
def test_an_example_is_real_tokens_of_exactly_that_length(task: Any, batch: int, length: int) -> None:
    example = task.example(batch, length)
    assert list(example) == list(task.dynamic())
    assert {tuple(value.shape) for value in example.values()} == {(batch, length)}
    assert example["attention_mask"].all()
    ids = example["input_ids"]
    assert (ids != task.frame.pad).all()
    assert ids[:, : len(task.frame.prefix)].tolist() == [list(task.frame.prefix)] * batch
    assert ids[:, length - len(task.frame.suffix) :].tolist() == [list(task.frame.suffix)] * batch
    assert set(ids.unique().tolist()) <= set(task.parts["train"].ids.tolist())


def test_an_example_too_short_for_a_token_is_refused(task: Any) -> None:
    with pytest.raises(BadInput, match="length 2"):
        task.example(1, 2)


def test_the_holdout_is_sealed_until_it_is_opened_once(task: Any) -> None:
    assert task.size("holdout") > 0
    for read in (
        lambda: task.inputs("holdout", [0]),
        lambda: task.targets("holdout", [0]),
        lambda: task.judge(np.zeros((task.size("holdout"), 3)), "holdout"),
    ):
        with pytest.raises(ArchsmithError, match="sealed"):
            read()
    task.open_holdout()
    assert task.inputs("holdout", [0])["input_ids"].shape[0] == 1
    assert task.holdout_opened
    with pytest.raises(ArchsmithError, match="once"):
        task.open_holdout()


def test_a_wrapped_model_answers_the_same_in_any_batch(task: Any, tokenizer: Any) -> None:
    wrapped = task.wrap(model_for(task, len(tokenizer)))
    one, many = answers(task, wrapped, "validation", 1), answers(task, wrapped, "validation", 16)
    assert one.ndim == 2
    np.testing.assert_allclose(one, many, atol=1e-5)
    judged = task.judge(many, "validation")
    assert 0 <= task.quality(judged) <= 100
    assert task.quality(judged, np.arange(len(judged))) == task.quality(judged)
    assert task.quality(judged, np.zeros(50, dtype=int)) in (0.0, 100.0)


def test_wrapped_inputs_keep_their_order(task: Any, tokenizer: Any) -> None:
    wrapped = task.wrap(model_for(task, len(tokenizer)))
    inputs = task.inputs("train", [0, 1])
    assert torch.equal(wrapped(*inputs.values()), wrapped(**inputs))


def test_divergence_is_nought_only_where_equal(task: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    original: Tensor = torch.randn(8, 3, generator=generator)
    near = original + 0.1 * torch.randn(8, 3, generator=generator)
    far = torch.randn(8, 3, generator=generator)
    assert abs(float(task.divergence(original, original))) < 1e-6
    assert 0 < float(task.divergence(near, original)) < float(task.divergence(far, original))


def test_extended_rows_follow_the_real_ones(task: Any) -> None:
    longer = task.extended(200, np.random.default_rng(0))
    size = task.size("train")
    assert longer.size("train") == size + 200 == task.size("train") + 200
    assert longer.lengths("train").max() <= task.lengths("train").max()
    assert torch.equal(longer.inputs("train", [1, 5])["input_ids"], task.inputs("train", [1, 5])["input_ids"])
    for row in range(size, size + 200):
        ids = longer.parts["train"].row(row).tolist()
        before, after = list(task.frame.prefix), list(task.frame.suffix)
        assert ids[: len(before)] == before
        assert ids[len(ids) - len(after) :] == after
        assert len(ids) > len(before) + len(after)
    again = task.extended(200, np.random.default_rng(0))
    assert np.array_equal(longer.parts["train"].ids, again.parts["train"].ids)
    twice = longer.extended(10, np.random.default_rng(0))
    assert (twice.size("train"), twice.extra_rows) == (size + 210, 210)


def test_extended_rows_have_no_labels_and_are_not_judged(task: Any) -> None:
    longer = task.extended(9, np.random.default_rng(0))
    size = task.size("train")
    targets = longer.targets("train", [0, size, size + 8])
    if targets is not None:
        assert targets.tolist() == [*task.targets("train", [0]).tolist(), -100, -100]
        assert float(task.loss(torch.zeros(2, 3), targets[1:])) == 0.0
    outputs = np.random.default_rng(0).normal(size=(size + 9, 3)).astype(np.float32)
    assert np.array_equal(longer.judge(outputs, "train"), task.judge(outputs[:size], "train"))


def test_pairs_keep_their_segments(tmp_path: Path, tokenizer: Any) -> None:
    task = build("pairs", tmp_path, tokenizer)
    text, other = some_text(0), some_text(5000)
    wanted = tokenizer(text, other)
    rows = [row for row in range(task.size("train")) if task.parts["train"].row(row).tolist() == wanted["input_ids"]]
    if rows:
        assert task.inputs("train", rows)["token_type_ids"][0].tolist() == wanted["token_type_ids"]
    assert list(task.dynamic()) == ["input_ids", "attention_mask", "token_type_ids"]
    assert task.frame.middle == (tokenizer.sep_token_id,)


LABELS: list[tuple[dict[str, int] | None, dict[str, int]]] = [
    (None, {"neg": 0, "pos": 1}),
    ({"LABEL_0": 0, "LABEL_1": 1}, {"neg": 0, "pos": 1}),
    ({"POS": 0, "NEG": 1}, {"neg": 1, "pos": 0}),
    ({"neutral": 0, "pos": 1, "neg": 2}, {"neg": 2, "pos": 1}),
]


@pytest.mark.parametrize(("labels", "wanted"), LABELS)
def test_labels_take_the_model_s_numbers(
    labels: dict[str, int] | None, wanted: dict[str, int], tmp_path: Path, tokenizer: Any
) -> None:
    path = tmp_path / "d.tsv"
    path.write_text("label\ttext\n" + "\n".join(f"{'neg' if i % 2 else 'pos'}\t{some_text(i)}" for i in range(60)))
    task = TextClassification.from_files(path, tokenizer=tokenizer, rng=np.random.default_rng(0), labels=labels)
    assert task.label_names == wanted
    assert set(task.targets("train", range(task.size("train"))).tolist()) == set(wanted.values())


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("12345", {"1": 0, "2": 1, "3": 2, "4": 3, "5": 4}),  # stars
        ("013", {"0": 0, "1": 1, "3": 3}),  # one that the data happen not to have
    ],
)
def test_numbers_from_zero_are_classes_and_others_are_names(names: str, wanted: dict[str, int]) -> None:
    assert number_labels(list(names) * 20, None, "d.tsv") == wanted


def test_classification_is_judged_by_row() -> None:
    judged = np.array([[0, 0], [1, 1], [1, 0], [0, -1]])
    counts = find_metric("accuracy", 2)
    assert counts(confusion(judged, 2)) == 50.0


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "f1_binary", "recall_macro", "recall_binary"])
def test_metrics_agree_with_scikit_learn(name: str, classes: int) -> None:
    if name.endswith("binary") and classes > 2:
        with pytest.raises(BadInput, match="two classes"):
            find_metric(name, classes)
        return
    rng = np.random.default_rng(classes)
    true, predicted = rng.integers(0, classes, (2, 200))
    score = {"accuracy": accuracy_score, "f1": f1_score, "recall": recall_score}[name.split("_")[0]]
    options = {"average": name.split("_")[1]} if "_" in name else {}
    if classes > 2:
        predicted, true = predicted % 3, true % 3  # a class that never occurs counts for nothing
    ours = find_metric(name, classes)(confusion(np.stack([true, predicted], axis=1), classes))
    assert ours == pytest.approx(100 * score(true, predicted, **options))


def test_answers_that_are_not_numbers_are_wrong(tmp_path: Path, tokenizer: Any) -> None:
    task = build("english", tmp_path, tokenizer)
    outputs = np.full((task.size("validation"), 2), np.nan)
    assert task.quality(task.judge(outputs, "validation")) == 0.0
    embedding = build("embedding", tmp_path, tokenizer)
    outputs = np.full((embedding.size("validation"), 4), np.nan)
    assert embedding.quality(embedding.judge(outputs, "validation")) == 0.0


def test_too_few_logits_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    task = build("english", tmp_path, tokenizer)
    with pytest.raises(BadInput, match="at least 2 logits"):
        task.judge(np.zeros((task.size("validation"), 1)), "validation")


def test_a_drop_on_rows_that_the_original_may_have_learnt_is_bounded_by_how_often_they_differ(
    tmp_path: Path, tokenizer: Any
) -> None:
    """Ten rows, the original right on all, the small network wrong on five: 50 points below, or 0.4 of 50."""
    off = build("english", tmp_path, tokenizer)
    (tmp_path / "v.tsv").write_text("label\ttext\npos\tvery good film\nneg\tbad plot\n")
    rng = np.random.default_rng(0)
    own = TextClassification.from_files(tmp_path / "d.tsv", tmp_path / "v.tsv", tokenizer=tokenizer, rng=rng)
    true = np.zeros(10, dtype=np.int64)
    right, half = np.stack([true, true], 1), np.stack([true, np.arange(10) % 2], 1)
    assert own.drop(half, right) == pytest.approx(50.0)
    assert off.drop(half, right) == pytest.approx(20.0)
    assert off.drop(right, half) == pytest.approx(-50.0)  # better than the original: nothing to bound
    assert off.drop(right, right) == own.drop(right, right) == 0.0
    f1 = TextClassification.from_files(tmp_path / "d.tsv", tokenizer=tokenizer, rng=rng, metric="f1")
    assert f1.drop(half, right) == pytest.approx(f1.quality(right) - f1.quality(half))  # of accuracy alone is it known


def test_recall_counts_the_nearer_bodies(tmp_path: Path, tokenizer: Any) -> None:
    task = build("embedding", tmp_path, tokenizer)
    n = task.pairs("validation")
    bodies = np.eye(n, dtype=np.float32)
    assert task.judge(np.concatenate([bodies, bodies]), "validation").tolist() == [0] * n
    shifted = np.roll(bodies, 1, axis=0) + 0.5 * bodies
    assert task.judge(np.concatenate([shifted, bodies]), "validation").tolist() == [1] * n
    assert task.quality(np.array([0, 9, 10, 11])) == 50.0


def test_parts_in_which_chance_finds_most_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    task = build("embedding", tmp_path, tokenizer)
    with pytest.raises(BadInput, match="recall@10 needs 50 pairs"):
        task.check_parts()
    nothing = np.full((task.size("validation"), 4), np.nan)
    task.nearest = 2
    task.check_parts()
    task.nearest = 100
    assert task.quality(task.judge(nothing, "validation")) == 0.0


def test_a_half_of_a_pair_is_in_one_part_only(tmp_path: Path, tokenizer: Any) -> None:
    """A body that is searched in the end must not have been learnt with another question."""
    (tmp_path / "d.tsv").write_text(
        "question\tanswer\n" + "\n".join(f"{some_text(i)}\t{some_text(i + 5000)}" for i in range(40))
    )
    held = [f"{some_text(900)}\t{some_text(5003).upper()}", f"{some_text(7)}\t{some_text(901)}"]
    (tmp_path / "h.tsv").write_text("question\tanswer\n" + "\n".join(held))
    (tmp_path / "v.tsv").write_text(f"question\tanswer\n{some_text(902)}\t{some_text(903)}")
    task = SentenceEmbedding.from_files(
        tmp_path / "d.tsv", tmp_path / "v.tsv", tmp_path / "h.tsv", tokenizer=tokenizer, rng=np.random.default_rng(0)
    )
    assert task.pairs("train") == 38
    assert task.split.duplicates["train in holdout"] == 2
    assert task.split.rows["train"] == 38


@pytest.mark.parametrize(("pooling", "first_only"), [("cls", True), ("mean", False)])
def test_pooling_is_the_one_named(pooling: Any, first_only: bool, tmp_path: Path, tokenizer: Any) -> None:
    task = build("embedding", tmp_path, tokenizer)
    task.pooling = pooling

    class States(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
            return (torch.nn.functional.one_hot(input_ids, len(tokenizer)).float(),)

    embedded = task.wrap(States())(**task.inputs("train", [0, 1]))
    assert torch.allclose(embedded.norm(dim=-1), torch.ones(2))
    assert bool((embedded[:, tokenizer.cls_token_id] == 1).all()) is first_only
    assert (embedded[:, tokenizer.pad_token_id] == 0).all()


def test_embeddings_of_another_width_are_compared_by_structure(tmp_path: Path, tokenizer: Any) -> None:
    task = build("embedding", tmp_path, tokenizer)
    original = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    wider = torch.cat([original, torch.zeros(6, 3)], dim=1)
    assert abs(float(task.divergence(wider, original))) < 1e-6
    assert float(task.divergence(wider.flip(0), original)) > 0.1
    assert float(task.divergence(wider[:1], original[:1])) == 0.0
