"""report.html: one file that fetches nothing, escapes what people typed, and survives missing pieces."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from livetrain.core import display_names
from livetrain.core.errors import UserError
from livetrain.report import page, plots
from livetrain.verdict import scores, verdict
from livetrain.verdict.scores import Scores
from tests.verdict.helpers import make_scores

DEV = make_scores([("live", 0.9), ("live", 0.7), ("print", 0.3), ("replay", 0.1)])
TEST = make_scores([("live", 0.95), ("live", 0.4), ("print", 0.6), ("print", 0.2), ("replay", None)])


def make_run(folder: Path, dev: Scores = DEV, test: Scores = TEST, records: str | None = None) -> Path:
    (folder / "scores").mkdir(parents=True)
    scores.write(folder / "scores" / "dev.csv", dev)
    scores.write(folder / "scores" / "test.csv", test)
    (folder / "verdict.json").write_text(json.dumps(verdict.build(dev, test)))
    if records is not None:
        (folder / "metrics.jsonl").write_text(records)
        (folder / "config.yaml").write_text("name: <b>& quick</b>\n")
        (folder / "environment.json").write_text('{"torch": "2"}')
    return folder


def records(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


class Page(HTMLParser):
    """What a page links to, its pictures, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("iframe", "object"), tag
        links = [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.links += [link for link in links if not link.startswith("#")]
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def jpeg(_: str, frames: Sequence[int]) -> list[bytes]:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, format="JPEG")
    return [out.getvalue()] * max(1, len(frames))


def test_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path / "my run", records=records({"kind": "train", "step": 1, "loss": 0.7}))
    text = page.write(run, pictures=jpeg).read_text()
    parsed = Page(text)
    assert not parsed.open, "every element is closed"
    assert parsed.links and all(link.startswith("data:image/") for link in parsed.links)
    assert not re.search(r"@import|url\(|fetch\(|https?://", text)
    for link in parsed.links:
        kind, _, data = link.partition(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            picture.load()
            assert picture.format == ("PNG" if kind.endswith("png") else "JPEG")
    assert len(parsed.links) == 5 + 4  # ROC, DET, histogram, reliability, training; four scored clips


CJK = "\N{CJK UNIFIED IDEOGRAPH-6253}\N{CJK UNIFIED IDEOGRAPH-5370}"


MANY = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("_print", "$", "x" * 200_000, "a\x1b[31m")]


@pytest.mark.parametrize("kind", ["a$^$", CJK, "<b>", *MANY], ids=list("abcdefg"))
def test_any_name_of_an_attack_type_is_shown(kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    rows = [("live", 0.9), ("live", 0.4), (kind, 0.6), (kind, 0.2), ("2", 0.1), ("10", 0.1)]
    people = ["p" * 200_000, "b", "c", "d", "e", "f"]
    run = make_run(tmp_path / "run", make_scores(rows, people), make_scores(rows, people))
    written = page.write(run).read_text()
    assert len(written) < 1_500_000 and not [w for w in recwarn if "Glyph" in str(w.message)]
    shown = display_names.shown(kind)
    assert shown in html.unescape(written) and len(shown) <= display_names.WIDTH
    label = plots.legible(kind)
    figure = plots.histogram(make_scores(rows, people), 0.5)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert label in texts and len(texts) == 5
    text = verdict.format_text(json.loads((run / "verdict.json").read_text()))
    assert max(map(len, text.splitlines())) < 130 and "\x1b" not in text + written


def test_without_a_font_for_it_a_character_is_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_families", lambda: ["DejaVu Sans"])
    assert plots.legible("\N{CJK UNIFIED IDEOGRAPH-6253}1") == " U+62531"
    assert plots.legible("caf\u00e9 a$b") == "caf\u00e9 a\\$b" and plots.legible("_x") == " _x"


def test_it_shows_what_the_readme_promises(tmp_path: Path) -> None:
    """The level on every table of intervals, calibration before and after, failures by kind, and no RIAPAR."""
    run = make_run(tmp_path / "run")
    path = run / "verdict.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"intervals": content["intervals"] | {"confidence": 0.9}}))
    text = Page(page.write(run).read_text()).text
    assert (
        "90 % interval of test" in text and "Intervals (90 %) are made" in text and "if videos were independent" in text
    )
    ece = content["test"]["ece"]
    for value in (ece["raw"], ece["calibrated"]):
        assert f"{100 * value:.2f} %" in text
    assert (
        "expected calibration error" in text and "of replay 0.00 % 100.00 %" in text and "of live videos 0.00 %" in text
    )
    assert "RIAPAR" not in text.replace("not the RIAPAR", "")


def test_an_older_verdict_is_shown(tmp_path: Path) -> None:
    """Of format 2, with the bootstrap's intervals and without a chain."""
    run = make_run(tmp_path / "run")
    path = run / "verdict.json"
    content = json.loads(path.read_text())
    old = {"low": 0.1, "high": 0.9, "method": "bootstrap bca", "unit": "people", "num_units": 3}
    zero = old | {"method": "clopper-pearson", "low": 0.0, "if_videos_were_independent": 0.3}
    for split in ("dev", "test"):
        part = content[split]
        part["riapar"] = part.pop("apcer_plus_bpcer")
        part["intervals"] = dict.fromkeys(part["intervals"], old) | {"apcer": {"print": zero}, "bpcer": None}
        part["intervals"] |= {"bpcer_at_apcer": {"0.1": old}, "tpr_at_fpr": {"0.01": None}}
    content |= {"format": 2, "intervals": {"confidence": 0.95, "method": "bootstrap, bca; …", "resample": "people",
                "resample_text": "each", "replicates": 2000, "seed": 0}}  # fmt: skip
    del content["chain"]
    path.write_text(json.dumps(content))
    text = Page(page.write(run).read_text()).text
    assert "10.0 to 90.0 %" in text and "0.0 to 90.0 %" in text and "(1 of 2; no interval)" in text


def test_it_says_the_figures_of_the_verdict(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    text = Page(page.write(run).read_text()).text
    assert "50.00 % APCER, largest over attack types" in text and "50.00 % BPCER" in text
    assert "5 videos (2 live, 3 attack) of 3 people" in text
    assert "1 failures to acquire (20.00 %)" in text and "videos/4.mp4 test replay person1" in text
    bounds = verdict.build(DEV, TEST)["test"]["intervals"]
    summary_line = {
        name: f"50.0 % (1 of 2; 95 % interval {100 * part['low']:.1f} to {100 * part['high']:.1f} %)"
        for name, part in (("print", bounds["apcer"]["print"]), ("live", bounds["bpcer"]))
    }
    begins = f"Print: {summary_line['print']} of its presentations pass for live (APCER);"
    assert begins in text and f"{summary_line['live']} of live presentations are refused (BPCER)." in text
    assert (
        text.index(begins)
        < text.index("The test split has only 2 people for live, 2 people for print.")
        < text.index("APCER, largest over")
    )
    assert "1 of 5 videos of the test split gave no score" in text
    assert "No person is known" not in text
    assert "no picture" in text, "without shards there are no thumbnails"
    unknown = make_scores([("live", 0.9), ("print", 0.1)], people=["", ""])
    assert "No person is known" in Page(page.write(make_run(tmp_path / "b", DEV, unknown)).read_text()).text


def test_what_people_typed_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    test = make_scores([("live", 0.9), (evil, 0.3), (evil, None)], people=[evil, "b", evil])
    run = make_run(tmp_path / "run", DEV, test, records({"kind": "train", "step": 1, "loss": 0.7}))
    text = page.write(run, pictures=jpeg).read_text()
    assert evil not in text and "&lt;script&gt;" in text and "<b>& quick" not in text
    assert evil in Page(text).text


def test_torn_and_missing_files(tmp_path: Path) -> None:
    whole = {"kind": "dev", "step": 1, "loss": 0.5, "eer": 0.1}
    run = make_run(tmp_path / "run", records=records(whole) + '{"kind": "train", "st')
    assert "Training" in page.write(run).read_text()
    for name in ("metrics.jsonl", "config.yaml", "environment.json"):
        (run / name).unlink()
    text = page.write(run).read_text()
    assert "Training" not in text and "How it was made" not in text
    (run / "verdict.json").write_text("{")
    with pytest.raises(UserError, match=r"verdict\.json.*livetrain evaluate"):
        page.write(run)


def test_worst_clips() -> None:
    found = page.worst(TEST, 0.5, 3)
    assert [(row["key"], row["wrong"]) for row in found] == [("clip1", True), ("clip2", True), ("clip3", False)]
    assert [row["distance"] for row in found] == pytest.approx([0.6, 0.6, 0.2])
    assert len(page.worst(TEST, 0.5, 99)) == 4, "a clip without a score is not among them"


def test_figures_that_the_data_allow() -> None:
    built = verdict.build(DEV, TEST)
    assert plots.figures(DEV, TEST, built, []).keys() == {"roc", "det", "histogram", "reliability"}
    lives = make_scores([("live", 0.8)])
    drawn = plots.figures(DEV, lives, verdict.build(DEV, lives), [{"kind": "dev", "step": 3, "loss": 0.2, "eer": None}])
    assert drawn.keys() == {"roc", "det", "histogram", "reliability", "training"}
    assert [line.get_label() for line in drawn["roc"].axes[0].lines][:-1] == ["dev"]
    nothing = make_scores([("live", None)])
    assert "histogram" not in plots.figures(DEV, nothing, verdict.build(DEV, nothing), [])


def test_curves_show_the_error_rates() -> None:
    drawn = plots.roc({"test": TEST}).axes[0].lines[0]
    x, y = drawn.get_xdata(), drawn.get_ydata()
    assert list(zip(x, y, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]


def test_training_curve_keeps_its_axes() -> None:
    rows = [{"kind": "train", "step": s, "loss": 1 / s} for s in (1, 2)] + [
        {"kind": "dev", "step": 2, "loss": 0.4, "eer": 0.25}
    ]
    left, right = plots.training_curves(rows).axes
    assert left.get_ylim()[0] == right.get_ylim()[0] == 0
    assert list(right.lines[0].get_ydata()) == [25.0]
