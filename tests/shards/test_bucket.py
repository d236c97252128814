"""Videos in a bucket, shards into a bucket: a local build's bytes, whatever fails; nothing is seen before its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from livetrain.core import remote
from livetrain.core.errors import UserError
from livetrain.core.remote import Remote, Url
from livetrain.data import Dataset
from shards import bucket, cli, shard_writer, videos
from shards.verify import verify
from tests import servers
from tests.shards import clips


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.corpus(tmp_path_factory.mktemp("corpus") / "c", clips_per_person=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def url(tmp_path: Path) -> Url:
    """A "bucket" on the disk, through fsspec as any other."""
    (tmp_path / "bucket").mkdir()
    return Url(f"file://{tmp_path}/bucket")


def build(corpus: Path, out: object, *more: object, videos: object = None) -> int:
    words = ["build", "--videos", videos or corpus / "videos", "--labels", corpus / "label.csv", "--out", out]
    return cli.main([*map(str, words), "--shard-mb", "0.02", "--workers", "1", *map(str, more)])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_bytes_are_those_of_a_local_build(corpus: Path, url: Url, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "here") == 0
    assert build(corpus, url, "--staging", tmp_path / "staging") == 0
    assert content(tmp_path / "bucket") == content(tmp_path / "here")
    assert not (tmp_path / "staging").exists()


def test_videos_of_a_bucket_are_those_of_the_folder(corpus: Path, tmp_path: Path) -> None:
    assert build(corpus, tmp_path / "here") == 0
    assert build(corpus, tmp_path / "there", videos=f"file://{corpus}/videos/") == 0
    assert content(tmp_path / "there") == content(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_s3_in_and_out(workers: int, corpus: Path, tmp_path: Path) -> None:
    boto3 = pytest.importorskip("boto3")
    assert build(corpus, tmp_path / "here") == 0
    with servers.s3("shards"):
        client = boto3.client("s3")
        for path in (corpus / "videos").iterdir():
            client.upload_file(str(path), "shards", f"in/{path.name}")
        assert build(corpus, "s3://shards/out", "--workers", workers, videos="s3://shards/in") == 0
        found = Dataset.open("s3://shards/out")
        here = Dataset.open(tmp_path / "here")
        assert found.columns.equals(here.columns)
        assert all(found.video_bytes(row) == here.video_bytes(row) for row in range(len(here)))
        assert build(corpus, "s3://shards/out", videos="s3://shards/in") == 0, "nothing to do"
        assert cli.main(["verify", "s3://shards/out", "--workers", str(workers), "--thorough"]) == 0


def failing(monkeypatch: pytest.MonkeyPatch, name: str, faults: list[Any]) -> list[str]:
    """The next calls of Remote's file system's `name` meet these faults: exceptions, or functions in their place."""
    made, calls = remote._file_system, list[str]()

    def patched(url: Url) -> tuple[Any, str]:
        files, root = made(url)
        real = getattr(files, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(str(arguments[-1]))
            fault = faults.pop(0) if faults else None
            if isinstance(fault, Exception):
                raise fault
            return fault(real, *arguments) if fault else real(*arguments, **options)

        setattr(files, name, call)
        return files, root

    monkeypatch.setattr(remote, "_file_system", patched)
    for cached in (bucket.bucket_of, videos.remote_of):
        cached.cache_clear()
    return calls


def cut(real: Any, source: str, target: str) -> None:
    """Half of the file arrives, and no error."""
    half = Path(source).with_suffix(".half")
    half.write_bytes(Path(source).read_bytes()[:-100])
    real(str(half), target)
    half.unlink()


def test_uploads_that_fail_and_arrive_cut_are_sent_again(
    corpus: Path, url: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(corpus, tmp_path / "here") == 0
    failing(monkeypatch, "put_file", [OSError("503 Slow Down"), cut, None, cut, TimeoutError()])
    assert build(corpus, url) == 0
    assert content(tmp_path / "bucket") == content(tmp_path / "here")
    said = capsys.readouterr().err
    assert said.count("503 Slow Down; again in") == 1 and said.count("bytes arrived of") == 2


def test_downloads_of_videos_that_fail_are_repeated(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(corpus, tmp_path / "here") == 0
    calls = failing(monkeypatch, "cat_file", [OSError("reset"), TimeoutError(), None, OSError("reset")])
    assert build(corpus, tmp_path / "there", videos=f"file://{corpus}/videos") == 0
    assert content(tmp_path / "there") == content(tmp_path / "here") and len(calls) > 4


def test_a_video_that_cannot_be_had_is_rejected_with_its_reason(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, "cat_file", [PermissionError("403")])
    assert build(corpus, tmp_path / "out", videos=f"file://{corpus}/videos") == 0
    assert "access denied" in (tmp_path / "out" / "rejected.csv").read_text()


def test_a_stopped_build_goes_on_and_is_not_seen_before_its_end(
    corpus: Path, url: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(corpus, tmp_path / "here") == 0
    write, done = shard_writer.write_shard, []

    def stop(task: shard_writer.ShardTask) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.number)
        return write(task)

    with monkeypatch.context() as patch:
        patch.setattr("shards.build.write_shard", stop)
        assert build(corpus, url) == cli.EXIT_INTERRUPTED
    there = sorted(path.name for path in (tmp_path / "bucket").iterdir())
    assert len(there) == 4 and "dataset.json" not in there
    assert not list(bucket.staging_folder(url).glob("*.tar")), "a shard that is uploaded takes no disk here"
    (tmp_path / "bucket" / there[1]).unlink()  # a finished shard that somebody removed
    assert build(corpus, url) == 0
    assert "continuing a stopped build: 1 of" in capsys.readouterr().err
    assert content(tmp_path / "bucket") == content(tmp_path / "here")


def test_a_build_that_is_killed_while_it_is_published_is_published(
    corpus: Path, url: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(corpus, tmp_path / "here") == 0
    put = bucket.Bucket.put

    def stop(self: bucket.Bucket, path: Path) -> None:
        if path.name == "dataset.json":
            raise KeyboardInterrupt
        put(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(bucket.Bucket, "put", stop)
        assert build(corpus, url) == cli.EXIT_INTERRUPTED
    assert not (tmp_path / "bucket" / "dataset.json").exists()
    assert build(corpus, url) == 0
    assert content(tmp_path / "bucket") == content(tmp_path / "here")


def test_another_build_is_refused_and_replaced_when_asked(
    corpus: Path, url: Url, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(corpus, url, "--shard-mb", "0.01") == 0
    before = {row["video"]: row["split"] for row in Dataset.open(url).columns.select(["video", "split"]).to_pylist()}
    assert build(corpus, url, "--seed", 5) == 2
    assert "holds a build of other options (seed, shard_mb)" in capsys.readouterr().err.replace(
        "(shard_mb, seed)", "(seed, shard_mb)"
    )
    assert build(corpus, url, "--seed", 5, "--overwrite") == 0
    after = {row["video"]: row["split"] for row in Dataset.open(url).columns.select(["video", "split"]).to_pylist()}
    assert after == before, "who has a split keeps it"
    stated = {shard["name"] for shard in json.loads((tmp_path / "bucket" / "dataset.json").read_text())["shards"]}
    assert {path.name for path in (tmp_path / "bucket").glob("*.tar")} == stated, "no shard of the build before is left"
    assert "videos keep the split of file://" in capsys.readouterr().err


def test_verify_of_a_bucket_finds_what_verify_of_the_folder_finds(
    corpus: Path, url: Url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(corpus, url) == 0
    there, empty = tmp_path / "bucket", Url(f"{url}/none")
    failing(monkeypatch, "cat_file", [OSError("reset"), TimeoutError()])
    for workers in ("1", "2"):
        assert cli.main(["verify", url, "--workers", workers, "--thorough"]) == 0
    assert f"{url}: all as it was built" in capsys.readouterr().out
    names = sorted(path.name for path in there.glob("*.tar"))
    damaged = bytearray((there / names[0]).read_bytes())
    damaged[700] ^= 1
    (there / names[0]).write_bytes(damaged)
    (there / names[1]).unlink()
    (there / "rejected.csv").unlink()
    (there / "shard-000099.tar").write_bytes(b"")
    found = verify(url)
    assert found == verify(there) and len(found) >= 4, found
    assert cli.main(["verify", empty]) == 2
    assert f"{empty}: no dataset.json there" in capsys.readouterr().err
    (there / "dataset.json").write_text("{}")
    assert verify(url) == verify(there) and "damaged" in verify(url)[0]


def test_verify_calls_nothing_damaged_that_it_could_not_read(
    corpus: Path, url: Url, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(corpus, url) == 0
    failing(monkeypatch, "info", [None, None, PermissionError("403")])
    assert cli.main(["verify", url, "--workers", "1"]) == 2
    said = capsys.readouterr()
    assert "access denied" in said.err and "damage" not in said.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "https://host/out"], "files cannot be written there; give s3:// or gs://"),
        (["--out", "URL", "--append"], "--part and --append need a local --out"),
        (["--out", "here", "--staging", "x"], "--staging has no effect without --out URL"),
        (["--out", "here", "--videos", "URL/none"], "holds no video"),
    ],
)
def test_mistakes(
    words: list[str], says: str, corpus: Path, url: Url, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = ["build", "--videos", str(corpus / "videos"), "--labels", str(corpus / "label.csv")]
    assert cli.main([*given, *(word.replace("URL", url) for word in words)]) == 2
    assert says in capsys.readouterr().err


def test_a_listing_names_what_is_below(url: Url, tmp_path: Path) -> None:
    (tmp_path / "bucket" / "sub").mkdir()
    for name in ("b.mp4", "sub/a.MOV", "sub/.hidden.mp4", "notes.txt"):
        (tmp_path / "bucket" / name).write_text("x")
    assert videos.find(url) == ["b.mp4", "sub/a.MOV"]
    before = videos.Video(url, "b.mp4").stamp()
    shutil.copy(tmp_path / "bucket" / "notes.txt", tmp_path / "bucket" / "b.mp4")
    (tmp_path / "bucket" / "b.mp4").write_text("another")
    videos.find(url)
    assert videos.Video(url, "b.mp4").stamp() != before and videos.Video(url, "b.mp4").size() == 7
    assert Remote(Url(f"{url}/nothing"), 0).listing() == {}
    with pytest.raises(UserError, match="holds no video"):
        videos.find(Url(f"{url}/nothing"))


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    for cached in (bucket.bucket_of, bucket.sizes_at_start, videos.remote_of, videos._listing):
        cached.cache_clear()
