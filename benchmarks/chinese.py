"""Chinese reviews: what is found from nothing beside a TextCNN, a BiLSTM and TF-IDF with logistic regression.

Each has the same minutes, and chooses on validation: the search its network; TextCNN and BiLSTM among three learning
rates; TF-IDF the length of its n-grams and its regularisation. Latency is that of one review of 128 characters, one
thread, ONNX Runtime in fp32 for networks; of TF-IDF as scikit-learn has it.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from contest import Contest, example, tell
from record import Record, main

from archsmith.jobs.asked import Asked
from archsmith.jobs.ground import TASKS, Scratch

POINTS, FASTER = 1.0, 1.3  # above the best of the others, and times as fast as it


def run(record: Record, options: argparse.Namespace) -> None:
    """Accuracy on the holdout and latency of each, mean of the seeds."""
    reviews, work = example("chinese_reviews"), options.work
    work.mkdir(parents=True, exist_ok=True)
    data = work / "reviews.tsv"
    if not data.exists():
        reviews.reviews(data)
    networks = {"TextCNN": reviews.TEXTCNN, "BiLSTM": reviews.BILSTM}
    rows = []
    for seed in range(options.first, options.first + options.seeds):
        scratch = Scratch("text-classification", str(data), "text", runtime="onnxruntime", seed=seed)
        asked = Asked(options.strategy, options.trials, scratch=scratch, minutes=options.minutes, seed=seed)
        contest = Contest(scratch, asked, lambda macs: networks, {"TF-IDF": partial(tf_idf, minutes=options.minutes)})
        rows.append(contest.held(work, work))
    record.say("strategy; minutes each; trials", f"{options.strategy}; {options.minutes:g}; {options.trials}")
    record.say("seeds", len(rows))
    above, times = tell(record, rows)
    record.say("points above the best of the others", above, "", above >= POINTS)
    record.say("times as fast as it", times, "", times >= FASTER)


def tf_idf(scratch: Scratch, minutes: float) -> dict[str, float]:
    """Characters in runs of one to three, logistic regression; what is best on validation within the minutes."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    task: Any = TASKS[scratch.task](scratch)  # its own, whose holdout nobody else has opened
    texts = {part: _texts(task.parts[part]) for part in ("train", "validation", "holdout")}
    began = time.perf_counter()
    best: tuple[float, Any, Any] = (-1.0, None, None)
    for longest in (1, 2, 3):
        vectors = TfidfVectorizer(
            analyzer="char", ngram_range=(1, longest), min_df=2, sublinear_tf=True, lowercase=False
        )
        x, y = vectors.fit_transform(texts["train"]), _labels(task, "train")
        for c in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
            if time.perf_counter() - began > 60 * minutes:
                break
            model = LogisticRegression(C=c, max_iter=500).fit(x, y)
            told = model.score(vectors.transform(texts["validation"]), _labels(task, "validation"))
            best = max(best, (told, vectors, model), key=lambda each: each[0])
    seconds = time.perf_counter() - began
    _, vectors, model = best
    task.open_holdout()
    quality = 100 * model.score(vectors.transform(texts["holdout"]), _labels(task, "holdout"))
    one = next(text[:128] for text in texts["train"] if len(text) >= 128)
    return {"quality": quality, "ms": _ms(vectors, model, one), "seconds": seconds, "macs": 0.0}


def _labels(task: Any, part: str) -> np.ndarray:
    return np.asarray(task.targets(part, range(task.size(part))).numpy())


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


if __name__ == "__main__":
    main(
        "chinese",
        run,
        ("--work", {"type": Path, "required": True}),
        ("--strategy", {"default": "portfolio"}),
        ("--minutes", {"type": float, "default": 10.0}),
        ("--trials", {"type": int, "default": 24}),
        ("--seeds", {"type": int, "default": 3}),
        ("--first", {"type": int, "default": 0}),
    )
