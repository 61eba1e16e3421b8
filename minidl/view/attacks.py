"""Images of what fools a net: by how little, how often, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from minidl.arguments import mapping, number, numbers, one_of
from minidl.array import Array, is_array
from minidl.io.files import Path
from minidl.view import figure
from minidl.view.display import Window, images_and_window, limit_of, of_both_answers, rows_of
from minidl.view.figure import BLUE, GREY, ORANGE, RED, Drawing, Sheet
from minidl.view.fit import LINE, fitted, fitted_one, height, width, wrapped
from minidl.view.maps import GAP, NOTE, captions_of, draw, note_of
from minidl.view.shares import probability

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = GREY, BLUE, ORANGE, RED, "#009e73", "#cc79a7", "#000000"  # of curves, with other lines and markers at every round
LINES, MARKERS = ("--", "-", "-", ":"), "^soDvPX*"
SIDE, NAMES = 1.85, 10.0  # of an image in inches, of the letters in points
LABELS = 3.0  # inches of a label in a legend


def fooled(
    path: Path | None,
    original: Array,
    attacked: Array,
    before: Array,
    after: Array,
    classes: Sequence[str],
    title: str = "",
    window: tuple[float, float] | None = None,
) -> Drawing:
    """The images original (N,C,H,W), what was added to each, and the attacked ones, two a line.

    All perturbations are amplified by the same number, which is written down: grey is no change, lighter is more of that
    channel. Above each stands its size in grey levels, of which the window has 255: its largest value, and its length over
    all values. before, after: probabilities (N,K), or (N,1) of a sigmoid. window, NaN and the kinds of files are as in
    `overlays`.
    Raises ValueError where the lengths disagree or there is no image, TypeError for what are no arrays of numbers.
    """
    lengths = len(original), len(attacked), len(before), len(after)
    if len(set(lengths)) > 1 or 0 in lengths:
        raise ValueError(f"original, attacked, before, after: expected as many of each and at least one, got {lengths}")
    asked = window
    original, window = images_and_window(original, asked, "original")
    attacked, _ = images_and_window(attacked, None if asked is None else window, "attacked")
    if attacked.shape != original.shape:
        raise ValueError(f"attacked: expected the shape of the originals, {original.shape}, got {attacked.shape}")
    before, _ = of_both_answers(before, classes)
    after, classes = of_both_answers(after, classes)
    (N, _, H, W), K = original.shape, len(classes)
    before, after = rows_of(before, "before", (N, K)), rows_of(after, "after", (N, K))
    delta = (attacked.astype(np.float64) - original) / (window[1] - window[0])
    factor = _round_down(0.5 / limit_of(delta)) if np.nan_to_num(delta).any() else 0.5

    columns = min(N, 2)
    lines = -(-N // columns)
    wide, high = SIDE * min(2.5, max(1, W / H)), SIDE
    block, head = 3 * wide + 2 * GAP, NAMES * LINE + 9 * LINE + 0.05
    across = 2 * figure.MARGIN + columns * block + (columns - 1) * 0.25
    down = lines * (head + high + 0.12) - 0.12
    pixel = min(wide / W, high / H)
    dpi = figure.dots(across, down + 0.5, pixel)
    note = wrapped(note_of(original, window, "", pixel * dpi, ""), across - 2 * figure.MARGIN, NOTE)
    sheet = Sheet(across, down + (0.05 + height(note, NOTE) if note else 0), title, dpi)
    names = fitted(figure.names(classes), wide - 0.05, NAMES)
    for n in range(N):
        x, y = figure.MARGIN + n % columns * (block + 0.25), n // columns * (head + high + 0.12) + head
        size, length = 255 * np.abs(delta[n]).max(), 255 * np.sqrt((delta[n] ** 2).sum())
        panels: list[tuple[Array, Window, str, str, str]] = [
            (original[n], window, *_answer(before[n], names), GREY),
            (0.5 + factor * delta[n], (0, 1), f"the change, × {factor:g}", _sizes(size, length), GREY),
            (attacked[n], window, *_answer(after[n], names), ORANGE),
        ]
        for i, (image, values, first, second, color) in enumerate(panels):
            at = x + i * (wide + GAP)
            draw(sheet.cell(at, y, wide, high), image, window=values)
            size_of, of = (9, GREY) if i == 1 else (NAMES, "black")
            sheet.write(at, y - 0.03 - 9 * LINE, fitted_one(first, wide - 0.05, size_of), size_of, color=of)
            sheet.write(at, y - 0.03, fitted_one(second, wide - 0.05, 8.5), 8.5, color=color)
    sheet.write(figure.MARGIN, down + 0.05, note, NOTE, va="top", color=GREY)
    return sheet.save(path)


def _answer(p: Array, names: Sequence[str]) -> tuple[str, str]:
    """The class with the largest probability, and that."""
    if np.isnan(p).all():
        return "NaN", ""
    k = int(np.nanargmax(p))
    return names[k], probability(p[k])


def _sizes(largest: float, length: float) -> str:
    if np.isnan(largest):
        return "NaN"
    return f"largest {largest:{'.2g' if largest < 100 else '.0f'}}, length {length:{'.3g' if length < 1000 else '.0f'}}"


def accuracy_by_eps(
    path: Path | None,
    eps: Sequence[float],
    shares: Mapping[str, Sequence[float]],
    chance: float,
    title: str = "",
    norm: str = "linf",
) -> Drawing:
    """How many images are still right (0 to 1) under each attack, over the size of the change.

    eps: in units of images in [0, 1], in any order; with the norm "linf" shown in grey levels of 255, with "l2" as it is.
    chance: what guessing gives. A share that is NaN is left out, and the legend says so. The kinds of files are as in
    `overlays`.
    Raises TypeError or ValueError for an eps below 0, a chance or a share outside [0, 1], another norm, what are no numbers, no
    eps, no attack, and an attack with another number of shares.
    """
    unit, below = {
        "linf": (255, "largest change of a value, in grey levels of 255"),
        "l2": (1, "length of the change, in units of [0, 1]"),
    }[one_of(norm, "norm", ("linf", "l2"))]
    eps, chance = numbers(eps, "eps", "[0, inf)"), number(chance, "chance", "[0, 1]")
    if not eps or not mapping(shares, "shares", "attack -> a share for each eps"):
        raise ValueError(f"eps, shares: expected at least one of each, got {len(eps)} and {len(shares)}")
    found = {
        name: rows_of(values if is_array(values) else list(values), f"shares[{name!r}]", (len(eps),))
        for name, values in shares.items()
    }
    for name, values in found.items():
        if (values < 0).any() or (values > 1).any():
            raise ValueError(f"shares[{name!r}]: expected numbers in [0, 1], got {values.tolist()}")
    lost = {name: int((~np.isfinite(values)).sum()) for name, values in found.items()}
    ends = [f", NaN at {lost[name]} of {len(eps)}" if lost[name] else "" for name in found]
    room = LABELS - max(width(end, 9) for end in ends)
    labels = [a + b for a, b in zip(fitted(figure.names(list(found)), room, 9), ends, strict=True)]
    fig = figure.new(
        5.6 + max(width(label, 9) for label in labels) + 0.6, max(4.0, 0.8 + 0.2 * len(found)), w_pad=0.12, h_pad=0.1
    )
    ax = fig.subplots()
    levels = unit * np.asarray(eps)
    order, most = levels.argsort(kind="stable"), levels.max() or 1.0
    for i, (values, label) in enumerate(zip(found.values(), labels, strict=True)):
        again, one = divmod(i, len(COLORS))
        style: dict[str, Any] = {
            "color": COLORS[one],
            "marker": MARKERS[(one + 3 * again) % len(MARKERS)],
            "ls": LINES[(one + again) % len(LINES)],
        }
        ax.plot(levels[order], 100 * np.asarray(values, float)[order], ms=4, lw=1.6, label=label, **style)
    ax.axhline(100 * chance, color=GREY, lw=0.8, ls=(0, (1, 3)))
    side: Any = "bottom" if chance < 0.9 else "top"
    ax.text(most, 100 * chance + (1.5 if chance < 0.9 else -1.5), "guessing", color=GREY, fontsize=8.5, ha="right", va=side)
    ax.set_ylim(-2, 102)
    ax.set_xlim(-0.02 * most, 1.02 * most)
    ax.set_xlabel(below, color=GREY)
    ax.set_ylabel("right answers (%)", color=GREY)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))  # beside the lines, not on them
    _house_style(ax)
    figure.title(fig, title)
    return figure.save(fig, path)


def images_of_classes(
    path: Path | None, images: Array, captions: Sequence[str], title: str = "", window: tuple[float, float] | None = None
) -> Drawing:
    """The images (N,C,H,W), each under its caption, up to five a line.

    window, NaN, captions that are too long, averages and the kinds of files are as in `overlays`.
    Raises ValueError where the lengths disagree or there is no image, TypeError for what are no arrays of numbers.
    """
    images, window = images_and_window(images, window)
    if len(images) != len(captions):
        raise ValueError(f"images, captions: expected as many of each and at least one, got {len(images)} and {len(captions)}")
    N, _, H, W = images.shape
    columns = min(N, 5)
    lines = -(-N // columns)
    wide, high = SIDE * min(2.5, max(0.7, W / H)), SIDE
    above = captions_of(captions, N, wide, NAMES)
    head = max(height(text, NAMES) for text in above) + 0.04
    across = 2 * figure.MARGIN + max(columns * (wide + 0.1) - 0.1, 4.5)
    down = lines * (head + high + 0.08) - 0.08
    pixel = min(wide / W, high / H)
    dpi = figure.dots(across, down + 0.5, pixel)
    note = wrapped(note_of(images, window, "", pixel * dpi, ""), across - 2 * figure.MARGIN, NOTE)
    sheet = Sheet(across, down + (0.05 + height(note, NOTE) if note else 0), title, dpi)
    for n, (image, caption) in enumerate(zip(images, above, strict=True)):
        x, y = figure.MARGIN + n % columns * (wide + 0.1), n // columns * (head + high + 0.08) + head
        draw(sheet.cell(x, y, wide, high), image, window=window)
        sheet.write(x, y - 0.04, caption, NAMES)
    sheet.write(figure.MARGIN, down + 0.05, note, NOTE, va="top", color=GREY)
    return sheet.save(path)


class Sweep(Protocol):
    """See `attack.linearity.Sweep`."""

    @property
    def logits(self) -> Array: ...
    @property
    def gates(self) -> Array: ...
    @property
    def switches(self) -> Array: ...
    @property
    def slopes(self) -> Array: ...
    @property
    def r2(self) -> Array: ...


class Linearity(Protocol):
    """See `attack.Linearity`."""

    @property
    def eps(self) -> Array: ...
    @property
    def target(self) -> int: ...
    @property
    def slope(self) -> float: ...
    @property
    def along(self) -> Sweep: ...
    @property
    def random(self) -> Sweep: ...


def linearity(path: Path | None, sweeps: Mapping[str, Linearity], classes: Sequence[str], title: str = "") -> Drawing:
    """One line for each net: its logits along the sign of the gradient, along random signs, and what changes on the way.

    The logit of the explained class is orange, with its tangent at 0, the others are blue. Logits that are NaN are left out,
    and the legend says so. The kinds of files are as in `overlays`.
    Raises TypeError for sweeps that are no dictionary, ValueError where there is no net, or one with more classes than names.
    """
    if not mapping(sweeps, "sweeps", "name of the net -> what linearity gives"):
        raise ValueError("sweeps: no net to draw")
    for name, found in sweeps.items():
        if found.along.logits.shape[1] > len(classes):
            K = found.along.logits.shape[1]
            raise ValueError(f"classes: expected the names of {K} classes of sweeps[{name!r}], got {len(classes)}")
    about = ": logits of x + ε sign(∂S/∂x)"
    names = fitted(figure.names(list(sweeps)), 3.5 - width(about, 10), 10)
    fig = figure.new(12.5, 4.3 * len(sweeps) + 0.4, w_pad=0.1, h_pad=0.08)
    for row, name, found in zip(fig.subplots(len(sweeps), 3, squeeze=False), names, sweeps.values(), strict=True):
        along, control, states = row
        levels = 255 * found.eps
        _logits(along, levels, found.along, found, classes)
        _logits(control, levels, found.random, found, classes)
        logits = np.concatenate([found.along.logits, found.random.logits])
        finite = logits[np.isfinite(logits)] if np.isfinite(logits).any() else np.zeros(1)
        low, high = float(finite.min()), float(finite.max())
        for ax in along, control:
            ax.set_ylim(low - 0.06 * (high - low or 1), high + 0.06 * (high - low or 1))
        slope = found.slope / 255
        middle = found.along.logits[len(levels) // 2, found.target]
        if np.isfinite(middle) and np.isfinite(slope):
            along.plot(levels, middle + slope * levels, color="black", lw=1, ls=(0, (4, 3)), label="tangent at 0")
        along.set_title(f"{name}{about}", fontsize=10, loc="left")
        control.set_title("of x + ε random signs", fontsize=10, loc="left")
        along.set_ylabel("logit", color=GREY)
        for sweep, style, thickness in (found.along, "-", 1.6), (found.random, "--", 1):
            for of_all, color, what in (
                (sweep.gates, BLUE, "gates that changed"),
                (sweep.switches, ORANGE, "pool switches that changed"),
                (sweep.slopes, RED, "slope of the sigmoids, of its largest"),
            ):
                if np.isfinite(of_all).all():
                    label = what if style == "-" else None
                    states.plot(levels, 100 * of_all, style, color=color, lw=thickness, label=label)
        states.set_ylim(0, None)
        states.set_title("on the way (%); dashed: random signs", fontsize=10, loc="left")
        for ax in row:
            ax.set_xlabel("ε in grey levels of 255", color=GREY)
            ax.axvline(0, color="#d0d0d0", lw=0.8, zorder=0)
            if ax.lines[1:]:
                ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.17), borderaxespad=0)
            _house_style(ax)
    figure.title(fig, title)
    return figure.save(fig, path)


def _logits(ax: Axes, levels: Array, sweep: Sweep, found: Linearity, classes: Sequence[str]) -> None:
    """The explained class and its only rival, or all the others in one color."""
    K = sweep.logits.shape[1]
    classes = classes[-1:] if K == 1 else classes  # of no and yes, the one that the only logit speaks of
    others = [k for k in range(K) if k != found.target]
    shown = np.where(np.isfinite(sweep.logits), sweep.logits, np.nan)

    def end(which: list[int], r2: float) -> str:
        lost = int(np.isnan(shown[:, which]).any(1).sum())
        return f", NaN at {lost} of {len(levels)} ε" if lost else f", R² {r2:.3f}"

    ends = [end([k], float(sweep.r2[k])) for k in range(K)]
    names = fitted(figure.names(classes), LABELS - max(width(text, 9) for text in ends), 9)
    if others:
        few, median = len(others) == 1, float(np.median(sweep.r2[others]))
        lines = ax.plot(levels, shown[:, others], color=BLUE, lw=1.4 if few else 0.8)
        rest = f"the other classes{end(others, median).replace(', R²', ', median R²')}"
        lines[0].set_label(names[others[0]] + ends[others[0]] if few else rest)
    ax.plot(levels, shown[:, found.target], color=ORANGE, lw=1.8, label=names[found.target] + ends[found.target])


def _house_style(ax: Axes) -> None:
    ax.grid(color="#e6e6e6", lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=GREY, labelsize=9)


def _round_down(x: float) -> float:
    """To one of 1, 2, 5, 10, 20, ..."""
    power = 10 ** np.floor(np.log10(x))
    return float(power * max(step for step in (1, 2, 5) if step * power <= x * (1 + 1e-9)))
