"""audit.html in a real browser: needs no network, fits a phone, shows every picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shards.audit import audit_page
from shards.audit.copies import EXACT, NEAR, Copy
from shards.audit.findings import Findings, ordered
from shards.audit.look import jpeg
from shards.audit.people import Alike, SamePerson
from shards.audit.probes import MEANING, Probe
from tests.browser import chromium
from tests.shards.audit.test_fix import findings

pytestmark = pytest.mark.slow  # a browser


EVIL = "<script>document.title='owned'</script>"


class Looks:
    """Pictures of clips that were never filmed."""

    def picture(self, row: int) -> bytes:
        return jpeg(np.random.default_rng(row).integers(0, 255, (90, 160, 3), dtype=np.uint8)) if row else b""


def made_up() -> Findings:
    subjects = [f"person {row // 4} with a rather long name" for row in range(40)]
    same = [SamePerson(1, 9, "set/a", EVIL, 0.2, 0.95)]
    of = findings(subjects, [], same, kinds="lp" * 20)
    of.clips.words["split"][::3] = "test"
    of.clips.words["video"][2] = EVIL
    of.clips.words["device"][:] = "phone"
    probes = [Probe(cue, 0.9, 0.8, 0.95, 5, "people") for cue in list(MEANING)[:-2]]
    probes += [Probe(cue, None, None, None, reason="the same for all clips") for cue in list(MEANING)[-2:]]
    copies = ordered(of.clips, [Copy(0, 1, EXACT), Copy(2, 4, NEAR, "mirrored"), Copy(3, 5, NEAR), Copy(6, 8, NEAR)])
    heights = np.linspace(0.1, 0.6, 40)
    return Findings(of.clips, copies, 50, Alike(tuple(same)), probes, {"frozen": [3, 4]}, heights, ["a notice"])


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_needs_no_network(width: int, tmp_path: Path) -> None:
    path = tmp_path / "audit.html"
    path.write_text(audit_page.page(made_up(), Looks()), encoding="utf-8")  # type: ignore[arg-type]
    with chromium.browser() as window:
        chromium.resize(window, width)
        window.get(path.as_uri())
        assert window.title.startswith("Audit of")
        wide = window.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} pixels"
        broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
        assert window.execute_script("return document.images.length") > 20 and window.execute_script(broken) == 0
        # chrome: the page that the browser itself starts with.
        assert [url for url in chromium.requests(window) if not url.startswith(("file:", "data:", "chrome:"))] == []
        text = window.find_element("tag name", "body").text
    assert "Label conflict: 1 pair" in text and "95 % likely, in different splits" in text and EVIL in text
    assert text.index("Label conflict") < text.index("Groups of copies") < text.index("Shortcuts", text.index("Groups"))
