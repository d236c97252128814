"""Importers: what they make of trees that are laid out as published. The real NUAA clips are read where they are."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from livetrain.core.errors import UserError
from livetrain.data.decode import decode_video
from shards import cli, importers
from shards.format import index_table
from shards.format.probe import probe
from shards.importers import oulu_npu
from shards.importers.layout import Options
from tests.shards import clips

NUAA = Path(__file__).parents[3] / "shared" / "data" / "nuaa"


def tree(root: Path, names: list[str]) -> Path:
    """Files that are never opened: importers look at names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def read(layout: str, root: Path, **options: object) -> dict[str, importers.Row]:
    return {row.video: row for row in importers.read(layout, root, Options(**options))}  # type: ignore[arg-type]


def values(row: importers.Row) -> tuple:
    return row.label, row.subject, row.attack_type, row.session, row.device, row.split, row.domain


def test_replay_attack(tmp_path: Path) -> None:
    real = "client001_session01_webcam_authenticate_adverse_1.mov"
    names = [f"devel/real/{real}", "enroll/client001_session01_webcam_enroll_1.mov"]
    names += [
        f"train/attack/fixed/attack_{name}_adverse.mov"
        for name in ("print_client009_session01_highdef_photo", "mobile_client009_session01_mobile_video")
    ]
    names += ["test/attack/hand/attack_highdef_client011_session01_highdef_photo_controlled.mov"]
    rows = read("replay_attack", tree(tmp_path, names))
    assert [values(rows[name]) for name in (names[0], *names[2:])] == [
        (1.0, "001", "live", "adverse", "webcam", "dev", "replay_attack"),
        (0.0, "009", "print", "adverse-fixed", "webcam", "train", "replay_attack"),
        (0.0, "009", "mobile_video", "adverse-fixed", "webcam", "train", "replay_attack"),
        (0.0, "011", "highdef_photo", "controlled-hand", "webcam", "test", "replay_attack"),
    ]
    assert importers.without_row(tmp_path, list(rows.values())) == [names[1]]


@pytest.fixture(scope="module")
def oulu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 4950 names of OULU-NPU."""
    names = []
    for phone, session, user, file in itertools.product(range(1, 7), range(1, 4), range(1, 56), range(1, 6)):
        folder = "Train" if user <= 20 else "Dev" if user <= 35 else "Test"
        names.append(f"{folder}_files/{phone}_{session}_{user:02d}_{file}.avi")
    return tree(tmp_path_factory.mktemp("oulu"), names)


# Live and attack videos of train, dev and test, as in table 2 of the paper.
OULU_COUNTS = {
    ("1", 0): [(240, 960), (180, 720), (120, 480)],
    ("2", 0): [(360, 720), (270, 540), (360, 720)],
    ("3", 4): [(300, 1200), (225, 900), (60, 240)],
    ("4", 6): [(200, 400), (150, 300), (20, 40)],
}


@pytest.mark.parametrize(("protocol", "fold"), OULU_COUNTS)
def test_oulu_protocols_have_the_published_sizes(oulu: Path, protocol: str, fold: int) -> None:
    rows = read("oulu_npu", oulu, protocol=protocol, fold=fold)
    counts = Counter((row.split, row.label) for row in rows.values())
    found = [(counts[split, 1.0], counts[split, 0.0]) for split in ("train", "dev", "test")]
    assert found == OULU_COUNTS[protocol, fold] and len(rows) == 4950
    people = {split: {r.subject for r in rows.values() if r.split == split} for split in ("train", "dev", "test")}
    assert not people["train"] & people["dev"] | people["train"] & people["test"] | people["dev"] & people["test"]


def test_oulu_protocols_test_what_training_has_not_seen() -> None:
    every = list(itertools.product(range(1, 7), range(1, 4), range(1, 56), range(1, 6)))

    def seen(protocol: str, fold: int, split: str, column: int, live: bool = True) -> set[int]:
        chosen = [c for c in every if oulu_npu.split_of(protocol, fold, *c) == split and (live or c[3] != 1)]
        return {c[column] for c in chosen}

    assert seen("1", 0, "train", 1) == {1, 2} and seen("1", 0, "test", 1) == {3}
    assert seen("2", 0, "train", 3, live=False) == {2, 4} and seen("2", 0, "test", 3, live=False) == {3, 5}
    assert seen("3", 2, "dev", 0) == {1, 3, 4, 5, 6} and seen("3", 2, "test", 0) == {2}
    assert (seen("4", 1, "test", 0), seen("4", 1, "test", 1), seen("4", 1, "test", 3)) == ({1}, {3}, {1, 3, 5})


def test_oulu_codes_lists_and_mistakes(oulu: Path, tmp_path: Path) -> None:
    row = read("oulu_npu", oulu)["Train_files/6_2_07_4.avi"]
    assert values(row) == (0.0, "07", "replay_1", "2", "6", "train", "oulu_npu")
    small = tree(tmp_path, [f"Train_files/1_1_01_{file}.avi" for file in range(1, 6)])
    lists = tmp_path / "Protocols" / "Protocol_3"
    lists.mkdir(parents=True)
    for split, text in (("Train", "+1,1_1_01_1\n-1,1_1_01_2\n"), ("Dev", "-2,1_1_01_4"), ("Test", "-2,1_1_01_5\n")):
        (lists / f"{split}_2.txt").write_text(text)
    splits = [row.split for row in read("oulu_npu", small, protocol="3", fold=2).values()]
    assert splits == ["train", "train", "unused", "dev", "test"], "the lists decide where they are"
    for options, message in (
        ({"protocol": "3"}, "needs --fold"),
        ({"fold": 2}, "no --fold"),
        ({"protocol": "5"}, "has 1, 2"),
    ):
        with pytest.raises(UserError, match=message):
            read("oulu_npu", small, **options)
    (lists / "Dev_2.txt").unlink()
    with pytest.raises(UserError, match="Dev_2.txt"):
        read("oulu_npu", small, protocol="3", fold=2)


def test_casia_fasd(tmp_path: Path) -> None:
    files = [*map(str, range(1, 9)), *(f"HR_{n}" for n in range(1, 5))]
    names = [
        f"{split}_release/{person}/{file}.avi" for split in ("train", "test") for person in (1, 2) for file in files
    ]
    rows = read("casia_fasd", tree(tmp_path, names))
    assert len(rows) == len(names) and sum(row.label for row in rows.values()) == 12
    assert values(rows["train_release/1/3.avi"]) == (0.0, "train-1", "warped_photo", "", "low", "train", "casia_fasd")
    assert values(rows["test_release/1/HR_4.avi"]) == (0.0, "test-1", "video", "", "high", "test", "casia_fasd")
    assert (rows["test_release/2/6.avi"].attack_type, rows["test_release/2/6.avi"].device) == ("cut_photo", "normal")
    assert len({row.subject for row in rows.values()}) == 4, "person 1 of train is not person 1 of test"


def test_msu_mfsd(tmp_path: Path) -> None:
    names = [
        "scene01/real/real_client001_android_SD_scene01.mp4",
        "scene01/attack/attack_client003_laptop_SD_ipad_video_scene01.mov",
        "scene01/attack/attack_client005_android_SD_printed_photo_scene01.mp4",
    ]
    with pytest.raises(UserError, match="train_sub_list.txt"):
        read("msu_mfsd", tree(tmp_path, names))
    (tmp_path / "train_sub_list.txt").write_text("01\n")
    (tmp_path / "test_sub_list.txt").write_text("03 07")
    rows = read("msu_mfsd", tmp_path)
    assert [values(rows[name])[:6] for name in names] == [
        (1.0, "001", "live", "scene01", "android", "train"),
        (0.0, "003", "ipad_video", "scene01", "laptop", "test"),
        (0.0, "005", "printed_photo", "scene01", "android", "unused"),
    ]


def test_siw(tmp_path: Path) -> None:
    names = ["Train/live/003/003-1-1-1-2.mov", "Test/spoof/091/091-2-3-4-1.mp4", "Test/spoof/092/092_1_2_2_1.mov"]
    rows = read("siw", tree(tmp_path, names))
    assert [values(rows[name]) for name in names] == [
        (1.0, "003", "live", "2", "canon_eos_t6", "train", "siw"),
        (0.0, "091", "replay_4", "1", "logitech_c920", "test", "siw"),
        (0.0, "092", "print_2", "1", "canon_eos_t6", "test", "siw"),
    ]


@pytest.mark.parametrize("above", ["", "SiW", "data/SiW_release"])
@pytest.mark.parametrize("folders", [("Train", "Test"), ("train", "TEST")])
def test_siw_keeps_its_splits_from_wherever_it_is_imported(
    above: str, folders: tuple[str, str], tmp_path: Path
) -> None:
    names = [f"{folders[0]}/live/003/003-1-1-2-1.mov", f"{folders[1]}/spoof/091/091-2-3-4-1.mov"]
    rows = read("siw", tree(tmp_path, [f"{above}/{name}".lstrip("/") for name in names]))
    assert sorted(row.split for row in rows.values()) == ["test", "train"]


@pytest.mark.parametrize("above", ["", "a", "some/where"])
@pytest.mark.parametrize(
    ("layout", "names", "splits"),
    [
        (
            "replay_attack",
            ["devel/real/client001_session01_webcam_authenticate_adverse_1.mov",
             "train/attack/fixed/attack_print_client009_session01_highdef_photo_adverse.mov"],
            {"dev", "train"},
        ),
        ("casia_fasd", ["train_release/1/1.avi", "test_release/2/HR_4.avi"], {"train", "test"}),
        ("oulu_npu", ["Train_files/1_1_01_1.avi", "Test_files/1_3_40_2.avi"], {"train", "test"}),
        ("class_folders", ["train/real/a.mp4", "valid/fake/b.mp4", "Testing/fake/c.mp4"], {"train", "dev", "test"}),
    ],
)  # fmt: skip
def test_splits_do_not_depend_on_the_folder_above(
    layout: str, names: list[str], splits: set[str], above: str, tmp_path: Path
) -> None:
    root = tree(tmp_path / above, names)
    (root / "extra").mkdir(exist_ok=True)
    where = root if layout == "class_folders" else tmp_path
    assert {row.split for row in read(layout, where).values()} == splits


def test_official_folders_that_give_no_split_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"folders of official splits \(train_videos\), and no video of them got a split"
    ):
        read("siw", tree(tmp_path, ["train_videos/live/003/003-1-1-2-1.mov"]))


def test_class_folders_below_folders_of_splits(tmp_path: Path) -> None:
    """They used to be taken for classes: `--live train` made all of train live."""
    names = [f"{split}/{kind}/p{n}.mp4" for split in ("train", "valid") for kind in ("real", "fake") for n in (0, 1)]
    rows = read("class_folders", tree(tmp_path, names))
    assert {(row.label, row.attack_type, row.split) for row in rows.values()} == {
        (1.0, "live", "train"), (0.0, "fake", "train"), (1.0, "live", "dev"), (0.0, "fake", "dev"),
    }  # fmt: skip
    with pytest.raises(UserError, match="in none of a class"):
        read("class_folders", tree(tmp_path, ["train/p9.mp4"]))


def test_tables_as_people_write_them(tmp_path: Path) -> None:
    """Blanks in the header and a quoted comma keep their columns; a doubled column is refused."""
    path = tmp_path / "t.csv"
    path.write_text('fname, liveness_score, "note, free", subject\na.mp4,1,"x, y",p1\nb.mp4,0,, p2\n')
    rows = read("table", path)
    assert [(row.video, row.label, row.subject) for row in rows.values()] == [("a.mp4", 1, "p1"), ("b.mp4", 0, "p2")]
    path.write_text("fname,liveness_score,liveness_score\na.mp4,1,0\n")
    with pytest.raises(UserError, match="'liveness_score' appears twice"):
        read("table", path)
    parquet.write_table(pa.table({"fname": ["a"], "liveness_score": [1], "boxes": [[1, 2]]}), tmp_path / "t.parquet")
    assert len(read("table", tmp_path / "t.parquet")) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_people_as_people_keep_them(encoding: str, tmp_path: Path) -> None:
    names = [f"scene01/real/real_client{n:03d}_android_SD_scene01.mp4" for n in (1, 2, 3)]
    root = tree(tmp_path, names)
    (root / "train_sub_list.txt").write_text("client001,\r\n 02;\r\n\r\n", encoding=encoding)
    (root / "test_sub_list.txt").write_text("03,", encoding=encoding)
    assert [row.split for row in read("msu_mfsd", root).values()] == ["train", "train", "test"]
    (root / "test_sub_list.txt").write_text("three")
    with pytest.raises(UserError, match=r"test_sub_list.txt: 'three' is not a person's number"):
        read("msu_mfsd", root)
    (root / "test_sub_list.txt").write_bytes(b"\x80\x81")
    with pytest.raises(UserError, match=r"test_sub_list.txt: is no UTF-8 text"):
        read("msu_mfsd", root)


@pytest.mark.parametrize("layout", ["replay_attack", "oulu_npu", "casia_fasd", "siw"])
def test_another_layout_is_told_with_what_was_looked_for(tmp_path: Path, layout: str) -> None:
    with pytest.raises(UserError, match="no video there has a name like"):
        read(layout, tree(tmp_path, ["some/clip.mp4"]))


def test_class_folders(tmp_path: Path) -> None:
    tree(tmp_path, ["Live/ann/1.mp4", "print/ann/1.mp4", "mask/bob/x.mov"])
    rows = read("class_folders", tmp_path, subject_pattern="^[^/]+/([^/]+)/")
    assert [values(row)[:3] for row in rows.values()] == [
        (1.0, "ann", "live"),
        (0.0, "bob", "mask"),
        (0.0, "ann", "print"),
    ]
    assert {row.domain for row in rows.values()} == {""}
    assert read("class_folders", tmp_path, live=("mask",))["mask/bob/x.mov"].label == 1
    for options, message in (
        ({"live": ("person",)}, "name it with --live"),
        ({"subject_pattern": "("}, "no regular expression"),
        ({"subject_pattern": "a"}, "has no group"),
        ({"subject_pattern": "(zoe)"}, "finds no person in Live/ann/1.mp4"),
        ({"subject_pattern": "(ann)|bob"}, "finds no person in mask/bob/x.mov"),
        ({"subject_pattern": "(x*)"}, "finds no person in Live/ann/1.mp4"),
        ({"protocol": "1"}, "--protocol has no effect with class_folders"),
    ):
        with pytest.raises(UserError, match=message):
            read("class_folders", tmp_path, **options)


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('path,spoof,who,domain\n"a,b.mp4",1,007,x\nc.mp4,0.25,8,\n')
    columns = {"video": "path", "label": "spoof", "subject": "who"}
    rows = read("table", tmp_path / "t.csv", columns=columns, invert=True)
    assert [values(row) for row in rows.values()] == [
        (0.0, "007", "", "", "", "", "x"),
        (0.75, "8", "", "", "", "", ""),
    ]
    parquet.write_table(
        pa.table({"fname": ["a", "b"], "liveness_score": [1, 0], "device": ["d", None]}), tmp_path / "t.parquet"
    )
    assert [(r.label, r.device) for r in read("table", tmp_path / "t.parquet").values()] == [(1.0, "d"), (0.0, "")]
    for given, message in (({"label": "nope"}, "no column 'nope'"), ({"lable": "spoof"}, "lable=…: no such field")):
        with pytest.raises(UserError, match=message):
            read("table", tmp_path / "t.csv", columns=columns | given)
    (tmp_path / "w.csv").write_text("fname,liveness_score\na,spoof\nb,maybe\n")
    with pytest.raises(UserError, match="line 3: liveness_score is 'maybe'"):
        read("table", tmp_path / "w.csv")
    with pytest.raises(UserError, match="no such file"):
        read("table", tmp_path / "none.csv")


def test_zalo_leaves_its_unlabelled_test_folder_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("train/videos/1.mp4", "train/videos/2.mp4", "public_test/videos/9.mp4")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(clips.video(seed=seed))
    (tmp_path / "train" / "label.csv").write_text("fname,liveness_score\n1.mp4,1\n2.mp4,0\n")
    label, out = tmp_path / "label.csv", tmp_path / "out"
    assert cli.main(["import", "zalo", str(tmp_path), "--out", str(label)]) == 0
    shown = capsys.readouterr().out
    assert "1 other videos" in shown and "public_test/videos/9.mp4" in shown
    build = ["build", "--videos", str(tmp_path), "--labels", str(label), "--out", str(out), "--workers", "1"]
    build += ["--fractions", "0.5,0,0.5"]
    assert cli.main(build) == 2 and "--skip-unlabelled" in capsys.readouterr().err
    assert shown.splitlines()[-1].endswith("--skip-unlabelled") and cli.main([*build, "--skip-unlabelled"]) == 0
    rows = index_table.read(out / "index.arrow").to_pylist()
    assert {(row["video"], row["label"], row["domain"]) for row in rows} == {
        ("train/videos/1.mp4", 1.0, "zalo"),
        ("train/videos/2.mp4", 0.0, "zalo"),
    }


@pytest.fixture(scope="module")
def nuaa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw tree of two people: sequences of 9 pictures in two sessions, live and printed, and the official lists."""
    root = tmp_path_factory.mktemp("nuaa") / "raw"
    lists: dict[str, list[str]] = {}
    for kind, folder in (("client", "ClientRaw"), ("imposter", "ImposterRaw")):
        for person, session, picture in itertools.product(("0001", "0002"), ("01", "03"), range(9)):
            name = f"{person}_00_05_{session}_{picture}.jpg"
            path = root / folder / person / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((48, 64, 3), 25 * picture, np.uint8)
            Image.fromarray(pixels).save(path, quality=90)
            lists.setdefault(f"{kind}_{'test' if session == '03' else 'train'}_raw", []).append(f"{person}\\{name}")
    for name, entries in lists.items():
        (root / f"{name}.txt").write_text("\r\n".join(entries))
    return root


def test_nuaa_raw_writes_clips_of_the_pictures_own_bytes(nuaa: Path, tmp_path: Path) -> None:
    rows = read("nuaa_raw", nuaa, clips=tmp_path, clip_frames=4)
    assert len(rows) == 2 * 2 * 2 * 2, "4 + 4 pictures of 9; the last one is less than half a clip"
    row = rows["imposter_0002_00_05_03_001.avi"]
    assert values(row) == (0.0, "0002", "print", "03", "light05", "", "nuaa")
    data = (tmp_path / row.video).read_bytes()
    facts = probe(data)
    assert (facts.num_frames, facts.width, facts.height, facts.codec, facts.fps) == (4, 64, 48, "mjpeg", 20)
    for picture in range(4, 8):
        assert (nuaa / "ImposterRaw" / "0002" / f"0002_00_05_03_{picture}.jpg").read_bytes() in data


def test_nuaas_official_split_leaks_and_must_be_allowed(
    nuaa: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label, videos = tmp_path / "label.csv", tmp_path / "clips"
    arguments = ["import", "nuaa_raw", str(nuaa), "--out", str(label), "--clips", str(videos), "--clip-frames", "9"]
    assert cli.main([*arguments, "--protocol", "official"]) == 0
    with label.open() as file:
        assert Counter(row["split"] for row in csv.DictReader(file)) == {"train": 4, "test": 4}
    build = ["build", "--videos", str(videos), "--labels", str(label), "--out", str(tmp_path / "s"), "--workers", "1"]
    assert cli.main(build) == 2 and "--allow-leak" in capsys.readouterr().err
    assert cli.main([*build, "--allow-leak"]) == 0


def test_nuaa_raw_mistakes(nuaa: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--clips DIR"):
        read("nuaa_raw", nuaa)
    with pytest.raises(UserError, match="has no ClientRaw"):
        read("nuaa_raw", tmp_path, clips=tmp_path)
    odd = tmp_path / "ClientRaw" / "0001"
    for folder in (odd, tmp_path / "ImposterRaw" / "0001"):
        folder.mkdir(parents=True)
        for number in range(2):
            buffer = io.BytesIO()
            Image.new("RGB", (32 + 16 * number, 32)).save(buffer, format="JPEG")
            (folder / f"0001_00_00_01_{number}.jpg").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="different sizes"):
        read("nuaa_raw", tmp_path, clips=tmp_path / "c", clip_frames=2)
    (odd / "0001_00_00_01_0.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match="no readable JPEG"):
        read("nuaa_raw", tmp_path, clips=tmp_path / "c", clip_frames=2)


@pytest.mark.skipif(not NUAA.exists(), reason="shared/data/nuaa is not beside the project")
def test_the_clip_set_beside_the_project(tmp_path: Path) -> None:
    label = tmp_path / "label.csv"
    assert cli.main(["import", "table", str(NUAA / "label.csv"), "--out", str(label), "--domain", "nuaa"]) == 0
    from shards.labels import read_labels
    from shards.videos import find_videos

    rows = read_labels(label, find_videos(NUAA / "videos")).rows
    assert len(rows) == 796 and sum(row.is_live for row in rows) == 404
    assert len({row.identity for row in rows}) == 11 and {row.domain for row in rows} == {"nuaa"}
    assert {row.attack_type for row in rows} == {"live", "print"} and all(row.session for row in rows)


def test_rose_youtu(tmp_path: Path) -> None:
    names = ["2/G_NT_5s_wg_B_2_1.mp4", "13/Mu_T_HS_g_E_13_120.mp4", "2/Vl_T_ZTE_wg_C_2_33.mp4", "2/other.mp4"]
    rows = read("rose_youtu", tree(tmp_path, names))
    assert [values(rows[name]) for name in names[:3]] == [
        (1.0, "2", "live", "B", "5s", "", "rose_youtu"),
        (0.0, "13", "mask_upper", "E", "hs", "", "rose_youtu"),
        (0.0, "2", "replay_lenovo", "C", "zte", "", "rose_youtu"),
    ]
    assert importers.without_row(tmp_path, list(rows.values())) == names[3:]


def test_siw_mv2_does_not_say_who_it_is(tmp_path: Path) -> None:
    names = ["Live/Live_12.mov", "Spoof/Mask_HalfMask/Mask_Half_3.mov", "Spoof/Paper/Paper_1.mov"]
    rows = read("siw_mv2", tree(tmp_path, names))
    assert [values(rows[name])[:3] for name in names] == [
        (1.0, "", "live"), (0.0, "", "mask_halfmask"), (0.0, "", "print")
    ]  # fmt: skip
    assert "of unknown people" in importers.summary(list(rows.values()))


def picture(path: Path, value: int, size: tuple[int, int] = (32, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def test_hifimask_as_videos_and_its_protocols(tmp_path: Path) -> None:
    names = ["Data/1_01_0_1_1_1.mp4", "Data/1_01_3_6_0_8.mp4", "Data/3_70_1_2_4_6.mp4"]
    root = tree(tmp_path, names)
    rows = read("hifimask", root)
    assert [values(rows[name]) for name in names] == [
        (1.0, "1-01", "live", "scene1-light1", "iphone11", "", "hifimask"),
        (0.0, "1-01", "mask_resin", "scene6-light0", "hjim", "", "hifimask"),
        (0.0, "3-70", "mask_transparent", "scene2-light4", "vivo", "", "hifimask"),
    ]
    with pytest.raises(UserError, match=r"has no \*@p2\.1_video_train\.txt"):
        read("hifimask", root, protocol="p2.1")
    for split, name in (("train", "1_01_0_1_1_1"), ("dev", "3_70_1_2_4_6"), ("test", "")):
        (root / f"CASIA_HiFiMask@p2.1_video_{split}.txt").write_text(f"Data/{name} 1\n" if name else "")
    assert [read("hifimask", root, protocol="p2.1")[name].split for name in names] == ["train", "unused", "dev"]
    with pytest.raises(UserError, match="--protocol p9: this layout has none, p1"):
        read("hifimask", root, protocol="p9")


def test_pictures_become_clips_and_jpeg_files_stay_as_they_are(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "clips"
    for number in (1, 2, 10):
        picture(root / "Data" / "2_30_2_5_2_3" / f"{number:04d}.png", 20 * number)
    with pytest.raises(UserError, match="hifimask holds pictures, no videos: .* with --clips DIR"):
        read("hifimask", root)
    rows = read("hifimask", root, clips=out)
    assert values(rows["2_30_2_5_2_3.avi"])[:3] == (0.0, "2-30", "mask_plaster")
    facts = probe((out / "2_30_2_5_2_3.avi").read_bytes())
    assert (facts.num_frames, facts.width, facts.height) == (3, 32, 24)
    (root / "Data" / "2_30_2_5_2_4").mkdir()
    with pytest.raises(UserError, match="2_30_2_5_2_4: holds no JPEG or PNG picture"):
        read("hifimask", root, clips=out)


def test_casia_surf(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "clips"
    files = [picture(root / f"Training/real_part/CLKJ_AS0005/real.rssdk/color/{n}.jpg", n) for n in (2, 11)]
    picture(root / "Training/real_part/CLKJ_AS0005/real.rssdk/depth/2.jpg", 9)
    picture(root / "Training/fake_part/CLKJ_AS0007/04_en_b.rssdk/color/1.jpg", 50)
    picture(root / "Val/0001/000001-color.jpg", 50)
    rows = read("casia_surf", root, clips=out)
    assert {name: values(row)[:3] for name, row in rows.items()} == {
        "real_CLKJ_AS0005_real.avi": (1.0, "CLKJ_AS0005", "live"),
        "fake_CLKJ_AS0007_04_en_b.avi": (0.0, "CLKJ_AS0007", "print_en_b"),
    }
    data = (out / "real_CLKJ_AS0005_real.avi").read_bytes()
    assert 0 < data.index(files[0].read_bytes()) < data.index(files[1].read_bytes()), "in order, byte for byte"
    with pytest.raises(UserError, match="or no Training/fake_part"):
        read("casia_surf", root / "Training" / "real_part", clips=out)


def recording(path: Path, frames: np.ndarray) -> None:
    """A file of WMCA: frames uint8 [F, …], each a group."""
    h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'livetrain[wmca]'")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number, frame in enumerate(frames):
            file.create_group(f"Frame_{number}")["array"] = frame


def test_wmca(tmp_path: Path) -> None:
    root, out = tmp_path / "WMCA" / "face-station", tmp_path / "clips"
    frames = np.zeros((11, 3, 24, 32), np.uint8)
    frames[:, 0] = 20 * np.arange(11)[:, None, None]
    recording(root / "31.01.18" / "035_01_000_0_01.hdf5", frames)
    last = np.moveaxis(frames, 1, 3)
    for name in ("514_01_035_1_05", "514_02_035_1_02", "505_01_000_2_06", "001_01_000_2_09", "098_03_000_3_15"):
        recording(root / "01.02.18" / f"{name}.hdf5", last)
    rows = read("wmca", root.parent, clips=out)
    assert {name: values(row)[:4] for name, row in rows.items()} == {
        "31.01.18_035_01_000_0_01.avi": (1.0, "035", "live", "01"),
        "01.02.18_514_01_035_1_05.avi": (0.0, "035", "glasses", "01"),
        "01.02.18_514_02_035_1_02.avi": (0.0, "514", "rigid_mask", "02"),
        "01.02.18_505_01_000_2_06.avi": (0.0, "505", "fake_head", "01"),
        "01.02.18_001_01_000_2_09.avi": (0.0, "001", "paper_mask", "01"),
        "01.02.18_098_03_000_3_15.avi": (0.0, "098", "replay", "03"),
    }
    for name in ("31.01.18_035_01_000_0_01.avi", "01.02.18_514_01_035_1_05.avi"):
        shown = decode_video((out / name).read_bytes(), np.arange(11), 11)
        red = shown[..., 0].mean(axis=(1, 2))
        assert shown.shape == (11, 24, 32, 3) and np.abs(red - 20 * np.arange(11)).max() < 6, "in order: 2 before 10"
    recording(root / "01.02.18" / "505_01_000_7_06.hdf5", last)
    with pytest.raises(UserError, match=r"505_01_000_7_06.hdf5: of type 7; WMCA has 0 to 5"):
        read("wmca", root, clips=out)
    (root / "01.02.18" / "505_01_000_7_06.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match=r"505_01_000_7_06.hdf5: cannot be read"):
        read("wmca", root, clips=out)
    with pytest.raises(UserError, match=r"has no file like face-station/31.01.18"):
        read("wmca", tmp_path / "clips", clips=out)


def test_celeba_spoof(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "clips"
    names = ["Data/train/10/live/000001.jpg", "Data/train/10/spoof/000002.png", "Data/test/77/spoof/000003.jpg"]
    for number, name in enumerate(names):
        picture(root / "CelebA_Spoof" / name, number)
    numbers = {names[0]: [0] * 43, names[1]: [*[0] * 40, 8, 2, 1]}
    meta = root / "CelebA_Spoof" / "metas" / "intra_test" / "train_label.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps(numbers))
    rows = read("celeba_spoof", root, clips=out)
    assert {name: values(row) for name, row in rows.items()} == {
        "train_10_live_000001.avi": (1.0, "10", "live", "light0-place0", "", "train", "celeba_spoof"),
        "train_10_spoof_000002.avi": (0.0, "10", "replay_pad", "light2-place1", "", "train", "celeba_spoof"),
        "test_77_spoof_000003.avi": (0.0, "77", "attack", "", "", "test", "celeba_spoof"),
    }
    assert probe((out / "train_10_spoof_000002.avi").read_bytes()).num_frames == 1
    meta.write_text(json.dumps({names[0]: [0] * 40 + [99, 0, 0]}))
    with pytest.raises(UserError, match=r"train_label\.json: damaged .*a type at place 40"):
        read("celeba_spoof", root, clips=out)
