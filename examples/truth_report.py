"""What `ground_truth.py` found, as a table, a JSON file and two images."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from truth_exhibits import Exhibit, Net, Plan

from minidl import metrics
from minidl.array import Array
from minidl.io import files
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE
from minidl.view.maps import color_scale, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Results = dict[str, Any]
Scores = dict[tuple[str, str], dict[str, Array]]  # (method, exhibit) -> score -> (N,)
SHOWN = 4  # images of an exhibit whose maps are kept
WHAT = {  # score: (its name, which way is better)
    "pointing lesion": ("highest pixel\non the lesion", "more"),
    "enrichment lesion": ("mass on the lesion\n/ its area", "more"),
    "enrichment evidence": ("mass on the evidence\n/ its area", "more"),
    "iou evidence": ("highest pixels ∩ evidence\n/ union", "more"),
    "iou lesion": ("highest pixels ∩ lesion\n/ union", "more"),
    "deletion": ("p as pixels are deleted\n(area under the curve)", "less"),
    "insertion": ("p as pixels are inserted\n(area under the curve)", "more"),
    "ruins": ("rank correlation with\nmaps of ruined nets", "less"),
}


# ---- numbers


def results(plan: Plan, nets: dict[str, Net], exhibits: Sequence[Exhibit], methods: Sequence[str], measured: Scores) -> Results:
    """All that was found, ready for JSON: of each method every score as mean, low and high (95%), chance, and mean by net."""
    before = [e for e in exhibits if not e.group.startswith("mark")]
    table: dict[str, Results] = {}
    for method in methods:
        table[method] = {
            score: pooled(score, method, before, measured) for score in scores_of(measured[method, before[0].name])
        }
        if marked := [e for e in exhibits if e.group.startswith("mark")]:
            table[method]["mark"] = confounded(method, marked, measured)
    about = {e.name: {"images": len(e.x), "malignant": float(e.target.mean())} for e in exhibits}
    return {"plan": asdict(plan), "nets": {name: net.scores for name, net in nets.items()}, "exhibits": about, "methods": table}


def scores_of(found: dict[str, Array]) -> list[str]:
    names = [name for name in found if not name.startswith("chance of ")]
    return names + [name.replace("mass", "enrichment") for name in names if name.startswith("mass")]


def values(score: str, found: dict[str, Array]) -> tuple[Array, Array | None]:
    """A score (N,) and chance (N,), if there is one; "enrichment" is mass / chance."""
    if score.startswith("enrichment"):
        mass = score.replace("enrichment", "mass")
        return found[mass] / found[f"chance of {mass}"], np.ones(len(found[mass]))
    return found[score], found.get(f"chance of {score}")


def pooled(score: str, method: str, exhibits: Sequence[Exhibit], measured: Scores) -> Results:
    """Over all nets. What several nets see in one image is drawn as one."""
    parts = [values(score, measured[method, e.name]) for e in exhibits]
    numbers = np.concatenate([e.numbers[: len(v)] for e, (v, _) in zip(exhibits, parts, strict=True)])
    interval = metrics.bootstrap(np.concatenate([v for v, _ in parts]), numbers)
    found = interval._asdict() | {"by net": [float(v.mean()) for v, _ in parts]}
    if parts[0][1] is not None:
        found["chance"] = float(np.concatenate([c for _, c in parts]).mean())
    return found


def confounded(method: str, exhibits: Sequence[Exhibit], measured: Scores) -> Results:
    """Mass on the mark / its area, of M0 and of M1 on the same images, and the difference, M1 - M0."""
    kinds = {k: [e for e in exhibits if f" {k}-" in e.name] for k in ("M0", "M1")}
    found: Results = {k: pooled("enrichment mark", method, of_kind, measured) for k, of_kind in kinds.items()}
    m0, m1 = ([values("enrichment mark", measured[method, e.name])[0] for e in of_kind] for of_kind in kinds.values())
    gained = [b - a for a, b in zip(m0, m1, strict=True)]
    interval = metrics.bootstrap(np.concatenate(gained), np.concatenate([e.numbers for e in kinds["M0"]]))
    found["difference"] = interval._asdict() | {"by net": [float(g.mean()) for g in gained]}
    found["tells"] = interval.low > 0 and min(found["difference"]["by net"]) > 0 and found["M1"]["low"] > 1
    found["in both"] = found["M0"]["low"] > 1
    return found


# ---- the table


def table(found: Results) -> str:
    columns = columns_of(found)
    has_marks = "mark" in next(iter(found["methods"].values()))
    head = [score.replace("enrichment", "mass/area") for score in columns]
    rows = [["", *head, *(("mark M0", "mark M1", "tells them apart") if has_marks else ())]]
    for method, scores in found["methods"].items():
        row = [method, *(short(scores[score]) for score in columns)]
        if has_marks:
            mark = scores["mark"]
            row += [short(mark["M0"]), short(mark["M1"]), verdict(mark)]
        rows.append(row)
    first = next(iter(found["methods"].values()))
    rows.append(["chance", *(f"{first[s]['chance']:.2f}" if "chance" in first[s] else "" for s in columns)])
    if has_marks:
        rows[-1] += ["1.00", "1.00", ""]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    return "\n".join(lines)


def columns_of(found: Results) -> list[str]:
    """The scores to show; where it is known which pixels are evidence, overlap with the lesion is not of interest."""
    scores = next(iter(found["methods"].values()))
    return [score for score in WHAT if score in scores and not (score == "iou lesion" and "iou evidence" in scores)]


def short(interval: Results) -> str:
    return f"{interval['mean']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def verdict(mark: Results) -> str:
    return ("yes" if mark["tells"] else "NO") + (", M0 lights up too" if mark["in both"] else "")


# ---- files


def write(out: pathlib.Path, found: Results, exhibits: Sequence[Exhibit], shown: dict[tuple[str, str], Array]) -> None:
    files.write(out / "results.json", json.dumps(found, indent=2) + "\n")
    print(table(found))
    chart(out / "scores.png", found)
    pages(out / "maps.png", found, exhibits, shown)
    print(f"now look at {', '.join(str(out / name) for name in ('scores.png', 'maps.png', 'results.json'))}")


def chart(path: pathlib.Path, found: Results) -> None:
    """A line for each method, a panel for each score, with its interval; what chance scores is dashed."""
    methods: dict[str, Results] = found["methods"]
    columns = columns_of(found)
    has_marks = "mark" in next(iter(methods.values()))
    fig = figure.new(2.1 * (len(columns) + 1.35 * has_marks) + 1.6, 0.27 * len(methods) + 1.5, w_pad=0.04, h_pad=0.06)
    panels = fig.subplots(1, len(columns) + has_marks, sharey=True, width_ratios=[1] * len(columns) + [1.35] * has_marks)
    place = {method: -k for k, method in enumerate(methods)}
    for ax, score in zip(np.atleast_1d(panels), columns, strict=False):
        name, better = WHAT[score]
        for method, scores in methods.items():
            dot(ax, scores[score], place[method], BLUE if method in found_methods(methods) else GREY)
        style(ax, name, "→ better" if better == "more" else "better ←", score.startswith("enrichment"))
        chance = next(iter(methods.values()))[score].get("chance")
        if chance is not None:
            ax.axvline(chance, color=GREY, lw=1, ls="--", zorder=0)
    if has_marks:
        marks_panel(panels[-1], methods, place)
    first = np.atleast_1d(panels)[0]
    first.set_yticks(list(place.values()), list(place))
    first.set_ylim(-len(methods) + 0.3, 0.7)
    plan = found["plan"]
    of = f"{sum(e['images'] for n, e in found['exhibits'].items() if not n.startswith('mark'))} maps a method"
    fig.suptitle(f"What the methods score: {of}, {plan['nets']} net{'s' * (plan['nets'] > 1)}, 95% intervals, "
                     "chance dashed; grey: maps that know nothing of the net", fontsize=11, fontweight="bold")  # fmt: skip
    figure.save(fig, path)


def found_methods(methods: dict[str, Results]) -> list[str]:
    """Those that ask the net: maps of the others stay the same whatever happens to it."""
    return [method for method, scores in methods.items() if scores["ruins"]["mean"] < 1]


def dot(ax: Axes, interval: Results, y: float, color: str, marker: str = "o") -> None:
    ax.plot([interval["low"], interval["high"]], [y, y], color=color, lw=1.8, solid_capstyle="butt")
    ax.plot(interval["mean"], y, marker, color=color, ms=4.5)


def style(ax: Axes, name: str, note: str, logarithmic: bool) -> None:
    ax.set_title(name, fontsize=9, loc="left")
    ax.set_xlabel(note, fontsize=8.5, color=GREY)
    if logarithmic:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ticks = [v for v in (0.01, 0.03, 0.1, 0.3, 1, 2, 4, 8, 16, 32, 64, 128) if low <= v <= high]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="y", color="#eeeeee", lw=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(colors=GREY, labelsize=8.5, length=2)
    ax.tick_params(axis="y", labelcolor="black", length=0)


def marks_panel(ax: Axes, methods: dict[str, Results], place: dict[str, float]) -> None:
    for method, scores in methods.items():
        mark, y = scores["mark"], place[method]
        ax.plot([mark["M0"]["mean"], mark["M1"]["mean"]], [y, y], color="#cccccc", lw=1, zorder=1)
        dot(ax, mark["M0"], y + 0.13, BLUE, "s")
        dot(ax, mark["M1"], y - 0.13, ORANGE)
        if not mark["tells"]:
            ax.text(1.02, y, "does not", fontsize=8.5, va="center", transform=ax.get_yaxis_transform())
    style(ax, "mass on the mark / its area:\n", "M1 right of M0: tells them apart → better", True)
    ax.text(0, 1.012, "M0 ignores it,", color=BLUE, fontsize=9, transform=ax.transAxes)
    ax.text(0.48, 1.012, "M1 relies on it", color=ORANGE, fontsize=9, transform=ax.transAxes)
    ax.axvline(1, color=GREY, lw=1, ls="--", zorder=0)


# ---- the maps


def pages(path: pathlib.Path, found: Results, exhibits: Sequence[Exhibit], shown: dict[tuple[str, str], Array]) -> None:
    """All methods' maps of one image or more, outlined: a line for each net. Every map has a scale of its own."""
    marked = [e for e in exhibits if e.group.startswith("mark")][:2]
    lines = [(e, 0) for e in marked] if marked else [(exhibits[0], k) for k in range(min(3, len(exhibits[0].x)))]
    methods = list(found["methods"])
    across = 10
    bands = -(-len(methods) // across)
    H, W = lines[0][0].images.shape[2:]
    high, wide = 1.12, 1.12 * W / H
    fig = figure.new(wide * (across + 1) + 1.0, bands * (len(lines) * high + 0.32) + 0.5, w_pad=0.02, h_pad=0.02,
                         wspace=0, hspace=0)  # fmt: skip
    bands_of = fig.subfigures(bands, 1, squeeze=False)[:, 0]
    for band, part in enumerate(bands_of):
        cells = part.subplots(len(lines), across + 1, squeeze=False)
        for ax in cells.flat:
            ax.set_axis_off()
        names = methods[band * across : (band + 1) * across]
        for row, (e, k) in zip(cells, lines, strict=True):
            draw(row[0], e.images[k])
            outline(row[0], e, k, "white")
            kind = e.name.split()[1].split("-")[0]
            row[0].text(-0.06, 0.5, {"M0": "M0: the lesion", "M1": "M1: the mark"}.get(kind, ""), rotation=90, fontsize=9,
                        ha="right", va="center", transform=row[0].transAxes)  # fmt: skip
            for ax, method in zip(row[1:], names, strict=False):
                values = shown[method, e.name][k : k + 1]
                draw(ax, e.images[k], values[0], color_scale(values))
                outline(ax, e, k, "black")
        for ax, method in zip(cells[0, 1:], names, strict=False):
            ax.set_title(method.replace(" ", "\n", 1) if len(method) > 12 else method, fontsize=8.5, pad=3)
    about = "two nets call this malignant, for different reasons" if marked else "images that the net is right about"
    lines_of = "solid: the lesion" + (", dotted: the mark" if marked else "")
    fig.suptitle(f"What the methods show: {about} ({lines_of}; a scale for each map)", fontsize=11, fontweight="bold")
    figure.save(fig, path)


def outline(ax: Axes, e: Exhibit, k: int, color: str) -> None:
    """Thin lines around the lesion, dotted ones around the mark."""
    for name, style in ("lesion", "-"), ("mark", ":"):
        if name in e.masks and e.masks[name][k].any():
            ax.contour(e.masks[name][k], [0.5], colors=color, linewidths=0.8, linestyles=style)
