"""Numbers as people read them: one place for units, so that the terminal and the page say the same."""

from __future__ import annotations

from collections.abc import Sequence

from archsmith.report.result import Outcome, Result, Variant

NONE = "–"


def count(value: float | None) -> str:
    """A count with three digits.

    >>> count(22_713_000), count(4_096), count(12), count(None)
    ('22.7 M', '4.1 K', '12', '–')
    """
    if value is None:
        return NONE
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}" if abs(value) >= 100 * size else f"{value / size:.1f}{letter}"
    return f"{value:g}"


def size(value: float | None) -> str:
    """Bytes, in powers of ten as disks and downloads are.

    >>> size(45_400_000)
    '45.4 MB'
    """
    return NONE if value is None else f"{count(value)}{'' if abs(value) >= 1e3 else ' '}B"


def milliseconds(value: float | None, interval: tuple[float, float] | None = None) -> str:
    """A latency with its 95 % interval.

    >>> milliseconds(23.456, (23.1, 23.9)), milliseconds(0.5)
    ('23.5 ms (23.1–23.9)', '0.50 ms')
    """
    if value is None:
        return NONE
    between = f" ({_ms(interval[0])}–{_ms(interval[1])})" if interval else ""
    return f"{_ms(value)} ms{between}"


def percent(share: float) -> str:
    """A share.

    >>> percent(0.123)
    '12 %'
    """
    return f"{share:.0%}".replace("%", " %")


def points(value: float | None, signed: bool = False) -> str:
    """Quality in points; a difference carries its sign.

    >>> points(89.23), points(-0.31, signed=True), points(-1e-9, signed=True), points(-3e-9)
    ('89.2', '−0.31', '+0.00', '0.0')
    """
    if value is None:
        return NONE
    return f"{value:+z.2f}".replace("-", "−") if signed else f"{value:z.1f}"


def faster(variant: Variant, original: Variant) -> str:
    """How many times faster than the original, in one run."""
    if not variant.latency_ms or not original.latency_ms:
        return NONE
    return f"{original.latency_ms / variant.latency_ms:.1f}×"


def decoding(ladder: Sequence[Variant]) -> str:
    """Tokens per second that a decoder generates, before and after; empty where it was not measured.

    >>> before, after = (Variant("", 5.0, 9.0, "pytorch", "fp32", 9, 9, 9, decode_ms=ms) for ms in (50.0, 25.0))
    >>> decoding([before, after])
    '20.0 → 40.0 tokens/s in PyTorch fp32'
    """
    found = [f"{1e3 / rung.decode_ms:.1f}" for rung in ladder if rung.decode_ms]
    return f"{' → '.join(dict.fromkeys((found[0], found[-1])))} tokens/s in PyTorch fp32" if found else ""


def duration(seconds: float) -> str:
    """A time that somebody waited.

    >>> duration(5.21), duration(75), duration(3700)
    ('5.2 s', '1 min 15 s', '1 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def outcome(line: Outcome) -> str:
    """A target in words: met, or by how much not, and the floor where one is known.

    >>> outcome(Outcome("latency<=5ms", 5.4, False, floor=5.2))
    'latency<=5ms: not met, 5.4 (0.4 off); the floor is 5.2'
    """
    if line.value is None:
        return f"{line.target}: not measured"
    if line.met:
        value = round(line.value, 3) if line.target.startswith("drop") else line.value  # of points less is chance
        return f"{line.target}: met, {value:z.3g}"
    floor = "" if line.floor is None else f"; the floor is {line.floor:.3g}"
    return f"{line.target}: not met, {line.value:.3g}{_off(line)}{floor}"


def whole(result: Result) -> str:
    """What the first rung of the ladder is: the model that was given, or the one that was found, in PyTorch."""
    return "as trained" if result.found else "original"


def rung(variant: Variant, result: Result) -> str:
    """The name of a rung of the ladder."""
    return whole(result) if variant.name == "original" else variant.name


def headline(result: Result) -> str:
    """The result in one sentence, from measured numbers only."""
    best, parts, found = result.best, [], ""
    if result.found:
        quality = result.holdout.best if result.holdout else best.quality
        on = "the holdout" if result.holdout else "validation"
        reached = f"{points(quality)} points of {result.metric}"
        if result.metric == "perplexity" and quality:
            reached = f"perplexity {100 / quality:.3g}"
        said = (f"{reached} on {on}", milliseconds(best.latency_ms), size(best.bytes))
        found = f"{', '.join(said)}; beside the network {whole(result)} "
    if result.speedup is not None:
        parts.append(times(result.speedup, "faster", "slower"))
    if best.bytes and result.original.bytes:
        parts.append(times(result.original.bytes / best.bytes, "smaller", "larger"))
    if result.holdout is not None:
        low, high = result.holdout.interval
        change = f"{points(result.holdout.difference, signed=True)} points of {result.metric} on the holdout"
        parts.append(f"{change} (95\u00a0% interval {points(low, signed=True)} to {points(high, signed=True)})")
    if decoding(result.ladder):
        parts.append(decoding(result.ladder))
    return found + ", ".join(parts)


def times(ratio: float, more: str, less: str) -> str:
    """How many times one is more, or less, than another; ratios round to the same from 0.95 on.

    >>> times(2.04, "faster", "slower"), times(0.2, "smaller", "larger"), times(0.97, "smaller", "larger")
    ('2.0× faster', '5.0× larger', '1.0× smaller')
    """
    return f"{ratio:.1f}× {more}" if ratio >= 0.95 else f"{1 / ratio:.1f}× {less}"


def _off(line: Outcome) -> str:
    limit = line.target.replace(">=", "<=").partition("<=")[2]
    number = limit.rstrip("".join(set(limit) - set("0123456789.+-")))
    try:
        return f" ({abs((line.value or 0.0) - float(number)):.3g} off)"
    except ValueError:
        return ""


def _ms(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
