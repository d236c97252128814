"""Every way in which label.csv and the video folder can disagree: exit code 2, the place named, no traceback."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from livetrain.core.errors import UserError
from shards import cli
from shards.labels import Columns, read_labels
from shards.videos import find_videos

VIDEOS = ["a.mp4", "b.mov", "sub/c.mp4"]
GOOD = "fname,liveness_score\na.mp4,1\nb.mov,0\nsub/c.mp4,0\n"


def read(tmp_path: Path, text: str, columns: Columns | None = None, videos: list[str] | None = None):
    path = tmp_path / "label.csv"
    path.write_text(text, encoding="utf-8")
    return read_labels(path, videos or VIDEOS, columns)


def test_the_two_columns_of_zalo_are_enough(tmp_path: Path) -> None:
    labels = read(tmp_path, GOOD)
    assert [(r.video, r.label, r.attack_type, r.subject, r.split) for r in labels.rows] == [
        ("a.mp4", 1.0, "live", "", ""),
        ("b.mov", 0.0, "attack", "", ""),
        ("sub/c.mp4", 0.0, "attack", "", ""),
    ]
    assert (labels.subject_column, labels.split_column) == ("", "")


def test_names_without_suffix_byte_order_mark_blanks_and_any_order(tmp_path: Path) -> None:
    text = "\ufeffliveness_score, fname \n0 ,sub/c\n\n1,a\n0.25, ./b.mov\n"
    assert [(r.video, r.label) for r in read(tmp_path, text).rows] == [
        ("a.mp4", 1.0),
        ("b.mov", 0.25),
        ("sub/c.mp4", 0.0),
    ]


def test_optional_columns(tmp_path: Path) -> None:
    header = "fname,liveness_score,attack_type,group,session,device,split"
    text = header + "\na,1,,g1,s1,d1,x\nb,0,print,g2,s2,d2,y\nsub/c,0,,g3,,,y\n"
    labels = read(tmp_path, text)
    assert (labels.subject_column, labels.split_column) == ("group", "split")
    assert [(r.attack_type, r.subject, r.session, r.device, r.split) for r in labels.rows] == [
        ("live", "g1", "s1", "d1", "x"),
        ("print", "g2", "s2", "d2", "y"),
        ("attack", "g3", "", "", "y"),
    ]


def test_the_domain_is_a_column_or_the_same_for_all(tmp_path: Path) -> None:
    text = "fname,liveness_score,domain\na,1,zalo\nb,0,nuaa\nsub/c,0,\n"
    assert [row.domain for row in read(tmp_path, text).rows] == ["zalo", "nuaa", ""]
    path = tmp_path / "label.csv"
    assert {row.domain for row in read_labels(path, VIDEOS, domain="siw").rows} == {"siw"}


def test_a_line_break_within_a_field_is_a_forgotten_quote(tmp_path: Path) -> None:
    text = GOOD.replace("b.mov,0\n", '"b.mov,0\n').replace("sub/c.mp4,0\n", 'sub/c.mp4",0\n')
    with pytest.raises(UserError, match=r"label\.csv, line \d: fname holds a line break"):
        read(tmp_path, text)


def test_named_columns_and_columns_left_out(tmp_path: Path) -> None:
    text = "clip,real,who,kind,subject\na,1,p,live,x\nb,0,q,mask,x\nsub/c,0,q,mask,x\n"
    labels = read(tmp_path, text, Columns(name="clip", label="real", subject="who", attack="kind"))
    assert [(r.subject, r.attack_type) for r in labels.rows] == [("p", "live"), ("q", "mask"), ("q", "mask")]
    assert read(tmp_path, text, Columns(name="clip", label="real", subject="")).subject_column == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no row"),
        ("fname,liveness_score\n", "holds no row"),
        ("fname,score\na,1\n", "no column 'liveness_score'.*fname, score.*--columns label="),
        ("name,liveness_score\na,1\n", "no column 'fname'.*--columns name="),
        ("fname,fname,liveness_score\na,a,1\n", "'fname' appears twice"),
        (GOOD + "d.mp4,1\n", "line 5: the video 'd.mp4' is not in the video folder"),
        (GOOD + "d.txt,1\n", "line 5: .*not one of a video"),
        (GOOD + ",1\n", "line 5: the name of the video is empty"),
        ("fname,liveness_score\na,1\nb,0\n", r"1 of 3 videos have no label \(sub/c.mp4\)"),
        (GOOD + "a.mp4,0\n", "line 5: 'a.mp4' is labelled already in line 2"),
        (GOOD + "a,1\n", "line 5: 'a' is labelled already in line 2"),
        (GOOD.replace("a.mp4,1", "a.mp4,1.5"), r"line 2: liveness_score is 1.5, outside \[0, 1\]"),
        (GOOD.replace("a.mp4,1", "a.mp4,-1"), r"line 2: liveness_score is -1, outside"),
        (GOOD.replace("a.mp4,1", "a.mp4,nan"), "line 2: liveness_score is nan, outside"),
        (GOOD.replace("a.mp4,1", "a.mp4,live"), "line 2: liveness_score is 'live', not a number"),
        (GOOD.replace("a.mp4,1", "a.mp4,"), "line 2: liveness_score is '', not a number"),
        (GOOD.replace("a.mp4,1", "a.mp4,0"), "all 3 videos are attacks"),
        (GOOD.replace(",0", ",1"), "all 3 videos are live"),
        (GOOD.replace("a.mp4,1", "a.mp4,1,2"), "line 2: 3 cells, the header has 2"),
        ('fname,liveness_score\n"a,1\n', "not a CSV file"),
        ("fname,liveness_score,subject\na,1,x\nb,0,\nsub/c,0,x\n", "line 3: subject is empty"),
        ("fname,liveness_score,split\na,1,x\nb,0,\nsub/c,0,x\n", "line 3: split is empty"),
        ("fname,liveness_score,attack_type\na,1,\nb,0,live\nsub/c,0,x\n", "line 3: .*says attack.*says live"),
        ("fname,liveness_score,attack_type\na,1,print\nb,0,print\nsub/c,0,x\n", "line 2: labelled live.*'print'"),
    ],
)
def test_complaints_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fname;liveness_score\na;1\n", "separated by semicolons; save it with commas"),
        ("fname\tliveness_score\na\t1\n", "separated by tabs"),
        ("sep=,\nfname,liveness_score\na,1\n", "'sep=,', is for Excel alone; remove it"),
        ("fname,liveness_score\nvideos/a.mp4,1\nb,0\n", "but 'a.mp4' is: write names as paths below that folder"),
        ("fname,liveness_score,fname\na,1,b\n", "'fname' appears twice"),
    ],
)
def test_what_spreadsheets_make_is_answered_with_what_to_do(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(UserError, match=re.escape(says)):
        read_labels(tmp_path / "l.csv", ["a.mp4", "b.mp4"])


def test_a_video_without_a_row_is_named_beside_the_other_faults(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("fname,liveness_score\na,1\nb,maybe\n")
    with pytest.raises(UserError) as caught:
        read_labels(tmp_path / "l.csv", ["a.mp4", "b.mp4", "c.mp4"])
    assert "'maybe', not a number" in str(caught.value) and "have no label (c.mp4)" in str(caught.value)


def test_names_are_the_same_however_their_letters_are_composed(tmp_path: Path) -> None:
    """macOS and zip take letters apart: the file is found, and a person spelt both ways is one."""
    apart, whole = (unicodedata.normalize(form, "Zo\u00e9") for form in ("NFD", "NFC"))
    assert apart != whole
    text = f"fname,liveness_score,subject,attack_type\n{whole}.mp4,1,{whole},\n{apart}2,0,{apart},pap{apart}\n"
    (tmp_path / "l.csv").write_text(text, encoding="utf-8")
    found = read_labels(tmp_path / "l.csv", [f"{apart}.mp4", f"{whole}2.mp4"])
    assert {row.video for row in found.rows} == {f"{apart}.mp4", f"{whole}2.mp4"}, "files keep their names"
    assert {row.subject for row in found.rows} == {whole}
    assert [row.attack_type for row in found.rows if not row.is_live] == [f"pap{whole}"]
    with pytest.raises(UserError, match="could be"):
        read_labels(tmp_path / "l.csv", [f"{apart}.mp4", f"{whole}.mp4", f"{whole}2.mp4"])


def test_a_nested_column_of_parquet_is_in_nobodys_way(tmp_path: Path) -> None:
    table = pa.table(
        {"fname": ["a", "b"], "liveness_score": [1, 0], "boxes": [[1, 2], []], "more": [{"x": 1}, {"x": 2}]}
    )
    parquet.write_table(table, tmp_path / "l.parquet")
    assert len(read_labels(tmp_path / "l.parquet", ["a.mp4", "b.mp4"]).rows) == 2


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = "fname,liveness_score\na,2\nx,1\nb,0\nsub/c,no\n"
    with pytest.raises(UserError, match=r"(?s)line 2: .*outside.*line 3: .*'x' is not in.*line 5: .*'no', not a num"):
        read(tmp_path, text)
    with pytest.raises(UserError, match=r"(?s)line 21: .*\nand 5 more\n.*have no label"):
        read(tmp_path, "fname,liveness_score\n" + "".join(f"x{number},1\n" for number in range(25)))
    with pytest.raises(UserError) as all_shown:
        read(tmp_path, "fname,liveness_score\n" + "".join(f"x{number},1\n" for number in range(20)))
    assert "line 21: " in str(all_shown.value) and "more\n" not in str(all_shown.value)


def test_a_row_that_repeats_another_is_noticed_and_counted_once(tmp_path: Path) -> None:
    labels = read(tmp_path, GOOD + "a.mp4,1\n")
    assert len(labels.rows) == 3
    assert [notice.rpartition("label.csv, ")[2] for notice in labels.notices] == [
        "line 5 repeats line 2: 'a.mp4'; it is counted once"
    ]


def test_an_inverted_label_and_a_parquet_file(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"clip": ["a", "b.mov", "sub/c"], "spoof": [0, 1, 1], "id": [7, 8, None]})
    parquet.write_table(table, tmp_path / "labels.parquet")
    columns = Columns(name="clip", label="spoof", invert=True)
    labels = read_labels(tmp_path / "labels.parquet", VIDEOS, columns)
    assert [(row.video, row.label) for row in labels.rows] == [("a.mp4", 1.0), ("b.mov", 0.0), ("sub/c.mp4", 0.0)]
    with pytest.raises(UserError, match="line 3: id is empty"):
        read_labels(tmp_path / "labels.parquet", VIDEOS, Columns(**{**vars(columns), "subject": "id"}))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(UserError, match="torn.parquet: cannot be read as Parquet"):
        read_labels(tmp_path / "torn.parquet", VIDEOS, columns)


def test_a_table_without_rows_says_what_to_do(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"fname": pa.array([], pa.string()), "liveness_score": []}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("fname,liveness_score\n")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(UserError, match=f"{name}: holds no row; expected a header"):
            read_labels(tmp_path / name, VIDEOS)


def test_a_label_just_below_a_half_is_what_the_index_makes_of_it(tmp_path: Path) -> None:
    """Its float32 is 0.5, so training takes it for live: the row may not be an attack of a type."""
    rows = read(tmp_path, "fname,liveness_score\na,0.49999999\nb,0\nsub/c,0.4999999\n").rows
    assert [(row.is_live, row.attack_type) for row in rows] == [(True, "live"), (False, "attack"), (False, "attack")]
    assert [bool(np.float32(row.label) >= 0.5) for row in rows] == [row.is_live for row in rows]


def test_all_batches_of_a_long_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setattr("livetrain.core.columns.BATCH", 4)
    videos = [f"{number:02d}.mp4" for number in range(11)]
    columns = {"fname": videos[::-1], "liveness_score": [number % 2 for number in range(11)]}
    columns["subject"] = [f"p{number}" for number in range(11)]
    parquet.write_table(pa.table(columns), tmp_path / "label.parquet", row_group_size=3)
    labels = read_labels(tmp_path / "label.parquet", videos)
    assert [(row.video, row.label, row.subject) for row in labels.rows] == [
        (f"{number:02d}.mp4", (10 - number) % 2, f"p{10 - number}") for number in range(11)
    ]
    assert [labels.rows[i] for i in (0, -1, 7)] == [list(labels.rows)[i] for i in (0, -1, 7)]
    some = labels.select([number % 5 == 0 for number in range(11)])
    assert [row.video for row in some.rows] == ["00.mp4", "05.mp4", "10.mp4"]


def test_a_name_that_fits_two_videos(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'a' could be 'a.avi' or 'a.mp4'; write the suffix"):
        read(tmp_path, "fname,liveness_score\na,1\n", videos=["a.avi", "a.mp4"])


@pytest.mark.parametrize("option", ["attack", "subject", "split"])
def test_a_named_column_must_be_there(tmp_path: Path, option: str) -> None:
    with pytest.raises(UserError, match=f"no column 'nope'.*--columns {option}="):
        read(tmp_path, GOOD, Columns(**{option: "nope"}))


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "label.csv").write_bytes(b"fname,liveness_score\n\xff\xfe,1\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_labels(tmp_path / "label.csv", VIDEOS)


def test_find_videos_looks_below_and_leaves_out_what_is_hidden_or_no_video(tmp_path: Path) -> None:
    for name in ["b.MP4", "sub/a.webm", "._b.mp4", ".trash/c.mp4", "notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    assert find_videos(tmp_path) == ["b.MP4", "sub/a.webm"]


@pytest.mark.parametrize("case", ["no label file", "a folder as label file", "no video folder", "empty folder"])
def test_missing_input_ends_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    videos, labels, out = tmp_path / "videos", tmp_path / "label.csv", tmp_path / "out"
    if case != "no video folder":
        videos.mkdir()
    if case not in ("empty folder", "no video folder"):
        (videos / "a.mp4").write_bytes(b"x")
    if case == "a folder as label file":
        labels.mkdir()
    elif case != "no label file":
        labels.write_text(GOOD)
    assert cli.main(["build", "--videos", str(videos), "--labels", str(labels), "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert str(labels if "label" in case else videos) in message
    assert not out.exists()
