"""Images of what fools a net: by how little, how often, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from minidl.arguments import number, numbers
from minidl.array import Array, to_cpu
from minidl.io.files import Path
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE, RED
from minidl.view.images import for_the_eye

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = ((GREY, "--", "^"), (BLUE, "-", "s"), (ORANGE, "-", "o"), (RED, ":", "D"))  # of curves: color, line, marker


def fooled(
    path: Path,
    original: Array,
    attacked: Array,
    before: Array,
    after: Array,
    classes: Sequence[str],
    title: str = "",
) -> None:
    """The images original (N,C,H,W) in [0, 1], what was added to each, and the attacked ones, as PNG, two a line.

    All perturbations are amplified by the same number, which is written down: grey is no change, lighter is more of that
    channel. Below each stands its size in grey levels of 255: its largest value, and its length over all values.
    before, after: probabilities (N,K). Raises ValueError where the lengths disagree or there is no image.
    """
    if not 0 < len(original) == len(attacked) == len(before) == len(after):
        lengths = len(original), len(attacked), len(before), len(after)
        raise ValueError(f"original, attacked, before, after: expected as many of each and at least one, got {lengths}")
    original, attacked, before, after = map(to_cpu, (original, attacked, before, after))
    delta = attacked.astype(np.float64) - original
    largest = float(np.quantile(np.abs(delta), 0.995)) or float(np.abs(delta).max()) or 1.0
    factor = _round_down(0.5 / largest)
    N, columns = len(original), min(len(original), 2)
    lines = -(-N // columns)
    fig = figure.new(6.1 * columns + 0.1, 2.4 * lines + 0.55, w_pad=0.05, h_pad=0.05, wspace=0, hspace=0)
    cells = fig.subplots(lines, 4 * columns, width_ratios=(1, 1, 1, 0.1) * columns, squeeze=False)
    for ax in cells.flat:
        ax.set_axis_off()
    for n, (left, middle, right, _) in enumerate(cells.reshape(-1, 4)[:N]):
        for ax, image in (left, original[n]), (middle, 0.5 + factor * delta[n]), (right, attacked[n]):
            ax.imshow(for_the_eye(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        for ax, p, color in (left, before[n], GREY), (right, after[n], ORANGE):
            ax.set_title(figure.name(classes[int(p.argmax())], 16), fontsize=10, loc="left", pad=17)
            ax.text(0, 1.035, _percent(p.max()), fontsize=9, color=color, transform=ax.transAxes)
        size, length = 255 * np.abs(delta[n]).max(), 255 * np.sqrt((delta[n] ** 2).sum())
        middle.set_title(f"the change, × {factor:g}", fontsize=9, color=GREY, loc="left", pad=17)
        middle.text(0, 1.035, f"largest {size:.2g}, length {length:.3g}", fontsize=8.5, color=GREY, transform=middle.transAxes)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)


def accuracy_by_eps(
    path: Path, eps: Sequence[float], shares: Mapping[str, Sequence[float]], chance: float, title: str = ""
) -> None:
    """How many images are still right (0 to 1) under each attack, over the size of the change, as PNG.

    eps: in units of images in [0, 1]; shown in grey levels of 255. chance: what guessing gives. Raises TypeError or
    ValueError for an eps below 0, a chance outside [0, 1], and what are no numbers.
    """
    eps, chance = numbers(eps, "eps", "[0, inf)"), number(chance, "chance", "[0, 1]")
    fig = figure.new(7.6, 4.0, w_pad=0.12, h_pad=0.1)
    ax = fig.subplots()
    levels = 255 * np.asarray(eps)
    for (name, share), (color, line, marker) in zip(shares.items(), STYLES, strict=False):
        ax.plot(levels, 100 * np.asarray(share), line, marker=marker, ms=4, lw=1.6, color=color, label=figure.name(name))
    ax.axhline(100 * chance, color=GREY, lw=0.8, ls=(0, (1, 3)))
    ax.text(levels[-1], 100 * chance + 1.5, "guessing", color=GREY, fontsize=8.5, ha="right")
    ax.set_ylim(-2, 102)
    ax.set_xlim(-0.02 * levels[-1], 1.02 * levels[-1])
    ax.set_xlabel("largest change of a value, in grey levels of 255", color=GREY)
    ax.set_ylabel("right answers (%)", color=GREY)
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))  # beside the lines, not on them
    _house_style(ax)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)


def images_of_classes(path: Path, images: Array, captions: Sequence[str], title: str = "") -> None:
    """The images (N,C,H,W) in [0, 1], each under its caption, up to five a line, as PNG.

    Raises ValueError where the lengths disagree or there is no image.
    """
    if not 0 < len(images) == len(captions):
        raise ValueError(f"images, captions: expected as many of each and at least one, got {len(images)} and {len(captions)}")
    images = to_cpu(images)
    columns = min(len(images), 5)
    lines = -(-len(images) // columns)
    fig = figure.new(max(2.1 * columns, 5), 2.4 * lines + 0.45, w_pad=0.05, h_pad=0.05)
    cells = fig.subplots(lines, columns, squeeze=False)
    for ax in cells.flat:
        ax.set_axis_off()
    for ax, image, caption in zip(cells.flat, images, captions, strict=False):
        ax.imshow(for_the_eye(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title(caption, fontsize=10, loc="left", pad=4)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)


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


def linearity(path: Path, sweeps: Mapping[str, Linearity], classes: Sequence[str], title: str = "") -> None:
    """One line for each net: its logits along the sign of the gradient, along random signs, and what changes on the way.

    The logit of the explained class is orange, with its tangent at 0, the others are blue. As PNG.
    Raises ValueError where there is no net.
    """
    if not sweeps:
        raise ValueError("sweeps: no net to draw")
    fig = figure.new(12.5, 4.3 * len(sweeps) + 0.4, w_pad=0.1, h_pad=0.08)
    for row, (name, found) in zip(fig.subplots(len(sweeps), 3, squeeze=False), sweeps.items(), strict=True):
        along, control, states = row
        levels = 255 * found.eps
        _logits(along, levels, found.along, found, classes)
        _logits(control, levels, found.random, found, classes)
        low, high = (f(np.concatenate([found.along.logits, found.random.logits])) for f in (np.min, np.max))
        for ax in along, control:
            ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        slope = found.slope / 255
        middle = found.along.logits[len(levels) // 2, found.target]
        along.plot(levels, middle + slope * levels, color="black", lw=1, ls=(0, (4, 3)), label="tangent at 0")
        along.set_title(f"{figure.name(name, 20)}: logits of x + ε sign(∂S/∂x)", fontsize=10, loc="left")
        control.set_title("of x + ε random signs", fontsize=10, loc="left")
        along.set_ylabel("logit", color=GREY)
        for sweep, style, width in (found.along, "-", 1.6), (found.random, "--", 1):
            for share, color, what in (
                (sweep.gates, BLUE, "gates that changed"),
                (sweep.switches, ORANGE, "pool switches that changed"),
                (sweep.slopes, RED, "slope of the sigmoids, of its largest"),
            ):
                if np.isfinite(share).all():
                    states.plot(levels, 100 * share, style, color=color, lw=width, label=what if style == "-" else None)
        states.set_ylim(0, None)
        states.set_title("on the way (%); dashed: random signs", fontsize=10, loc="left")
        for ax in row:
            ax.set_xlabel("ε in grey levels of 255", color=GREY)
            ax.axvline(0, color="#d0d0d0", lw=0.8, zorder=0)
            if ax.lines[1:]:
                ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.17), borderaxespad=0)
            _house_style(ax)
    fig.suptitle(title, fontsize=11, fontweight="bold")
    figure.save(fig, path)


def _logits(ax: Axes, levels: Array, sweep: Sweep, found: Linearity, classes: Sequence[str]) -> None:
    """The explained class and its only rival, or all the others in one color."""
    others = [k for k in range(sweep.logits.shape[1]) if k != found.target]
    r2, few = np.median(sweep.r2[others]), len(others) == 1
    lines = ax.plot(levels, sweep.logits[:, others], color=BLUE, lw=1.4 if few else 0.8)
    lines[0].set_label(f"{figure.name(classes[others[0]])}, R² {r2:.3f}" if few else f"the other classes, median R² {r2:.3f}")
    label = f"{figure.name(classes[found.target])}, R² {sweep.r2[found.target]:.3f}"
    ax.plot(levels, sweep.logits[:, found.target], color=ORANGE, lw=1.8, label=label)


def _house_style(ax: Axes) -> None:
    ax.grid(color="#e6e6e6", lw=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=GREY, labelsize=9)


def _percent(p: float) -> str:
    return ">99.9%" if p > 0.999 else f"{p:.1%}"


def _round_down(x: float) -> float:
    """To one of 1, 2, 5, 10, 20, ..."""
    power = 10 ** np.floor(np.log10(x))
    return float(power * max(step for step in (1, 2, 5) if step * power <= x * (1 + 1e-9)))
