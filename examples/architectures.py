"""What the famous architectures cost, counted, beside what they got for it.

    python examples/architectures.py

counts parameters, multiply-adds and depth of VGG-19, GoogLeNet, Inception-v3, ResNet-34 and -152 and DenseNet-121 with
`minidl.cost` (a minute, nothing is trained or downloaded), puts the published top-5 errors on ImageNet beside them, and draws
it all as one chart, runs/architectures/figure.png. Beside it, NAME.png and NAME.svg show each net box by box.

Errors compare only within one protocol. The same GoogLeNet is wrong 10.07%, 9.15%, 7.89% or 6.67% of the time, for one crop of
the image, the mean over ten crops, over 144, and over 144 of seven nets. So the table tells the protocol of each figure, and
the chart has one series under a single protocol: torchvision's weights on one central crop, which were trained later and in
other ways than in the papers.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import models
from minidl import cost, view
from minidl.analysis import Cost
from minidl.io import files
from minidl.nn import Module
from minidl.view import figure
from minidl.view.figure import BLUE, GREY, ORANGE


class Error(NamedTuple):
    """A published top-5 error on ImageNet's validation set, in percent. checked: looked up again for this table."""

    percent: float
    protocol: str
    source: str
    checked: bool = True


class Net(NamedTuple):
    """name: as in the papers; crop: errors for one crop or image, many: for the mean over many, as published with the net;
    torchvision: of its IMAGENET1K_V1 weights on one central crop, 100 - "acc@5" in the sources of torchvision from 0.13 on;
    depth: the depth of names at which it is drawn, all if None."""

    name: str
    year: int
    size: int
    make: Callable[[], Module]
    crop: Error | None
    many: Error
    torchvision: float
    depth: int | None = None


NETS = {
    "vgg19": Net(
        "VGG-19", 2014, 224, models.vgg19,
        Error(8.0, "whole image, one scale (384)", "Simonyan and Zisserman 2015, table 3"),
        Error(7.1, "150 crops and whole images, three scales", "Simonyan and Zisserman 2015, table 5"), 9.124,
    ),
    "googlenet": Net(
        "GoogLeNet", 2014, 224, lambda: models.googlenet(paper=True, aux=False),
        Error(10.07, "1 crop", "Szegedy et al. 2015, table 3"),
        Error(9.15, "10 crops", "Szegedy et al. 2015, table 3"), 10.470,
    ),
    "inception_v3": Net(
        "Inception-v3", 2015, 299, lambda: models.inception_v3(aux=False),
        Error(5.6, "1 crop, without the blacklisted images", "Szegedy et al. 2016, abstract and table 3"),
        Error(4.48, "12 crops, without the blacklisted images", "Szegedy et al. 2016, table 4", False), 6.550,
    ),
    "resnet34": Net(
        "ResNet-34", 2015, 224, models.resnet34,
        None,
        Error(7.46, "10 crops (option B, as here)", "He et al. 2016, table 3", False), 8.580,
    ),
    "resnet152": Net(
        "ResNet-152", 2015, 224, models.resnet152,
        Error(6.7, "1 crop", "github.com/KaimingHe/deep-residual-networks"),
        Error(5.71, "10 crops", "He et al. 2016, table 3"), 5.954, 2,
    ),
    "densenet121": Net(
        "DenseNet-121", 2016, 224, models.densenet121,
        Error(7.71, "1 crop", "Huang et al. 2017, table 3", False),
        Error(6.66, "10 crops", "Huang et al. 2017, table 3", False), 8.028, 3,
    ),
}  # fmt: skip

TUTORIAL = {"vgg19": 160e6, "googlenet": 4e6, "inception_v3": 2.5 * 4e6}  # parameters, as the tutorial tells them


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help=f"some of {', '.join(NETS)}")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/architectures"), help="the folder for the results"
    )
    asked = parser.parse_args(arguments)

    def run() -> None:
        asked.out.mkdir(parents=True, exist_ok=True)

        counted = {name: cost(NETS[name].make(), (3, NETS[name].size, NETS[name].size)) for name in asked.nets}
        text = "\n".join([table(counted), "", errors(asked.nets), *explanations(counted)])
        files.write(asked.out / "table.md", text + "\n")
        draw(asked.out / "figure.png", counted)
        for name, found in counted.items():
            depth = NETS[name].depth
            for kind in "png", "svg":
                view.architecture(asked.out / f"{name}.{kind}", found.collapsed(depth) if depth else found, NETS[name].name)
        print(f"{text}\n\nnow look at {asked.out / 'figure.png'}")

    return guard.guarded(run)


def depth(counted: Cost) -> int:
    """How many layers with weights, convolutions and linear ones, lie on the longest way through the net."""
    longest: list[int] = []
    for row in counted.rows:
        before = max((longest[i] for i in row.inputs if i >= 0), default=0)
        longest.append(before + (row.op in ("Conv2d", "Linear")))
    return longest[-1]


def table(counted: dict[str, Cost]) -> str:
    """As Markdown; the memory is that of the activations of one image."""
    lines = [
        "| | year | layers | parameters | multiply-adds | activations | receptive field |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in counted.items():
        net = NETS[name]
        height, _ = next(row.receptive_field or (0, 0) for row in reversed(found.rows) if row.jump)  # before the last pooling
        cells = (
            net.name,
            net.year,
            depth(found),
            f"{found.parameters:,}",
            f"{found.multiply_adds / 1e9:.2f} G",
            f"{found.bytes / 1e6:.0f} MB",
            f"{height:.0f} pixels, of {net.size}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def errors(names: Sequence[str]) -> str:
    """The published errors with their protocols and sources, as Markdown."""
    lines = ["| top-5 error | torchvision, 1 crop | as published | protocol | source |", "|---|---|---|---|---|"]
    for net in (NETS[name] for name in names):
        head = f"{net.name} | {net.torchvision:.2f}%"
        for error in filter(None, (net.crop, net.many)):
            mark = "" if error.checked else " *"
            lines.append(f"| {head} | {error.percent}%{mark} | {error.protocol} | {error.source} |")
            head = " | "
    return "\n".join([*lines, "", "\\* not checked against a copy of the paper"])


def explanations(counted: dict[str, Cost]) -> list[str]:
    """Why the counted parameters are not those of the tutorial."""
    texts = []
    if "vgg19" in counted:
        found = counted["vgg19"]
        linear = sum(row.parameters for row in found.rows if row.op == "Linear")
        convolutions = found.parameters - linear
        texts.append(
            f'VGG, "about 160 million": VGG-19 has {millions(found.parameters)}, and it is the largest of the paper (table 2 '
            f"there: 133 to 144 million). {millions(linear)} of them, {linear / found.parameters:.0%}, stand in the three "
            f"linear layers, {millions(convolutions)} in all convolutions together. No VGG of the paper has 160 million; the "
            "order of magnitude is right."
        )
    if "googlenet" in counted:
        found, published = counted["googlenet"], models.googlenet(aux=False)
        linear = next(row.parameters for row in found.rows if row.op == "Linear")
        texts.append(
            f'GoogLeNet, "about 4 million": the net of the paper has {millions(found.parameters)}, '
            f"{millions(found.parameters - linear)} of them before the last layer; the one with published weights, with 3x3 in "
            f"place of 5x5, has {millions(sum(p.size for p in published.parameters()))}. The paper says 12 times fewer than "
            "AlexNet, whose 60 million make that 5, but its own table 1 adds up to nearly 7. 4 is too few by any of these "
            "counts. In training, two auxiliary heads of together 6.4 million come on top."
        )
    if "googlenet" in counted and "inception_v3" in counted:
        google, three = counted["googlenet"], counted["inception_v3"]
        small = cost(models.inception_v3(aux=False), (3, 224, 224))
        texts.append(
            f'Inception-v3, "about 2.5 times GoogLeNet": {three.parameters / google.parameters:.1f} times the parameters. The '
            "2.5 of the paper is about computation: in section 6 against GoogLeNet, in section 11 against its larger successor "
            "with batch norm (Ioffe and Szegedy 2015). Counted here, against GoogLeNet: "
            f"{three.multiply_adds / google.multiply_adds:.1f} times the multiply-adds with images of 299x299 against "
            f"224x224, {small.multiply_adds / google.multiply_adds:.1f} times with 224x224 for both. Its longest way "
            f"has {depth(three)} layers with weights; the paper says 42."
        )
    if "densenet121" in counted:
        texts.append(
            "DenseNet-121 is quoted with 2.83 G multiply-adds. Its transitions here pool before their 1x1 convolution, which "
            "gives the same numbers for a quarter of the work, and saves 0.23 G."
        )
    return [f"\n{text}" for text in texts]


def millions(n: int) -> str:
    return f"{n / 1e6:.1f} million"


def draw(path: pathlib.Path, counted: dict[str, Cost]) -> None:
    """Four panels over the same nets: depth, parameters, multiply-adds, errors."""
    nets = [NETS[name] for name in counted]
    rows = range(len(nets))
    fig = figure.new(12, 1.9 + 0.45 * len(nets), w_pad=0.1, h_pad=0.1)
    layers, parameters, work, wrong = fig.subplots(1, 4, width_ratios=(2, 3, 3, 3.4), sharey=True)
    bars = (
        (layers, "layers with weights", [depth(c) for c in counted.values()], "{:.0f}"),
        (parameters, "parameters (millions)", [c.parameters / 1e6 for c in counted.values()], "{:.1f}"),
        (work, "multiply-adds (10⁹)", [c.multiply_adds / 1e9 for c in counted.values()], "{:.1f}"),
    )
    told = {y: TUTORIAL[name] / 1e6 for y, name in enumerate(counted) if name in TUTORIAL}
    for ax, title, values, style in bars:
        ax.barh(rows, values, height=0.62, color=BLUE)
        ends = [max(value, told.get(y, 0) if ax is parameters else 0) for y, value in zip(rows, values, strict=True)]
        ax.set_xlim(0, 1.35 * max(ends))
        for y, value, end in zip(rows, values, ends, strict=True):
            above = 5 if ax is parameters and y in told else 0
            ax.annotate(style.format(value), (end, y), (5, above), textcoords="offset points", va="center", fontsize=9)
            if above:
                text, place = f"told: {told[y]:.0f}", {"xytext": (5, -6), "textcoords": "offset points"}
                ax.annotate(text, (end, y), va="center", fontsize=8, color=ORANGE, **place)
        ax.set_title(title, fontsize=10, loc="left")
    if told:
        parameters.scatter(
            list(told.values()), list(told), marker="|", s=260, color=ORANGE, lw=2.2, label="as the tutorial tells it"
        )

    series = (
        ("torchvision's weights, 1 crop", [net.torchvision for net in nets], {"color": BLUE, "s": 70}),
        (
            "published, 1 crop or image",
            [net.crop.percent if net.crop else float("nan") for net in nets],
            {"marker": "D", "fc": "white", "ec": ORANGE, "lw": 1.6, "s": 60},
        ),
        (
            "published, 10 crops or more",
            [net.many.percent for net in nets],
            {"marker": "s", "fc": "white", "ec": GREY, "lw": 1.6, "s": 60},
        ),
    )
    wrong.hlines(rows, 0, 11.5, color="#ececec", lw=0.8, zorder=0)
    for label, percents, look in series:
        wrong.scatter(percents, rows, label=label, **look)
    wrong.set_xlim(3, 11.5)
    wrong.set_title("top-5 error on ImageNet (%)", fontsize=10, loc="left")
    for ax in (layers, parameters, work, wrong):
        ax.set_yticks(rows, [f"{net.name}\n{net.year}" for net in nets])
        ax.tick_params(colors=GREY, labelsize=9, length=0)
        ax.tick_params(axis="y", labelcolor="black")
        ax.spines[["top", "right"]].set_visible(False)
    layers.invert_yaxis()
    fig.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    fig.suptitle("What architectures cost, and what they got for it", fontsize=11, fontweight="bold")
    figure.save(fig, path)


if __name__ == "__main__":
    guard.script(main)
