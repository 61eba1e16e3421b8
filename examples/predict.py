"""What a trained net says of images: probabilities and a decision for each, in a table.

    python examples/predict.py --run runs/skin mole.jpg others/
    python examples/predict.py --run runs/skin others/ --csv out.csv
    python examples/predict.py --run runs/skin --table list.csv --root images --csv out.csv

FILES are images, or folders of images. The net decides at the operating point that its training chose: see
`minidl.train.DecisionRule`. --csv writes the columns

    file, group, label, p_CLASS of each class, decision

A file that cannot be read is named and passed over, and the exit code is 1. A table has the column file, and if you like label,
group and split, as `minidl.data.csv` takes it; HAM10000_metadata.csv is one, too. Where it tells labels, the last lines tell
how good the net is on them, with intervals over the groups. That is no test if one of these images or patients was trained on.
"""

from __future__ import annotations

import guard  # before all others, see there

# isort: split
import argparse
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence

import common
import numpy as np
import train as training

from minidl.arguments import count
from minidl.array import Array, check_device
from minidl.bar import Bar
from minidl.data.ahead import ahead
from minidl.data.files import workers
from minidl.data.folder import group_of, group_pattern, image_files
from minidl.data.ham10000 import DIAGNOSES, METADATA
from minidl.data.ham10000 import listed as listed_in_metadata
from minidl.data.table import ASKED, Line, listed
from minidl.inference.evaluation import PIXELS
from minidl.train import TrainedNet, load_run
from minidl.train.decision import suspicious
from minidl.train.evaluation import check_settled
from minidl.train.predictions import UNKNOWN, Predictions
from minidl.train.scoring import scored, summary
from minidl.view.shares import fraction

MOST = 5  # classes whose probabilities are printed


def main(arguments: list[str] | None = None) -> int:
    """The exit code, see `guard.guarded`; 1 where a file could not be read."""
    args = parser().parse_args(arguments)
    broken: list[str] = []
    code = guard.guarded(lambda: run(args, broken))
    return code or int(bool(broken))


def run(args: argparse.Namespace, broken: list[str]) -> None:
    check_device(args.device)
    if args.csv and (pathlib.Path(args.csv).is_dir() or not pathlib.Path(args.csv).parent.is_dir()):
        raise ValueError(f"--csv: expected a file in a folder that is there, got {args.csv}")
    folder = common.finished(pathlib.Path(args.run))
    net = load_run(folder, training.MODELS)
    check_settled(folder, net.contract, common.rows_of(folder))
    net.model.to(args.device)
    lines = images_of_table(args, net.classes) if args.table else images_of_files(args)
    found = predicted(net, lines, args.batch_size, broken)
    if found is None:
        raise ValueError(f"none of the {len(lines)} images could be read")
    if args.csv:
        found.write(args.csv)
        print(f"{len(found.names):,} images are in {args.csv}" + (f", {len(broken):,} could not be read" if broken else ""))
    else:
        print_table(found)
    known = found.known()
    if len(known.names):
        print(f"of {len(known.names):,} images the label is known:")
        rule = net.contract.decision
        target = suspicious(net.classes, "" if rule is None else rule.target)
        scores = scored(known, target, net.contract.temperature, rule is not None)
        print(summary(scores), *scores["notes"], sep="\n")


# ---- which images


def images_of_files(args: argparse.Namespace) -> list[Line]:
    if args.root or args.split:
        raise ValueError("--root, --split: they are for --table F.csv, and say where its files are, and which of them to take")
    if not args.files:
        raise ValueError("FILES: expected images or folders of images, or --table F.csv, got none")
    pattern = group_pattern(args.groups)
    found = []
    for name in args.files:
        path = pathlib.Path(name)
        files = [path]
        if path.is_dir():
            files, passed = image_files(path)
            if passed.why:
                print(f"{path}: passed over {passed}", file=sys.stderr)
            if not files:
                raise ValueError(f"{path} holds no image")
        found += [Line(file, str(file), "", "" if pattern is None else group_of(pattern, file.as_posix())) for file in files]
    return found


def images_of_table(args: argparse.Namespace, classes: Sequence[str]) -> list[Line]:
    if args.files or args.groups:
        raise ValueError("--table: it lists the images, and their groups in its column group; leave FILES and --groups out")
    if pathlib.Path(args.table).name in METADATA:
        return [line._replace(label=of_diagnosis(line.label, classes)) for line in listed_in_metadata(args.table, args.root)]
    lines = listed(args.table, args.root, args.split)
    if other := [line for line in lines if line.label not in ("", *classes)]:
        raise ValueError(f"{args.table}: {other[0].name} has the label {other[0].label!r}, expected one of {tuple(classes)}")
    return lines


def of_diagnosis(diagnosis: str, classes: Sequence[str]) -> str:
    label = diagnosis if diagnosis in classes else ("benign", "malignant")[DIAGNOSES[diagnosis]]
    return label if label in classes else ""


# ---- what the net says


def predicted(net: TrainedNet, lines: Sequence[Line], batch_size: int | None, broken: list[str]) -> Predictions | None:
    """Batch by batch, so that no more images are in memory; None where none could be read."""
    contract = net.contract
    size = None if batch_size is None else count(batch_size, "--batch-size")
    size = size or max(1, min(250, PIXELS // (contract.channels * contract.height * contract.width)))
    read, p = list[Line](), list[Array]()
    for batch in batches(net, lines, size, broken):
        read += [line for line, _ in batch]
        p.append(net.probabilities(net.inputs(np.stack([image for _, image in batch])), size))
    if not read:
        return None
    number = {name: k for k, name in enumerate(net.classes)} | {"": UNKNOWN}
    names, groups, labels = ([getattr(line, of) for line in read] for of in ("name", "group", "label"))
    whole = np.concatenate(p)
    return Predictions(net.classes, names, groups, np.array([number[label] for label in labels]), whole, net.decide(whole))


def batches(net: TrainedNet, lines: Sequence[Line], size: int, broken: list[str]) -> Iterator[list[tuple[Line, Array]]]:
    """Images as the net holds them, `size` at a time, read ahead in threads; what cannot be read is named."""

    def image(line: Line) -> Array | Exception:
        try:
            return net.contract.image(line.file)
        except (OSError, TypeError, ValueError) as error:
            return error

    images = ahead(image, lines, 2 * workers(), workers())
    with Bar(zip(lines, images, strict=True), desc="images", total=len(lines), leave=False, disable=None) as bar:
        try:
            whole = (pair for pair in bar if is_read(*pair, broken))
            while batch := list(itertools.islice(whole, size)):
                yield batch
        finally:
            images.close()


def is_read(line: Line, image: Array | Exception, broken: list[str]) -> bool:
    if isinstance(image, Exception):
        said = str(image)
        broken.append(said if str(line.file) in said else f"{line.file}: {said}")
        print(f"passed over: {broken[-1]}", file=sys.stderr)
    return not isinstance(image, Exception)


def print_table(found: Predictions) -> None:
    """In columns, with three digits; of many classes the decision's probability alone."""
    K = len(found.classes)
    several = K <= MOST
    head = ["file", "group", "label", *([f"p_{name}" for name in found.classes] if several else ["p"]), "decision"]
    rows = []
    for (file, group, label, *_, decision), p, k in zip(found.rows(), found.p, found.decisions, strict=True):
        rows.append([file, group, label, *map(fraction, p if several else [p[k]]), decision])
    shown = [i for i, name in enumerate(head) if name not in ("group", "label") or any(row[i] for row in rows)]
    rows = [[" ".join(row[i].split()) for i in shown] for row in [head, *rows]]
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(w) for text, w in zip(row, wide, strict=True)).rstrip())


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="*", metavar="FILES", help="images, or folders of images")
    p.add_argument("--run", required=True, metavar="FOLDER", help="that of a training by examples/train.py")
    p.add_argument("--csv", metavar="OUT.csv", help="write the table there, instead of printing it")
    p.add_argument("--table", metavar="F.csv", help="the images that a table lists, with their labels and groups")
    p.add_argument("--root", metavar="FOLDER", help="from where the table gives its files; by default where it is itself")
    p.add_argument("--split", choices=ASKED, help="which lines of the table, where it has the column split")
    p.add_argument("--groups", metavar="REGEX", help="finds in the name of each of FILES whom it shows, such as '/([0-9]+)_'")
    p.add_argument("--batch-size", type=int, metavar="IMAGES", help="as many at a time; by default so many that "
                   "they have no more pixels than 250 of 32x32")  # fmt: skip
    common.add_device(p)
    return p


if __name__ == "__main__":
    guard.script(main)
