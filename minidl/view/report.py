"""What a net says about one image, on a page for those who look at the image: one file of HTML that loads nothing.

page(net, case)                the page of one image
index(net, cases, skipped)     a page that lists several

Both are text for a file. Who asks the net is `examples/report.py`; here are plain numbers and arrays.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from minidl.array import Array
from minidl.view.embedded import embedded, overlay, place_in_words
from minidl.view.names import literal
from minidl.view.shares import probability, share

SIDE, SMALL, THUMB = 512, 256, 64  # pixels of the file, of an image as the net saw it and of its maps, of one in a list
LARGE_BYTES, SMALL_BYTES, THUMB_BYTES = 160_000, 40_000, 6_000  # of these: a page with twelve stays below 1 MB
ROWS = 12  # classes whose probabilities are shown
ROOM = 60  # characters of a name


class Point(NamedTuple):
    """An operating point: an image is flagged where the probability of class `target` is at least `threshold`.

    sensitivity, specificity: of that, on so many validation images, those that it was chosen on.
    """

    target: int
    threshold: float
    sensitivity: float
    specificity: float
    images: int


class Score(NamedTuple):
    """A share in [0, 1], and its 95% interval where there is one."""

    value: float
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        within = f" (95% interval {share(self.interval[0])} to {share(self.interval[1])})" if self.interval else ""
        return share(self.value) + within


@dataclass(frozen=True)
class Test:
    """What was found on so many test images, of so many groups (patients, lesions), where these are known.

    scores: "auc", "accuracy" and "majority_accuracy" of the likeliest class, and "sensitivity" and "specificity" at the
    operating point, as far as known.
    """

    images: int
    groups: int | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True)
class Net:
    """What is the same for all images.

    Args:
        classes: the names of the K classes.
        size: (H, W) and channels of the images that it takes.
        target: the class that is suspicious; None where nobody said.
        point: when an image is flagged, as a rule as `target`; None where no operating point was chosen.
        test: what the test of the run found, if there was one.
        facts: what else is known of the net and its training, a word or two -> a text.
        mirrored: whether its answer is the mean over mirror images, which the maps do not know.
    """

    classes: Sequence[str]
    size: tuple[int, int]
    channels: int
    target: int | None = None
    point: Point | None = None
    test: Test | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    mirrored: bool = False


@dataclass(frozen=True, eq=False)
class Map:
    """What speaks for a class (above 0) and against it (below 0), by one method: values (H,W), and what they tell in words."""

    method: str
    values: Array
    words: str


@dataclass(frozen=True, eq=False)
class Question:
    """A changed image (C,H,W) for the eye, what was done to it in words, and the probabilities (K,) that it got."""

    title: str
    words: str
    image: Array
    probabilities: Array


@dataclass(frozen=True, eq=False)
class Case:
    """One image, and what the net said.

    Args:
        name, digest: of the file, its SHA-256 in hexadecimal.
        size: (height, width) of the image in the file.
        image: (C,h,w), the file for the eye, uint8 or floats in [0, 1]; seen: (C,H,W), the same as the net took it.
        probabilities: (K,). decision: the net's answer, a class; that of the operating point where the image is flagged.
        asked: the class that maps and questions are about.
        maps, questions: in the order in which they are shown. notes: sentences about the answers to the questions.
    """

    name: str
    digest: str
    size: tuple[int, int]
    image: Array
    seen: Array
    probabilities: Array
    decision: int
    asked: int
    maps: Sequence[Map] = ()
    questions: Sequence[Question] = ()
    notes: Sequence[str] = ()


def page(net: Net, case: Case, index: str | None = None) -> str:
    """The page of one image, below 1 MB; index: the file that lists all, to go back to."""
    back = f'<nav aria-label="all images"><p><a href="{_link(index)}">All images</a></p></nav>' if index else ""
    facts = {"File": case.name, "SHA-256 of the file": case.digest[:16], **net.facts}
    body = f"""<header>
{back}
<h1>{_name(case.name)}</h1>
<p class="soft">What a trained net says about this image, what speaks for it, and what that is worth.</p>
</header>
<main>
{DIAGNOSIS}
{_answer(net, case)}
{_maps(net, case)}
{_questions(net, case)}
{_worth(net)}
{_limits(net, case)}
{_about("The file and the net", facts)}
</main>"""
    return _whole(f"{literal(case.name, ROOM)}: what the net says", body)


def index(net: Net, cases: Sequence[tuple[str, Case]], skipped: Sequence[tuple[str, str]] = ()) -> str:
    """A page that lists pages (file, case), the most suspicious first, and what was `skipped` (file, why).

    Where nobody said which class is suspicious they stay in their order.
    """
    rows = list(cases)
    if net.target is not None:
        rows.sort(key=lambda row: -float(row[1].probabilities[row[1].asked]))
    order = (
        f"The one in which the net suspects {_class(net, net.target)} most is on top."
        if net.target is not None
        else "Nobody said which class is suspicious, so they stand in the order in which they were given."
    )
    head = "".join(f'<th scope="col">{text}</th>' for text in ("Image", "File", "The net’s answer"))
    head += '<th scope="col" class="number">Probability</th>'
    table = f"""<table>
<thead><tr>{head}</tr></thead>
<tbody>
{"".join(_row(net, file, case) for file, case in rows)}
</tbody>
</table>"""
    left = "".join(f"<li>{_name(name)}: {_text(why, 300)}</li>" for name, why in skipped)
    body = f"""<header>
<h1>{len(rows):,} image{"s" * (len(rows) != 1)}, and what the net says</h1>
<p class="soft">{order}</p>
</header>
<main>
{DIAGNOSIS}
{_section("list", "All images", table)}
{_section("skipped", "Skipped", f"<ul>{left}</ul>") if left else ""}
{_section("point", "The operating point", f"<p>{frequencies(net)}</p>") if net.point is not None else ""}
{_worth(net)}
{_about("The net", net.facts) if net.facts else ""}
</main>"""
    return _whole("All images: what the net says", body)


ASKED = ' class="asked"'
DIAGNOSIS = """<div class="note" role="note"><p><strong>This is no diagnosis.</strong> The page shows how a program sorts an
image. It decides nothing about a patient.</p></div>"""


# ---- the parts of a page


def _answer(net: Net, case: Case) -> str:
    (h, w), (H, W) = case.size, net.size
    same = (h, w) == (H, W)
    first = f"The file: {_pixels(h, w)}" + (", as the net takes it." if same else ".")
    figures = _figure(case.image, f"The image {case.name}", first, SIDE, LARGE_BYTES)
    if not same:
        figures += _figure(case.seen, f"The image {case.name} as the net takes it", f"What the net takes: {_pixels(H, W)}.")
    shown = _channels(net.channels)
    rows, order = [], np.argsort(-case.probabilities, kind="stable").tolist()
    kept = order[:ROWS] if case.asked in order[:ROWS] else [*order[: ROWS - 1], case.asked]
    for k in kept:
        rows.append(_bar_row(net, case, k))
    if rest := [k for k in order if k not in kept]:
        p = float(case.probabilities[rest].sum())
        rows.append(f'<tr><th scope="row">{len(rest):,} more</th><td class="number">{probability(p)}</td><td></td></tr>')
    content = f"""<div class="answer">
<div>
<div class="figures">{figures}</div>
{f'<p class="soft">{shown}</p>' if shown else ""}
</div>
<div>
{_decision(net, case)}
<table>
<caption>Probability of each class, as the net puts it</caption>
<thead><tr><th scope="col">Class</th><th scope="col" class="number">Probability</th><td></td></tr></thead>
<tbody>
{"".join(rows)}
</tbody>
</table>
</div>
</div>"""
    return _section("answer", "The image and the net’s answer", content)


def _bar_row(net: Net, case: Case, k: int) -> str:
    p = float(case.probabilities[k])
    bar = f'<rect class="full" y="4" width="100" height="6"/><rect class="part" y="2" width="{100 * p:.3f}" height="10"/>'
    if net.point is not None and k == net.point.target:
        at = f"{100 * net.point.threshold:.3f}"
        bar += f'<line class="line" x1="{at}" x2="{at}" y1="0" y2="14"/>'
    suspicious = ' <span class="soft">(suspicious)</span>' if k == net.target else ""
    return (
        f'<tr{ASKED if k == case.asked else ""}><th scope="row">{_name(net.classes[k])}{suspicious}</th>'
        f'<td class="number">{probability(p)}</td>'
        f'<td class="bar"><svg viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">{bar}</svg></td></tr>'
    )


def _decision(net: Net, case: Case) -> str:
    point = net.point
    if point is None:
        return (
            f'<p class="decision">The net’s answer: {_class(net, case.decision)}</p>'
            "<p>That is the class of the largest probability. No operating point was chosen for this net: nobody has set from "
            "which probability on it should warn, and how often it then misses something is not known.</p>"
        )
    name = _class(net, point.target)
    flagged = case.decision == point.target
    p, line = apart(float(case.probabilities[point.target]), point.threshold)
    other = f" Of the other classes {_class(net, case.decision)} is the most probable." if len(net.classes) > 2 else ""
    return (
        f'<p class="decision {"flagged" if flagged else "clear"}">{"Flagged" if flagged else "Not flagged"} as {name}</p>'
        f"<p>The net flags an image from a probability of {line} on. Here it is {p}.{'' if flagged else other}</p>"
        f"<p>{frequencies(net)}</p>"
    )


def frequencies(net: Net) -> str:
    """What the operating point means, in words and as HTML. Raises ValueError for a net that has none."""
    point = net.point
    if point is None:
        raise ValueError("net: expected one with an operating point, got none")
    others = [k for k in range(len(net.classes)) if k != point.target]
    rest = f"images of {_class(net, others[0])}" if len(others) == 1 else "images of the other classes"
    return (
        f"Of 100 images of {_class(net, point.target)} the net flags {_of_100(point.sensitivity)}; of 100 {rest} it lets "
        f"{_of_100(point.specificity)} pass (sensitivity {point.sensitivity:.3f}, specificity {point.specificity:.3f}). This "
        f"was counted on the {point.images:,} validation images on which the point was chosen; on other images it may well be "
        "worse."
    )


def _of_100(part: float) -> str:
    if 0 < part < 0.005:
        return "fewer than 1"
    if 0.995 <= part < 1:
        return "more than 99"
    return "all" if part == 1 else "none" if part == 0 else f"about {100 * part:.0f}"


def apart(p: float, line: float) -> tuple[str, str]:
    """Two probabilities in percent, with as many digits as it takes to see which is larger."""
    texts = probability(p), probability(line)
    for digits in range(2, 15):
        if texts[0] != texts[1] or p == line:
            break
        texts = f"{p:.{digits}%}", f"{line:.{digits}%}"
    return texts


def _maps(net: Net, case: Case) -> str:
    if not case.maps:
        return ""
    figures = []
    for one in case.maps:
        caption = f"<h3>{_text(one.method)}</h3><p>{_text(one.words, 500)}</p>"
        if not one.values.any():
            caption += "<p>It is 0 everywhere: it found nothing for or against.</p>"
        alt = f"{one.method}: {place_in_words(one.values)}"
        figures.append(_figure(overlay(case.seen, one.values, SMALL), alt, caption))
    key = (
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><defs><linearGradient id="key">'
        '<stop offset="0" stop-color="#2166ac"/><stop offset="0.5" stop-color="#f2f2f2"/>'
        '<stop offset="1" stop-color="#b2182b"/></linearGradient></defs><rect width="100" height="10" fill="url(#key)"/></svg>'
    )
    name = _class(net, case.asked)
    how = "Each map has a scale of its own: its deepest colour stands for its largest values, however small."
    if net.mirrored:
        how += " The net’s answer is the mean over the image and its mirror images; the maps are those of the image as it is."
    content = f"""<p>Three methods answer the same question: which places move the net towards {name}, and which away from it,
beside the class that is its strongest rival?</p>
<div class="key"><span>blue: against</span>{key}<span>red: for {name}</span></div>
<div class="figures">{"".join(figures)}</div>
<p class="soft">{how}</p>"""
    return _section("maps", f"What speaks for and against {name}", content)


def _questions(net: Net, case: Case) -> str:
    if not case.questions:
        return ""
    figures, p = [], float(case.probabilities[case.asked])
    for one in case.questions:
        answer = probability(float(one.probabilities[case.asked]))
        caption = (
            f"<h3>{_text(one.title)}</h3><p><strong>{answer}</strong> {_class(net, case.asked)}</p>"
            f"<p>{_text(one.words, 500)}</p>"
        )
        figures.append(_figure(one.image, f"{case.name}, {one.title}", caption))
    content = f"""<p>The same net, asked about changed images. For the image as it is, the probability of
{_class(net, case.asked)} is {probability(p)}.</p>
<div class="figures">{"".join(figures)}</div>
{"".join(f"<p><strong>{_text(note, 400)}</strong></p>" for note in case.notes)}
<p class="soft">No camera takes such images, and the net never saw one in training. What it says of them is a hint, no
proof.</p>"""
    return _section("questions", "What if the image were another one?", content)


def _worth(net: Net) -> str:
    said = list[str]()
    if net.test is None:
        said.append("No test of this net was found, so nobody knows how good it is.")
    else:
        groups = "" if net.test.groups is None else f" of {net.test.groups:,} groups, such as patients or lesions"
        said.append(f"It was tested on {net.test.images:,} images{groups}.")
        said += [words(net, score) for name, words in SCORES.items() if (score := net.test.scores.get(name)) is not None]
    said.append("All this holds for images like those of its training and test, and for no others.")
    return _section("worth", "How good is the net?", f"<ul>{''.join(f'<li>{text}</li>' for text in said)}</ul>")


def _auc(net: Net, score: Score) -> str:
    within = f" (95% interval {score.interval[0]:.3f} to {score.interval[1]:.3f})" if score.interval else ""
    least = score.interval[0] if score.interval else score.value
    chance = " <strong>So its answers may be chance.</strong>" if least <= 0.5 else ""
    if len(net.classes) > 2:
        return f"AUC {score.value:.3f}{within}, the mean over the classes, each against all others; 0.5 is chance.{chance}"
    pairs = f"Of two images, one of each class, it tells which is which in {share(score.value)} of the pairs"
    return f"AUC {score.value:.3f}{within}. {pairs}; 50% is chance.{chance}"


def _sensitivity(net: Net, score: Score) -> str:
    return (
        ""
        if net.point is None
        else f"At the operating point it flagged {score} of the images of {_class(net, net.point.target)}."
    )


def _specificity(net: Net, score: Score) -> str:
    return f"At the operating point it let {score} of the others pass."


def _majority(net: Net, score: Score) -> str:
    accuracy = net.test.scores.get("accuracy") if net.test is not None else None
    no_better = accuracy is not None and accuracy.value <= score.value
    verdict = " <strong>The net is no better than that.</strong>" if no_better else ""
    return f"Who always gives the most frequent class for an answer is right in {share(score.value)}.{verdict}"


SCORES: dict[str, Callable[[Net, Score], str]] = {  # in words
    "auc": _auc,
    "sensitivity": _sensitivity,
    "specificity": _specificity,
    "accuracy": lambda net, score: f"The class of the largest probability was right in {score}.",
    "majority_accuracy": _majority,
}


def _limits(net: Net, case: Case) -> str:
    (h, w), (H, W) = case.size, net.size
    once = max(h / H, w / W)
    finest = f"; one of them is about {once:.0f} pixels of the file wide or high" if once >= 1.5 else ""
    known = ", ".join(_class(net, k) for k in range(min(ROWS, len(net.classes))))
    more = f" and {len(net.classes) - ROWS:,} more" if len(net.classes) > ROWS else ""
    maps = [
        "A map shows which places in the image move a number of the net. It shows no cause in the body.",
        "A map of a wrong answer looks as sure as one of a right answer.",
        f"The net took {_pixels(H, W)}{finest}. What is smaller it cannot have seen, and two of the maps are coarser still.",
        "A map says where, not what: the colour, the border, a hair, a ruler, a pen mark. A net may have learnt from what lies "
        "beside: in minidl’s own study one came to rely on a pen mark, and called malignant what it was drawn beside.",
        "Places that mean nothing may be coloured. Beside generated lesions, LRP coloured a freckle that changed nothing 2.6 "
        "times as strongly as an average place, RISE 0.7 times and Grad-CAM 0.5 times.",
        "The three maps need not agree, and none is the right one. On photographs of skin no method that was tried covered the "
        "lesion as well as a plain spot in the middle of the image does.",
        "What no map colours may matter all the same, where several places say the same thing.",
    ]
    uses = [
        "Not for a diagnosis, for a treatment, or to send a patient home. It is no medical device, and nobody tried it as one.",
        f"Not for anything but {known}{more}: the net gives every image one of these names, a photograph of a chair too.",
        "Not for images of another kind than it was trained on: another camera, another part of the body, other patients.",
        "A small probability rules nothing out. Where a class is rarer or more frequent than among the images that the net was "
        "trained and calibrated on, its probabilities are wrong.",
    ]
    shown, used = ("".join(f"<li>{text}</li>" for text in texts) for texts in (maps, uses))
    return (
        _section("limits", "What the maps do not show", f"<ul>{shown}</ul>")
        + "\n"
        + _section("use", "What this page must not be used for", f"<ul>{used}</ul>")
    )


def _about(title: str, facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value, 300)}</dd>" for name, value in facts.items())
    return _section("about", title, f"<dl>{rows}</dl>")


def _row(net: Net, file: str, case: Case) -> str:
    thumb = f'<img src="{embedded(case.seen, THUMB, THUMB_BYTES)}" alt="" width="48" height="48">'
    answer = _class(net, case.decision)
    if net.point is not None:
        flagged = case.decision == net.point.target
        answer = f"<strong>flagged as {answer}</strong>" if flagged else f"not flagged as {_class(net, net.point.target)}"
    p = probability(float(case.probabilities[case.asked]))
    of = "" if net.target is not None else f' <span class="soft">{_class(net, case.asked)}</span>'
    return (
        f'<tr><td class="thumb">{thumb}</td><th scope="row"><a href="{_link(file)}">{_name(case.name)}</a></th>'
        f'<td>{answer}</td><td class="number">{p}{of}</td></tr>\n'
    )


# ---- texts


def _section(name: str, title: str, content: str) -> str:
    return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>\n{content}\n</section>'


def _text(text: str, room: int = 200) -> str:
    return escape(literal(text, room))


def _name(text: str) -> str:
    """A name that somebody gave, whatever it is made of; it does not turn the direction of what stands beside it."""
    return f"<bdi>{_text(text, ROOM)}</bdi>"


def _class(net: Net, k: int) -> str:
    return f"‘{_name(net.classes[k])}’"


def _link(file: str) -> str:
    return escape(quote(file, errors="surrogateescape"))


def _pixels(h: int, w: int) -> str:
    return f"{w:,} × {h:,} pixels (width × height)"


def _channels(C: int) -> str:
    """How images of so many channels are shown, where that needs to be said."""
    if C in (1, 3):
        return ""
    shown = "The first one is shown in grey" if C == 2 else "The first three are shown as red, green and blue"
    return f"The image has {C} channels. {shown}; the net takes all of them."


# ---- images


def _figure(image: Array, alt: str, caption: str, side: int = SMALL, most: int = SMALL_BYTES) -> str:
    H, W = image.shape[-2:]
    kind = ' class="pixels"' if max(H, W) <= 160 else ""
    head = f'<img{kind} src="{embedded(image, side, most)}" alt="{escape(literal(alt, 200))}" width="{W}" height="{H}">'
    return f"<figure>{head}<figcaption>{caption}</figcaption></figure>"


# ---- a page


def _whole(title: str, body: str) -> str:
    here = pathlib.Path(__file__)
    style, template = (here.with_name(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "html"))
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    parts = {
        "policy": f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        "title": escape(title),
        "style": style,
        "body": body,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], template)
