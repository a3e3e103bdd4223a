"""Language modelling: what a window is, what its probability is, and that no text is in two parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import tiny_model

from archsmith.errors import ArchsmithError, BadInput
from archsmith.tasks import LanguageModelling, Task
from archsmith.tasks.language_modelling import PASSAGE, documents
from archsmith.tasks.vocabulary import learnt_alphabet

WORDS = [
    "the",
    "film",
    "is",
    "good",
    "bad",
    "great",
    "dull",
    "plot",
    "slow",
    "fast",
    "very",
    "not",
    "fun",
    "actor",
    "music",
]


def passages(count: int, long: int = 300) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, long)) for _ in range(count)]


def build(path: Path, tokenizer: Any, **options: Any) -> LanguageModelling:
    return LanguageModelling.from_files(path, tokenizer=tokenizer, rng=np.random.default_rng(0), **options)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(passages(120)))
    return path


def test_a_task_of_text_is_a_task(plain, tokenizer):
    task: Task = build(plain, tokenizer, length=16)
    assert {name for name in vars(Task) if not name.startswith("_")} <= set(dir(task))
    assert task.size("validation") == 64 and task.size("train") > 1000
    inputs = task.inputs("train", [0, 3])
    assert list(inputs) == list(task.dynamic()) and inputs["input_ids"].shape == (2, 16)
    assert inputs["attention_mask"].all() and set(task.lengths("train").tolist()) == {16}
    with pytest.raises(ArchsmithError, match="sealed"):
        task.inputs("holdout", [0])
    served = [row for rows in task.batches("train", 7, np.random.default_rng(0)) for row in rows]
    assert sorted(served) == list(range(task.size("train")))


def test_windows_are_the_text_in_order_and_its_parts_are_whole_passages(plain, tokenizer):
    task = build(plain, tokenizer, length=16)
    text = plain.read_text()
    task.open_holdout()
    for part in ("train", "validation", "holdout"):
        for row in (0, task.size(part) - 1):
            ids = task.inputs(part, [row])["input_ids"][0].tolist()
            words = tokenizer.decode(ids).replace("[SEP]", "").split()
            assert " ".join(words) in " ".join(text.split())
    streams = {part: " ".join(map(str, stream)) for part, stream in task.streams.items()}
    window = " ".join(map(str, task.inputs("holdout", [0])["input_ids"][0].tolist()))
    assert window in streams["holdout"] and window not in streams["train"]


def test_a_table_gives_a_text_a_row_and_a_repeated_one_is_in_one_part(tmp_path, tokenizer):
    texts = passages(60, 40)
    path = tmp_path / "d.tsv"
    path.write_text("text\n" + "\n".join(texts + texts))
    task = build(path, tokenizer, length=8)
    assert sum(len(stream) for stream in task.streams.values()) < 1.2 * 60 * 40 + 120 + 54 * 41
    assert task.split.set_aside == 12  # the second copies of what was drawn


def test_quality_is_the_mean_probability_that_the_model_gives(plain, tokenizer):
    task = build(plain, tokenizer, length=16)
    model, _ = tiny_model("gpt2", vocab_size=len(tokenizer))
    wrapped = task.wrap(model)
    rows = [0, 1, 2]
    inputs = task.inputs("validation", rows)
    with torch.no_grad():
        outputs = wrapped(**inputs)
        own = model(**inputs, labels=inputs["input_ids"]).loss
    assert outputs.shape == (3, 15)
    assert float(task.loss(outputs, None)) == pytest.approx(float(own), rel=1e-4)
    everything = np.tile(outputs.numpy()[:1], (task.size("validation"), 1))
    judged = task.judge(everything, "validation")
    assert task.quality(judged) == pytest.approx(100 * np.exp(outputs[0].mean().item()), rel=1e-5)
    assert task.drop(judged - 0.1, judged) == pytest.approx(task.quality(judged) * (1 - np.exp(-0.1)), rel=1e-4)
    assert float(task.divergence(outputs, outputs)) == 0 and float(task.divergence(outputs - 1, outputs)) == 1
    worse, better = (float(task.apart(outputs + shift, outputs)) for shift in (-0.2, 0.2))
    assert worse == pytest.approx(better) == pytest.approx(0.02, rel=1e-3) and float(task.apart(outputs, outputs)) == 0
    broken = everything.copy()
    broken[0, 0] = np.nan
    assert task.quality(task.judge(broken, "validation")) < task.quality(judged)


def test_more_windows_begin_anywhere(plain, tokenizer):
    task = build(plain, tokenizer, length=16)
    longer = task.extended(50, np.random.default_rng(0))
    size = task.size("train")
    assert longer.size("train") == size + 50 and task.size("train") == size
    assert torch.equal(longer.inputs("train", [5])["input_ids"], task.inputs("train", [5])["input_ids"])
    assert len({int(start) % 16 for start in longer.starts["train"][size:]}) > 8
    assert longer.inputs("train", list(range(size, size + 50)))["input_ids"].shape == (50, 16)


@pytest.mark.parametrize(("batch", "length"), [(1, 8), (3, 100), (2, 16)])
def test_an_example_is_text_of_that_length(plain, tokenizer, batch, length):
    example = build(plain, tokenizer, length=16).example(batch, length)
    assert {tuple(value.shape) for value in example.values()} == {(batch, length)}


def test_too_little_text_is_refused(tmp_path, tokenizer):
    path = tmp_path / "d.txt"
    path.write_text("the film is good")
    with pytest.raises(BadInput, match="unrelated examples"):
        build(path, tokenizer, length=16)
    path.write_text("\n\n".join(passages(120)))
    other = tmp_path / "v.txt"
    other.write_text("the film is fun")
    with pytest.raises(BadInput, match="at least one window of 16 tokens"):
        build(path, tokenizer, validation=other, length=16)
    with pytest.raises(BadInput, match="at least 8 tokens"):
        build(path, tokenizer, length=4)


def test_a_text_without_blank_lines_is_cut_at_its_lines(tmp_path, tokenizer):
    path = tmp_path / "d.txt"
    lines = [line.replace("\n", " ") for line in passages(900)]
    path.write_text("\n".join(lines))
    found = documents(path, None)
    assert len(found) > 5 and max(map(len, found)) < 2 * PASSAGE
    assert "".join(found) == "\n".join(lines) + "\n\n"
    assert build(path, tokenizer, length=16).size("holdout") > 1


def test_an_alphabet_is_learnt_from_the_train_part_alone(tmp_path):
    rows = [f"{number:03d} {'x' * 30} line\n of {chr(0x4E00 + number)}" for number in range(60)]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in rows))
    task = build(path, None, length=8)
    rare = {part: int((stream == 1).sum()) for part, stream in task.streams.items()}
    assert rare == {"train": 0, "validation": 6, "holdout": 6}  # each row has a character of its own
    ids = task.tokenizer("of  line\n of", add_special_tokens=False)["input_ids"]
    assert len(ids) == 12 and task.tokenizer.decode(ids) == "of  line\n of" and task.tokenizer.pad_token_id == 0


def test_of_much_text_pieces_of_words_are_learnt_and_nothing_is_unknown():
    learnt = learnt_alphabet(passages(30), much=1000)
    text = "the great film,\n über 模型"
    ids = learnt(text, add_special_tokens=False)["input_ids"]
    assert learnt.decode(ids) == text and 1 not in ids
    assert len(learnt("the great film", add_special_tokens=False)["input_ids"]) == 3
