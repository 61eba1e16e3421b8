"""The page of one image, and the list of pages: what stands in them, and how they look in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import pathlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minidl.array import Array
from minidl.view import report
from minidl.view.embedded import embedded, overlay, place_in_words

VOID = {"meta", "link", "img"}
INLINE = {"a", "bdi", "span", "strong"}
LONG = "superficial_spreading_melanoma_of_the_leg"  # 41 letters
NASTY = '<img src=x onerror=alert(1)>&"\'"><script>alert(2)</script>'
SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def net(classes: tuple[str, ...] = ("benign", "malignant"), **settings: Any) -> report.Net:
    target = settings.get("target", 1)
    point = None if target is None else report.Point(target, 0.3, 0.94, 0.61, 1234)
    return report.Net(classes, (24, 32), 3, **{"target": 1, "point": point, **settings})


def case(classes: int = 2, shape: tuple[int, int] = (24, 32), channels: int = 3, **settings: Any) -> report.Case:
    rng = np.random.default_rng(0)
    p = np.array([0.6, 0.4, *[0.0] * (classes - 2)])
    seen = rng.integers(0, 256, (channels, *shape)).astype(np.uint8)
    maps = [report.Map(name, rng.normal(size=shape), "What it does.") for name in ("LRP", "Grad-CAM", "RISE")]
    questions = [report.Question(f"question {k}", "What was done.", seen / 255, p) for k in range(4)]
    whole = rng.random((channels, 60, 80))
    return report.Case(
        **{"name": "mole.png", "digest": "0123456789abcdef" * 4, "size": (600, 800), "image": whole, "seen": seen,
           "probabilities": p, "decision": 1, "asked": 1, "maps": maps, "questions": questions, **settings}
    )  # fmt: skip


class Read(HTMLParser):
    """A page, read: every tag with its attributes, and the text. Raises where a tag is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.said += [] if tag in INLINE else [" "]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.said).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def pixels(source: str) -> Array:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition("base64,")[2]))))


PAGES: dict[str, Callable[[], str]] = {
    "two classes": lambda: report.page(net(), case()),
    "seven classes": lambda: report.page(net(SEVEN, target=4), case(7, asked=4), "index.html"),
    "no point": lambda: report.page(net(target=None), case()),
    "long names": lambda: report.page(net((LONG, LONG[::-1])), case(name=f"{LONG * 3}.png")),
    "nasty names": lambda: report.page(net((NASTY, NASTY[::-1]), facts={NASTY: NASTY}), case(name=NASTY, notes=[NASTY])),
    "nothing found": lambda: report.page(net(), case(maps=[report.Map("RISE", np.zeros((24, 32)), "")], questions=())),
    "grey": lambda: report.page(replace(net(), channels=1), case(channels=1)),
    "five channels": lambda: report.page(replace(net(), channels=5), case(channels=5)),
    "one pixel wide": lambda: report.page(replace(net(), size=(24, 1)), case(shape=(24, 1))),
    "a thousand classes": lambda: report.page(net(tuple(f"class {k}" for k in range(1000)), target=7), case(1000, asked=7)),
    "list": lambda: report.index(net(), [("a.html", case()), ("b.html", case(decision=0))], [("c.png", "is empty")]),
    "nasty list": lambda: report.index(net((NASTY, "b")), [("a#?%.html", case(name=NASTY))], [(NASTY, NASTY)]),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_loads_nothing(name: str) -> None:
    page = PAGES[name]()
    read = Read(page)
    assert len(page.encode()) < 1_000_000 and page == PAGES[name]()
    assert "://" not in page and not read.all("script")
    assert not [key for _, attributes in read.tags for key in attributes if key.startswith("on") or key == "style"]
    for image in read.all("img"):
        assert image["src"].startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) and "alt" in image
    assert [a["href"] for a in read.all("a") if ":" in a["href"]] == []
    policy = next(m["content"] for m in read.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert f"style-src 'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy and "{{" not in page and "This is no diagnosis." in read.text
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and {s["aria-labelledby"] for s in read.all("section")} <= set(ids)


def test_the_largest_page_stays_below_a_megabyte() -> None:
    """Noise is what images take most bytes for."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (3, 700, 700)).astype(np.uint8)
    maps = [report.Map("LRP", rng.normal(size=(700, 700)), "")] * 3
    questions = [report.Question("a", "", noise / 255, np.array([0.5, 0.5]))] * 4
    page = report.page(replace(net(), size=(700, 700)), case(image=noise, seen=noise, maps=maps, questions=questions))
    assert 200_000 < len(page.encode()) < 1_000_000


def test_names_are_text() -> None:
    read = Read(PAGES["nasty names"]())
    shown = report.literal(NASTY, report.ROOM)
    assert read.text.count(shown) > 5 and not read.all("script") and "alert(1)" in read.text
    assert Read(PAGES["nasty list"]()).all("a")[0]["href"] == "a%23%3F%25.html"
    turned = Read(report.page(net(), case(name="a\u202egnp.exe"))).text
    assert "\\u202e" in turned and "\u202e" not in turned


# ---- the words


def test_the_operating_point_in_words() -> None:
    words = re.sub("<.*?>", "", report.frequencies(net()))
    assert words.startswith(
        "Of 100 images of ‘malignant’ the net flags about 94; of 100 images of ‘benign’ it lets about 61 pass "
        "(sensitivity 0.940, specificity 0.610). This was counted on the 1,234 validation images"
    )
    several = re.sub("<.*?>", "", report.frequencies(net(SEVEN, target=4)))
    assert "Of 100 images of ‘mel’ the net flags" in several and "of 100 images of the other classes it lets" in several
    with pytest.raises(ValueError, match="net: expected one with an operating point, got none"):
        report.frequencies(net(point=None))


@pytest.mark.parametrize(
    ("sensitivity", "words"),
    [(1.0, "flags all;"), (0.997, "flags more than 99;"), (0.994, "flags about 99;"), (0.003, "flags fewer than 1;"),
     (0.0, "flags none;")],
)  # fmt: skip
def test_nobody_is_promised_all(sensitivity: float, words: str) -> None:
    assert words in report.frequencies(net(point=report.Point(1, 0.3, sensitivity, 0.5, 9)))


def test_the_decision() -> None:
    flagged = Read(report.page(net(), case()))
    assert "Flagged as ‘malignant’" in flagged.text and "from a probability of 30.0% on. Here it is 40.0%." in flagged.text
    assert "Not flagged as ‘malignant’" in Read(report.page(net(), case(decision=0))).text
    free = Read(report.page(net(point=None), case(decision=0))).text
    assert "The net’s answer: ‘benign’" in free and "No operating point was chosen" in free and "lagged" not in free
    other = Read(report.page(net(SEVEN, target=4), case(7, asked=4, decision=0))).text
    assert "Not flagged as ‘mel’" in other and "Of the other classes ‘akiec’ is the most probable." in other


def test_probabilities_on_two_sides_of_a_line_read_so() -> None:
    assert report.apart(0.4, 0.3) == ("40.0%", "30.0%")
    assert report.apart(0.30004, 0.30006) == ("30.00%", "30.01%")
    assert report.apart(0.0002, 0.0007) == ("0.02%", "0.07%") and report.apart(0.3, 0.3) == ("30.0%", "30.0%")


def test_what_the_net_is_worth() -> None:
    scores = {
        "auc": report.Score(0.874, (0.852, 0.895)), "accuracy": report.Score(0.836), "majority_accuracy": report.Score(0.803),
        "sensitivity": report.Score(0.91, (0.8, 1.0)), "specificity": report.Score(0.6),
    }  # fmt: skip
    text = Read(report.page(net(test=report.Test(2000, 31, scores)), case())).text
    assert "tested on 2,000 images of 31 groups" in text and "AUC 0.874 (95% interval 0.852 to 0.895)" in text
    assert "87.4% of the pairs" in text and "was right in 83.6%" in text
    assert "always gives the most frequent class for an answer is right in 80.3%" in text
    assert "At the operating point it flagged 91.0% (95% interval 80.0% to 100.0%) of the images of ‘malignant’" in text
    assert "At the operating point it let 60.0% of the others pass." in text
    assert "chance." in text and "may be chance" not in text and "no better" not in text
    poor = {
        "auc": report.Score(0.6, (0.48, 0.7)), "accuracy": report.Score(0.7), "majority_accuracy": report.Score(0.7),
    }  # fmt: skip
    text = Read(report.page(net(test=report.Test(40, None, poor)), case())).text
    assert "So its answers may be chance." in text and "The net is no better than that." in text
    assert "tested on 9 images." in Read(report.page(net(test=report.Test(9)), case())).text
    assert "No test of this net was found, so nobody knows how good it is." in Read(report.page(net(), case())).text


def test_size_channels_and_facts() -> None:
    text = Read(report.page(replace(net(facts={"Trained on": "lesions"}), channels=5), case(channels=5))).text
    assert "The file: 800 × 600 pixels (width × height)." in text and "What the net takes: 32 × 24 pixels" in text
    assert "The image has 5 channels. The first three are shown as red, green and blue; the net takes all of them." in text
    assert "0123456789abcdef" in text and "0123456789abcdef0" not in text and "Trained on" in text and "lesions" in text
    assert "channels" not in Read(report.page(net(), case())).text
    assert (
        "mirror" not in text
        and "mean over the image and its mirror images" in Read(report.page(net(mirrored=True), case())).text
    )
    own = Read(report.page(net(), case(size=(24, 32), image=np.zeros((3, 24, 32)), seen=np.zeros((3, 24, 32)))))
    assert "32 × 24 pixels (width × height), as the net takes it." in own.text and len(own.all("img")) == 8


def test_every_class_counts() -> None:
    text = Read(PAGES["a thousand classes"]()).text
    assert "988 more" in text and "‘class 7’" in text and "(suspicious)" in text
    assert "<0.1%" in text and ">99.9%" in Read(report.page(net(), case(probabilities=np.array([1e-9, 1])))).text


def test_the_list_begins_with_the_most_suspicious() -> None:
    rows = [(f"{k}.html", case(name=f"{k}.png", probabilities=np.array([1 - p, p]))) for k, p in enumerate((0.2, 0.9, 0.5))]
    assert [a["href"] for a in Read(report.index(net(), rows)).all("a")] == ["1.html", "2.html", "0.html"]
    text = Read(report.index(net(target=None), rows)).text
    assert "in the order in which they were given" in text and text.index("0.png") < text.index("1.png")
    assert "Skipped" not in text and "Skipped" in Read(PAGES["list"]()).text and "c.png: is empty" in Read(PAGES["list"]()).text


# ---- the images


def test_small_images_are_shown_to_the_bit() -> None:
    seen = np.random.default_rng(2).integers(0, 256, (3, 24, 32)).astype(np.uint8)
    images = Read(report.page(net(), case(seen=seen))).all("img")
    assert (pixels(images[1]["src"]) == seen.transpose(1, 2, 0)).all() and images[1]["class"] == "pixels"
    large = Read(report.page(net(), case(image=np.zeros((3, 600, 800), np.uint8)))).all("img")[0]["src"]
    assert pixels(large).shape == (300, 400, 3)  # means of 2 x 2 pixels, whole blocks


def test_red_is_for_and_blue_is_against() -> None:
    values = np.zeros((4, 6))
    values[1, 2], values[3, 5] = 2.0, -2.0
    drawn = overlay(np.full((1, 4, 6), 128, np.uint8), values, 256)
    red, blue, pale = drawn[:, 1, 2], drawn[:, 3, 5], drawn[:, 0, 0]
    assert red[0] > 0.6 > red[2] and blue[2] > 0.6 > blue[0] and np.ptp(pale) < 1e-12
    assert place_in_words(values) == "strongest for, top centre; strongest against, bottom right"
    assert place_in_words(0 * values) == "0 everywhere"
    assert np.isfinite(overlay(np.zeros((3, 4, 6)), 0 * values, 256)).all()


@pytest.mark.parametrize("shape", [(256, 300), (900, 1300), (2000, 300)])
def test_a_large_image_keeps_its_shape(shape: tuple[int, int]) -> None:
    h, w = overlay(np.zeros((3, *shape), np.uint8), np.zeros(shape), 256).shape[1:]
    H, W = pixels(embedded(np.zeros((3, *shape), np.uint8), 256, 40_000)).shape[:2]
    assert (h, w) == (H, W) and max(h, w) <= 256 and h / w == pytest.approx(shape[0] / shape[1], rel=0.02)


def test_no_value_is_lost_in_a_large_map() -> None:
    """One pixel of 1,024 x 1,024 is averaged, not left out."""
    values = np.zeros((1024, 1024))
    values[511, 511] = 1
    drawn = overlay(np.zeros((1, 1024, 1024), np.uint8), values, 256)
    assert drawn.shape == (3, 256, 256) and drawn[0, 127, 127] > drawn[0, 0, 0] + 0.2


# ---- in the browser


@pytest.mark.oracle
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1920])
@pytest.mark.parametrize("name", PAGES)
def test_in_a_browser(name: str, width: int, scheme: str, open_file: Callable[..., Any], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES[name](), encoding="utf-8")
    page = open_file(path, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    outside = "[...document.body.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1).length"
    assert page.evaluate(outside) == 0
    assert worst_contrast(page) >= 4.5
    if links := page.locator("a").count():
        for _ in range(links):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "A"
    page.emulate_media(media="print", color_scheme=scheme)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def worst_contrast(page: Any) -> float:
    """The least contrast of any text with what lies behind it, as WCAG 2 defines it."""
    found = page.evaluate("""() => [...document.body.querySelectorAll("*")]
        .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
        .map((e) => {
            let behind = e;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)" && behind.parentElement)
                behind = behind.parentElement;
            return [getComputedStyle(e).color, getComputedStyle(behind).backgroundColor];
        })""")

    def luminance(colour: str) -> float:
        c = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
        return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))

    pairs = [sorted((luminance(a), luminance(b))) for a, b in found]
    return min((high + 0.05) / (low + 0.05) for low, high in pairs)
