"""Chinese reviews: what is found from nothing beside a TextCNN, a BiLSTM and TF-IDF with logistic regression.

Each has the same minutes, and chooses on validation: the search its network; TextCNN and BiLSTM among three learning
rates; TF-IDF the length of its n-grams and its regularisation. Latency is that of one review of 128 characters, one
thread, ONNX Runtime in fp32 for networks; of TF-IDF from the text, as scikit-learn has it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from record import Record, main

from archsmith.jobs.baseline import baseline
from archsmith.jobs.ground import Scratch, grounded
from archsmith.jobs.search import Asked, search
from archsmith.report.result import read_result

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "chinese_reviews.py"
RATES = (1e-3, 2e-3, 4e-3)
POINTS, FASTER = 1.0, 1.3  # above the best of the others, and times as fast as it
Row = dict[str, Any]


def run(record: Record, options: argparse.Namespace) -> None:
    """Accuracy on the holdout and latency of each, mean of the seeds."""
    example = _example()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    data = work / "reviews.tsv"
    if not data.exists():
        example.reviews(data, False)
    rows = [of_seed(seed, data, work, options, example) for seed in range(options.first, options.first + options.seeds)]
    record.say("minutes each; trials; seeds", f"{options.minutes:g}; {options.trials}; {len(rows)}")
    means = {name: {key: float(np.mean([row[name][key] for row in rows])) for key in rows[0][name]} for name in rows[0]}
    for name, mean in means.items():
        record.say(f"{name}: accuracy on the holdout", mean["quality"], "%")
        record.say(f"{name}: latency", mean["ms"], "ms")
        record.say(f"{name}: search and training", mean["seconds"] / 60, "minutes")
    best = max((name for name in means if name != "found"), key=lambda name: means[name]["quality"])
    record.say("the best of the others", best)
    above = means["found"]["quality"] - means[best]["quality"]
    record.say("points above it", above, "", above >= POINTS)
    times = means[best]["ms"] / means["found"]["ms"]
    record.say("times as fast as it", times, "", times >= FASTER)


def of_seed(seed: int, data: Path, work: Path, options: argparse.Namespace, example: Any) -> dict[str, Row]:
    """What each reached; kept in a file, so that a benchmark that was stopped goes on."""
    file = work / f"seed{seed}.json"
    if file.exists():
        kept: dict[str, Row] = json.loads(file.read_text())
        return kept
    out = work / f"run{seed}"
    scratch = Scratch("text-classification", str(data), "text", runtime="onnxruntime", seed=seed)
    began = time.perf_counter()
    search(out, Asked("evolution", options.trials, scratch=scratch, minutes=options.minutes, seed=seed))
    seconds = time.perf_counter() - began
    result = read_result(out)
    assert result.holdout is not None
    plain = next(each for each in result.ladder if (each.runtime, each.precision) == ("onnxruntime", "fp32"))
    found = {"found": {"quality": result.holdout.best, "ms": plain.latency_ms, "seconds": seconds}}
    print(json.dumps(dict(result.architecture) or str(out)), flush=True)
    for name, network in (("TextCNN", example.TEXTCNN), ("BiLSTM", example.BILSTM)):
        each = baseline(out, network, learning_rates=RATES, minutes=options.minutes)
        found[name] = {"quality": each.quality, "ms": each.latency_ms, "seconds": each.seconds}
    found["TF-IDF"] = tf_idf(scratch, options.minutes)
    file.write_text(json.dumps(found))
    return found


def tf_idf(scratch: Scratch, minutes: float) -> Row:
    """Characters in runs of one to three, logistic regression; what is best on validation within the minutes."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    task: Any = grounded(scratch)[0].task
    task.open_holdout()
    texts = {part: _texts(task.parts[part]) for part in ("train", "validation", "holdout")}
    labels = {part: task.targets(part, range(task.size(part))).numpy() for part in texts}
    began, best = time.perf_counter(), (-1.0, 0.0, 0.0)
    for longest in (1, 2, 3):
        vectors = TfidfVectorizer(
            analyzer="char", ngram_range=(1, longest), min_df=2, sublinear_tf=True, lowercase=False
        )
        x = {"train": vectors.fit_transform(texts["train"])}
        x |= {part: vectors.transform(texts[part]) for part in ("validation", "holdout")}
        for c in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
            if time.perf_counter() - began > 60 * minutes:
                break
            model = LogisticRegression(C=c, max_iter=500).fit(x["train"], labels["train"])
            told = model.score(x["validation"], labels["validation"])
            if told > best[0]:
                one = next(text[:128] for text in texts["holdout"] if len(text) >= 128)
                best = (told, model.score(x["holdout"], labels["holdout"]), _ms(vectors, model, one))
    return {"quality": 100 * best[1], "ms": best[2], "seconds": time.perf_counter() - began}


def _texts(rows: Any) -> list[str]:
    """A letter for each token, so that all read the same: rows (texts) of tokens as strings."""
    return ["".join(chr(0x10000 + token) for token in rows.ids[a:b]) for a, b in pairwise(rows.offsets.tolist())]


def _ms(vectors: Any, model: Any, text: str) -> float:
    times = []
    for _ in range(200):
        began = time.perf_counter()
        model.predict(vectors.transform([text]))
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def _example() -> Any:
    spec = importlib.util.spec_from_file_location("chinese_reviews", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(
        "chinese",
        run,
        ("--work", {"type": Path, "required": True}),
        ("--minutes", {"type": float, "default": 10.0}),
        ("--trials", {"type": int, "default": 24}),
        ("--seeds", {"type": int, "default": 3}),
        ("--first", {"type": int, "default": 0}),
    )
