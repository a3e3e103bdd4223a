"""Find a network that foretells a series, and compare it with an LSTM trained for as many steps.

python examples/series_forecast.py --data ETTh1.csv --trials 20
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from archsmith.jobs.asked import Asked
from archsmith.jobs.baseline import baseline, compared
from archsmith.jobs.ground import Scratch
from archsmith.jobs.search import search

LSTM = [{"lstm": {"out": 64}}, "last", {"linear": {"out": "$outputs"}}]


def made_up(file: Path, days: int = 14) -> Path:
    """Hours of a load that follows the day and the weather, with noise."""
    rng, hour = np.random.default_rng(0), np.arange(24 * days)
    weather = np.cumsum(rng.normal(0, 0.3, len(hour))) * 0.1
    load = 10 + 3 * np.sin(2 * np.pi * hour / 24) + weather + rng.normal(0, 0.3, len(hour))
    times = np.datetime64("2024-01-01T00") + hour.astype("timedelta64[h]")
    rows = [f"{time},{a:.3f},{b:.3f}" for time, a, b in zip(times, weather, load, strict=True)]
    file.write_text("\n".join(["date,weather,load", *rows]) + "\n")
    return file


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", help="a CSV with dates and numbers; made up unless given")
    options.add_argument("--trials", type=int, default=3)
    options.add_argument("--minutes", type=float, help="of the search; by passes over the data unless given")
    options.add_argument("--out", default="")
    chosen = options.parse_args()
    out = Path(chosen.out or tempfile.mkdtemp()) / "run"
    out.parent.mkdir(parents=True, exist_ok=True)
    small = {} if chosen.data else {"history": 24, "horizon": 6}
    data = chosen.data or str(made_up(out.parent / "made_up.csv"))
    task = Scratch("series-forecasting", data, "series", runtime="onnxruntime", **small)
    search(out, Asked("evolution", chosen.trials, scratch=task, minutes=chosen.minutes))
    print(compared(out, {"LSTM": baseline(out, LSTM)}))
    print(f"The report is {out}/report.html")


if __name__ == "__main__":
    main()
