"""The rules of operators that stand for whole layers: products, convolutions, norms, attention, look-ups, pooling."""

from __future__ import annotations

from torch import Tensor

from archsmith.model.labels import Label, Mismatch, equate, freeze, fresh, regroup, segments, size
from archsmith.model.rules import CONSTANT, Book, Call, Contraction, at, rule


@rule("mm", "addmm", "bmm", "baddbmm", "matmul")
def product(book: Book, call: Call) -> None:
    """(…, n, k) times (…, k, m): k is contracted. In a batched product of activations the batch may be heads."""
    added = call.name in {"addmm", "baddbmm"}
    left, right = call.arg(int(added)), call.arg(int(added) + 1)
    a, b = book[left], book[right]
    equate(a[-1], b[-2])
    if len(a) == 3:
        equate(a[0], b[0])
        book.heads.append(a[0])
    labels = [*a[:-1], b[-1]]
    if added:
        offset = len(labels) - call.arg(0).dim()
        for i, label in enumerate(book[call.arg(0)]):
            if size(label) != 1:
                equate(labels[offset + i], label)
    book[call.out] = labels
    book.contraction = Contraction(left, right, a[-1], b[-1])


@rule("_grouped_mm", "grouped_mm_fallback")
def grouped_product(book: Book, call: Call) -> None:
    """Rows sorted by expert (rows, k) times (experts, k, m): each row is multiplied by its own expert's matrix."""
    data, weight = call.arg(0), call.arg(1)
    equate(book[data][-1], book[weight][1])
    freeze(book[data][0], "its rows are sorted by expert")
    freeze(book[weight][0], "experts are picked by number")
    book[call.out] = [book[data][0], book[weight][2]]
    book.contraction = Contraction(data, weight, book[weight][1], book[weight][2])


@rule("linear")
def linear(book: Book, call: Call) -> None:
    data, weight, bias = call.arg(0), call.arg(1), call.arg(2)
    equate(book[data][-1], book[weight][1])
    if bias is not None:
        equate(book[weight][0], book[bias][0])
    book[call.out] = [*book[data][:-1], book[weight][0]]
    book.contraction = Contraction(data, weight, book[weight][1], book[weight][0])


@rule("mv", "dot")
def vector_product(book: Book, call: Call) -> None:
    left, right = book[call.arg(0)], book[call.arg(1)]
    equate(left[-1], right[0])
    book[call.out] = left[:-1]


@rule("convolution", "_convolution")
def convolution(book: Book, call: Call) -> None:
    """(batch, channels, …) with weight (out, in / groups, …), or (in, out / groups, …) where it is transposed.

    Channels on both sides are groups x those of a group; the groups are the same.
    """
    data, weight, bias = call.arg(0), call.arg(1), call.arg(2)
    transposed, groups = call.arg(6), call.arg(8)
    x, w = book[data], book[weight]
    for label in (*x[2:], *w[2:]):
        freeze(label, "a place in an image or a signal")
    one = fresh(groups)
    within = _within(weight.shape[0] // groups, groups > 1 and weight.shape[1] == 1)
    if transposed:
        equate(w[0], one + within)
        equate(x[1], w[0])
        channels = one + w[1]
    else:
        equate(x[1], one + w[1])
        equate(w[0], one + within)
        channels = w[0]
    if bias is not None:
        equate(channels, book[bias][0])
    book[call.out] = [x[0], channels, *(fresh(n, "a place in an image or a signal") for n in call.out.shape[2:])]
    book.contraction = Contraction(data, weight, x[1], channels)


def _within(count: int, depthwise: bool) -> Label:
    """The channels of one group on the side of the weight's first dimension. Of one input channel each, several
    filters lie side by side and go with it."""
    return fresh(count, "it is bound to a grouped convolution" if depthwise else "")


@rule("native_layer_norm")
def layer_norm(book: Book, call: Call) -> None:
    labels = book[call.arg(0)]
    count = len(call.arg(1))
    for scale in (call.arg(2), call.arg(3)):
        if scale is not None:
            for label, other in zip(labels[-count:], book[scale], strict=True):
                equate(label, other)
    book[call.out[0]] = labels
    book.means.extend((len(labels) - count + i, labels[i - count]) for i in range(count))


@rule("_fused_rms_norm", "rms_norm")
def rms_norm(book: Book, call: Call) -> None:
    labels = book[call.arg(0)]
    count = len(call.arg(1))
    scale = call.arg(2)
    if scale is not None:
        for label, other in zip(labels[-count:], book[scale], strict=True):
            equate(label, other)
    book[call.first] = labels
    book.means.extend((len(labels) - count + i, labels[i - count]) for i in range(count))


@rule("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "batch_norm")
def batch_norm(book: Book, call: Call) -> None:
    labels = book[call.arg(0)]
    for statistic in call.args[1:5]:
        if isinstance(statistic, Tensor):
            equate(labels[1], book[statistic][0])
    book[call.first] = labels


@rule("native_group_norm")
def group_norm(book: Book, call: Call) -> None:
    """Channels are groups x those of a group, which are averaged together with their places; groups can go whole."""
    labels = book[call.arg(0)]
    for scale in (call.arg(1), call.arg(2)):
        if scale is not None:
            equate(labels[1], book[scale][0])
    groups = call.arg(6)
    within = fresh(size(labels[1]) // groups, "a group norm binds it")
    equate(labels[1], fresh(groups) + within)
    book[call.first] = labels


@rule("glu")
def glu(book: Book, call: Call) -> None:
    """One half gates the other."""
    labels = list(book[call.arg(0)])
    dim = at(call.arg(1), len(labels))
    half = call.out.shape[dim]
    up, gate = segments(labels[dim], [half, half])
    equate(up, gate)
    labels[dim] = up
    book[call.out] = labels


@rule("_weight_norm_interface")
def weight_norm(book: Book, call: Call) -> None:
    """A direction and, along one dimension, its lengths: zeros do not change a length."""
    labels, lengths, dim = book[call.arg(0)], book[call.arg(1)], call.arg(2)
    equate(labels[dim], lengths[dim])
    book[call.first] = labels


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(book: Book, call: Call) -> None:
    """(…, channels x r x r, height, width) <-> (…, channels, height x r, width x r)."""
    labels, square = list(book[call.arg(0)]), call.arg(1) ** 2
    if call.name == "pixel_shuffle":
        labels[-3], places = regroup([labels[-3]], [call.out.shape[-3], square])
        freeze(places, "its units are places in an image")
    else:
        labels[-3] = labels[-3] + fresh(square, "its units are places in an image")
    for i in (-2, -1):
        freeze(labels[i], "a place in an image or a signal")
        labels[i] = fresh(call.out.shape[i], "a place in an image or a signal")
    book[call.out] = labels


@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
      "_scaled_dot_product_efficient_attention", "_scaled_dot_product_attention_math",
      "_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math_for_mps")  # fmt: skip
def attention(book: Book, call: Call) -> None:
    """q (batch, heads, length, width), k and v (batch, groups, keys, width): heads = groups x heads of a group."""
    q, k, v = (book[call.arg(i)] for i in range(3))
    equate(k[0], v[0])
    equate(q[0], k[0])
    equate(k[1], v[1])
    equate(q[1], k[1] + fresh(size(q[1]) // size(k[1])))
    equate(q[3], k[3])
    equate(k[2], v[2])
    for value in (*call.args[3:], *call.kwargs.values()):
        if isinstance(value, Tensor) and value.dim() == 4 and value.shape[1] != 1:
            equate(q[1], book[value][1])
    book.heads.append(q[1])
    book[call.first] = [*q[:3], v[3]]


@rule("_softmax", "_safe_softmax", "_log_softmax", "cumsum", "sort", "topk", "flip", "roll", "logcumsumexp")
def along(book: Book, call: Call) -> None:
    """The values along one dimension depend on one another, or on their order: it stays as it is."""
    labels = list(book[call.arg(0)])
    chosen = call.arg(2) if call.name in {"topk", "roll"} else call.arg(1)
    for dim in chosen if isinstance(chosen, list | tuple) else [chosen]:
        i = at(dim, len(labels)) if isinstance(dim, int) else 0
        freeze(labels[i], f"{call.name.strip('_')} runs along it")
        if labels:
            labels[i] = fresh(call.first.shape[i], f"{call.name.strip('_')} runs along it")
    for out in call.out if isinstance(call.out, tuple | list) else [call.out]:
        book[out] = labels


@rule("embedding")
def embedding(book: Book, call: Call) -> None:
    table, rows = book[call.arg(0)], book[call.arg(1)]
    freeze(table[0], "its rows are looked up by number")
    book[call.out] = [*rows, table[1]]


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(book: Book, call: Call) -> None:
    """(bags, width): rows are looked up and summed. What comes out beside them is about rows alone."""
    table = book[call.arg(0)]
    freeze(table[0], "its rows are looked up by number")
    book[call.first] = [fresh(call.first.shape[0]), table[1]]


@rule("index")
def index(book: Book, call: Call) -> None:
    """Advanced indexing: indexed dimensions are picked by number and replaced by those of the indices."""
    tensor, chosen = call.arg(0), list(call.arg(1))
    used = [i for i, rows in enumerate(chosen) if rows is not None]
    if used != list(range(used[0], used[-1] + 1)) or any(chosen[i].dtype.itemsize == 1 for i in used):
        raise Mismatch("indexing that is not by consecutive integer indices")
    labels = list(book[tensor])
    run = _run(book, chosen[used[0]], tensor.shape[used[0]]) if len(used) == 1 else None
    if run is not None:
        dim, (start, count) = used[0], run
        pieces = [n for n in (start, count, tensor.shape[dim] - start - count) if n]
        labels[dim] = segments(labels[dim], pieces)[1 if start else 0]
        book[call.out] = labels
        return
    for i in used:
        freeze(labels[i], "it is looked up by number")
    middle: list[Label] = [fresh(n) for n in call.out.shape[used[0] : call.out.dim() - len(labels) + used[-1] + 1]]
    for i in used:
        offset = len(middle) - chosen[i].dim()
        for j, label in enumerate(book[chosen[i]]):
            if size(label) == size(middle[offset + j]):
                equate(middle[offset + j], label)
    book[call.out] = [*labels[: used[0]], *middle, *labels[used[-1] + 1 :]]


def _run(book: Book, rows: Tensor, total: int) -> tuple[int, int] | None:
    """Where numbers written in the model's code pick neighbours, in order: the first of them and how many."""
    if rows.dim() != 1 or not rows.numel() or any(atom.reason != CONSTANT for atom in book[rows][0]):
        return None
    picked = [row % total for row in rows.tolist()]
    return (picked[0], len(picked)) if picked == list(range(picked[0], picked[0] + len(picked))) else None


@rule("index_put_", "index_put")
def index_put(book: Book, call: Call) -> None:
    """What is written by number stays as it is; the other dimensions are those of the values too."""
    tensor, chosen, values = call.arg(0), call.arg(1), call.arg(2)
    labels = book[tensor]
    used = [i for i, rows in enumerate(chosen) if rows is not None]
    for i in used:
        freeze(labels[i], "it is looked up by number")
    for label, other in zip(labels[used[-1] + 1 :][::-1], book[values][::-1], strict=False):
        if size(label) == size(other):
            equate(label, other)
    for label in book[values][: values.dim() - len(labels) + used[-1] + 1]:
        freeze(label, "it is written by number")
    book[call.out] = labels


@rule("histc", "bincount", "nonzero", "unique", "_unique2", "unique_consecutive", "nonzero_static")
def counted(book: Book, call: Call) -> None:
    """Numbers of things: what comes out has no width of what goes in."""
    book.freeze(call.arg(0), f"{call.name.strip('_')} counts it")
    for out in call.out if isinstance(call.out, tuple | list) else [call.out]:
        book[out] = [fresh(n, f"{call.name.strip('_')} counts it") for n in out.shape]


@rule("index_select")
def index_select(book: Book, call: Call) -> None:
    labels = list(book[call.arg(0)])
    dim = at(call.arg(1), len(labels))
    freeze(labels[dim], "it is looked up by number")
    labels[dim] = book[call.arg(2)][0]
    book[call.out] = labels


@rule("gather")
def gather(book: Book, call: Call) -> None:
    labels, rows = book[call.arg(0)], book[call.arg(2)]
    dim = at(call.arg(1), len(labels))
    freeze(labels[dim], "it is looked up by number")
    for i, (label, row) in enumerate(zip(labels, rows, strict=True)):
        if i != dim and size(label) == size(row):
            equate(label, row)
        elif i != dim:
            freeze(label, "only some of it is gathered")
    book[call.out] = rows


@rule("constant_pad_nd")
def pad(book: Book, call: Call) -> None:
    tensor = call.arg(0)
    labels = list(book[tensor])
    for i, n in enumerate(call.out.shape):
        if tensor.shape[i] != n:
            freeze(labels[i], "it is padded")
            labels[i] = fresh(n, "it is padded")
    book[call.out] = labels


@rule("max_pool2d_with_indices", "max_pool2d", "avg_pool2d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
      "adaptive_max_pool2d", "avg_pool1d", "adaptive_avg_pool1d", "max_pool1d", "max_pool3d_with_indices",
      "avg_pool3d", "upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d", "upsample_nearest1d",
      "upsample_linear1d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")  # fmt: skip
def pool(book: Book, call: Call) -> None:
    """Pooling and resampling touch the trailing dimensions only; batch and channels pass."""
    labels = book[call.arg(0)]
    kept = 1 if "1d" in call.name else 3 if "3d" in call.name else 2
    for label in labels[len(labels) - kept :]:
        freeze(label, "a place in an image or a signal")
    for out in call.out if isinstance(call.out, tuple | list) else [call.out]:
        trailing = [fresh(n, "a place in an image or a signal") for n in out.shape[out.dim() - kept :]]
        book[out] = [*labels[: out.dim() - kept], *trailing]
