"""How well scores order two classes, drawn: ROC and precision-recall curves, of several classes or runs in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minidl.io.files import Path
from minidl.metrics import Interval, OperatingPoint, PrecisionRecallCurve, ROCCurve
from minidl.view.figure import GREY, Drawing
from minidl.view.square import GUESSING, check, check_names, check_shares, digits, score, square, style


def roc(
    path: Path | None,
    curves: Mapping[str, ROCCurve],
    points: Mapping[str, Sequence[OperatingPoint]] | None = None,
    intervals: Mapping[str, Interval] | None = None,
    title: str = "",
) -> Drawing:
    """Sensitivity over 1 - specificity: a line for each of `curves`, with the area below it.

    Guessing lies on the dotted diagonal. Names that are long are shortened, and those that differ stay different. The path's
    ending says which kind of file: .png, .svg, .pdf, .jpg or .jpeg; None is for no file, see `view.Drawing`.

    Args:
        curves: what `metrics.roc_curve` gives, by the names of classes or runs.
        points: by the same names, operating points to be marked and told. One that was chosen on other images lies on the
            curve of these by `OperatingPoint.apply`.
        intervals: by the same names, those of the AUC, as of `metrics.bootstrap_score`.

    Raises ValueError where there is no curve, a share is outside [0, 1], points or intervals have other names, an interval is
    that of another score, or for another ending, TypeError for what is no curve, no point or no interval.
    """
    points, intervals = {} if points is None else points, {} if intervals is None else intervals
    check(curves, ROCCurve, "curves", "metrics.roc_curve")
    check_names(points, curves, "points")
    check_names(intervals, curves, "intervals")
    told = {}
    for name, curve in curves.items():
        check_shares(curve.fpr, f"curves[{name!r}].fpr")
        check_shares(curve.tpr, f"curves[{name!r}].tpr")
        told[name] = [score("AUC", curve.auc, intervals.get(name), f"intervals[{name!r}]")]
        for point in points.get(name, ()):
            if not isinstance(point, OperatingPoint):
                raise TypeError(f"points[{name!r}]: expected several OperatingPoints, got {type(point).__name__} in there")
            check_shares([point.sensitivity, point.specificity], f"points[{name!r}]")
            told[name].append(f"● sensitivity {digits(point.sensitivity)}, specificity {digits(point.specificity)}")
    sheet, ax, _ = square(told, title, "1 - specificity", "sensitivity")
    ax.plot([0, 1], [0, 1], color=GREY, **GUESSING)
    for i, (name, curve) in enumerate(curves.items()):
        ax.plot(curve.fpr, curve.tpr, zorder=3, **style(i))
        for point in points.get(name, ()):
            dot = {"color": style(i)["color"], "mec": "white", "mew": 1.2, "ms": 8, "zorder": 4, "clip_on": False}
            ax.plot(1 - point.specificity, point.sensitivity, "o", **dot)
    return sheet.save(path)


def precision_recall(
    path: Path | None,
    curves: Mapping[str, PrecisionRecallCurve],
    intervals: Mapping[str, Interval] | None = None,
    title: str = "",
) -> Drawing:
    """Precision over recall: a line of steps for each of `curves`, with its average precision, the area below it.

    Guessing has the precision of the share of the ones, a dotted line of the same colour. Names and the kinds of files are as
    in `roc`.

    Args:
        curves: what `metrics.precision_recall_curve` gives, by the names of classes or runs.
        intervals: by the same names, those of the average precision, as of `metrics.bootstrap_score`.

    What is raised is as of `roc`.
    """
    intervals = {} if intervals is None else intervals
    check(curves, PrecisionRecallCurve, "curves", "metrics.precision_recall_curve")
    check_names(intervals, curves, "intervals")
    told = {}
    for name, curve in curves.items():
        check_shares(curve.recall, f"curves[{name!r}].recall")
        check_shares(curve.precision, f"curves[{name!r}].precision")
        area = score("average precision", curve.average_precision, intervals.get(name), f"intervals[{name!r}]")
        told[name] = [area, f"of guessing {digits(curve.precision[0])}"]
    sheet, ax, _ = square(told, title, "recall (sensitivity)", "precision")
    for i, curve in enumerate(curves.values()):
        ax.axhline(curve.precision[0], color=style(i)["color"], **GUESSING)
        ax.step(curve.recall, curve.precision, where="post", zorder=3, **style(i))
    return sheet.save(path)
