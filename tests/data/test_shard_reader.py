"""Shards behind a URL: the same bytes and batches as from a disk, whatever the server does; downloaded once a node."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livetrain.config import Config, load_config
from livetrain.core import entrypoint, files, remote
from livetrain.core.errors import UserError
from livetrain.data import Dataset, FetchError, shard_reader
from livetrain.data.clip_pictures import pictures_of
from livetrain.data.loader_stages import Stages
from shards import cli
from tests import servers
from tests.data.test_loader import assert_same_steps, make_config, make_loader, read, steps_of
from tests.servers import FileServer

MB = 1e-3  # in GB
REPO = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small blocks, so that a small shard has several; no waits between attempts; a cache of the test's own."""
    monkeypatch.setattr(remote, "BLOCK_BYTES", 100_000)
    monkeypatch.setattr(remote, "BACKOFF_SECONDS", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def shards(demo_shards: Path, tmp_path: Path) -> Path:
    """A copy of the demo shards: what the server has."""
    shutil.copytree(demo_shards, tmp_path / "served")
    return tmp_path / "served"


@pytest.fixture
def server(shards: Path) -> Iterator[FileServer]:
    with servers.serve(shards) as running:
        yield running


@pytest.fixture
def config(server: FileServer, tmp_path: Path) -> Config:
    config = make_config(Path("unused"))
    config.data.shards, config.data.cache_dir, config.data.cache_gb = server.url, str(tmp_path / "cache"), 1.0
    return config


def open_remote(config: Config) -> Dataset:
    return Dataset.open(config.data.shards, config.data)


def names(cache: Path, suffix: str) -> list[str]:
    """Files of the cache that end so, the digests before their names removed."""
    ours = [path.name.split("-", 2) for path in cache.iterdir() if path.name.endswith(suffix)]
    return sorted(parts[2] for parts in ours if len(parts) == 3)


def cached(config: Config) -> list[str]:
    return names(Path(config.data.cache_dir), ".tar")


def shard_names(shards: Path) -> list[str]:
    return [shard["name"] for shard in json.loads((shards / "dataset.json").read_text())["shards"]]


def once_each(shards: Path) -> dict[str, int]:
    """Requests for each shard when it is downloaded once, block by block."""
    return {name: -(-(shards / name).stat().st_size // remote.BLOCK_BYTES) for name in shard_names(shards)}


def first_rows(dataset: Dataset) -> list[int]:
    """The first row of each shard."""
    return np.unique(dataset.column("shard"), return_index=True)[1].tolist()


def assert_same_bytes(one: Dataset, other: Dataset) -> None:
    assert len(one) == len(other)
    assert all(one.video_bytes(row) == other.video_bytes(row) for row in range(len(one)))


# --- what is fetched is what is there ---------------------------------------------------------------------------------


def test_every_shard_is_downloaded_once_and_checked(config: Config, server: FileServer, demo_shards: Path) -> None:
    local, dataset = Dataset.open(demo_shards), open_remote(config)
    assert_same_bytes(dataset, local)
    assert dataset.columns.equals(local.columns) and dataset.rejected() == local.rejected()
    assert pictures_of(dataset, 0, (0, 3)) == pictures_of(local, 0, (0, 3))
    per_block = Counter(server.shards_asked_for())
    assert per_block == once_each(demo_shards)
    again = open_remote(config)
    assert_same_bytes(again, local)
    assert Counter(server.shards_asked_for()) == per_block and server.requests.count("index.arrow") == 1
    assert cached(config) == shard_names(demo_shards) and not names(Path(config.data.cache_dir), ".part")


def test_the_share_of_reads_from_the_cache_is_measured(config: Config, demo_shards: Path) -> None:
    dataset = open_remote(config)
    stages = Stages(dataset.cache_reads)
    row = first_rows(dataset)[0]
    for _ in range(4):
        dataset.video_bytes(row)
    assert dataset.cache_reads() == (4, 3) and stages.read() == {"loader_cache_hits": 0.75}
    assert stages.read() == {}
    loader = make_loader(config)
    read(loader)
    assert 0 < loader.stages.read()["loader_cache_hits"] < 1
    assert "loader_cache_hits" not in Stages(Dataset.open(demo_shards).cache_reads).read()


@pytest.mark.parametrize(
    ("ahead", "world"), [(3, 2), *(pytest.param(*given, marks=pytest.mark.slow) for given in ((0, 1), (0, 2), (3, 1)))]
)
def test_batches_are_those_of_a_local_folder(
    config: Config, server: FileServer, demo_shards: Path, world: int, ahead: int
) -> None:
    config.data.download_ahead = ahead
    assert_same_steps(steps_of(make_config(demo_shards), world), steps_of(config, world))
    assert Counter(server.shards_asked_for()) == once_each(demo_shards)


@pytest.mark.parametrize(
    "fault",
    [servers.status(500), servers.status(503), servers.status(429), servers.truncated, servers.short, servers.reset],
    ids=["500", "503", "429", "truncated", "short", "reset"],
)
def test_a_failing_server_that_comes_back(
    config: Config, server: FileServer, demo_shards: Path, fault: servers.Fault
) -> None:
    for name in ("dataset.json", "index.arrow", *shard_names(demo_shards)):
        server.plan(name, fault, fault)
    assert_same_bytes(open_remote(config), Dataset.open(demo_shards))


def test_a_garbled_download_is_noticed_and_repeated(config: Config, server: FileServer, demo_shards: Path) -> None:
    server.plan("dataset.json", servers.garbled)
    server.plan("index.arrow", servers.garbled)
    server.plan("shard-000000.tar", servers.garbled)
    dataset = open_remote(config)
    assert dataset.video_bytes(0) == Dataset.open(demo_shards).video_bytes(0)
    assert len(server.shards_asked_for()) == 10


def test_a_server_that_stalls_is_given_up(
    config: Config, server: FileServer, demo_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "STALL_SECONDS", 0.5)
    never = threading.Event()
    server.plan("shard-000000.tar", servers.held(never))
    assert open_remote(config).video_bytes(0) == Dataset.open(demo_shards).video_bytes(0)
    never.set()


def test_a_server_without_ranges(config: Config, server: FileServer, demo_shards: Path) -> None:
    """Python's own: it sends the whole file, whatever was asked for."""
    server.knows_ranges = False
    assert_same_bytes(open_remote(config), Dataset.open(demo_shards))
    assert Counter(server.shards_asked_for()) == dict.fromkeys(shard_names(demo_shards), 1)
    handler = partial(SimpleHTTPRequestHandler, directory=str(demo_shards))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as simple:
        threading.Thread(target=simple.serve_forever, daemon=True).start()
        config.data.shards = f"http://127.0.0.1:{simple.server_address[1]}/"
        assert_same_bytes(open_remote(config), Dataset.open(demo_shards))
        simple.shutdown()


class Lying(SimpleHTTPRequestHandler):
    """A server whose HEAD tells another length than GET sends; `stated`: which."""

    stated = "0"

    def send_header(self, keyword: str, value: str) -> None:
        is_head = self.command == "HEAD" and keyword == "Content-Length"
        super().send_header(keyword, self.stated if is_head else value)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("stated", ["0", "100", "1000000"])
def test_a_server_whose_head_lies(stated: str, config: Config, shards: Path, demo_shards: Path) -> None:
    """What GET sends has the right SHA-256: it is read all the same."""
    handler = partial(type("Handler", (Lying,), {"stated": stated}), directory=str(shards))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config.data.shards = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            assert_same_bytes(open_remote(config), Dataset.open(demo_shards))
        finally:
            server.shutdown()


def test_an_index_larger_than_the_cache_is_said_to_be(config: Config, shards: Path) -> None:
    """It used to be waited for, for ever."""
    from livetrain.data import cache

    found = cache.Cache(Path(config.data.cache_dir), 1000)
    says = "cache_gb=1e-06 is too small: 0-index.arrow alone"
    with found.locked("0-index.arrow"), pytest.raises(UserError, match=says):
        found.fill("0-index.arrow", "", 2000, lambda: [b"x" * 2000])


def test_a_folder_of_more_shards_than_may_be_open(demo_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors stay bounded, whatever the number of shards and threads, and nobody's is closed while it reads."""
    monkeypatch.setattr(shard_reader, "MAX_OPEN", 2)
    dataset = Dataset.open(demo_shards)
    wanted = [dataset.video_bytes(row) for row in range(len(dataset))]
    before, faults = len(list(Path("/proc/self/fd").iterdir())), []

    def read_all(seed: int) -> None:
        for row in np.random.default_rng(seed).permutation(len(dataset)).tolist() * 3:
            if dataset.video_bytes(row) != wanted[row]:
                faults.append(row)

    threads = [threading.Thread(target=read_all, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and len(list(Path("/proc/self/fd").iterdir())) <= before + 6
    assert len(shard_names(demo_shards)) > 2


def test_changed_content_is_refused(config: Config, server: FileServer, shards: Path) -> None:
    dataset = open_remote(config)
    tar = shards / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    with pytest.raises(FetchError, match=rf"{server.url}/shard-000000\.tar: its SHA-256 is not the one"):
        dataset.video_bytes(0)
    tar.write_bytes(data[:-512])
    with pytest.raises(FetchError, match=r"shard-000000\.tar: .*came instead of"):
        dataset.video_bytes(0)
    assert cached(config) == [] and names(Path(config.data.cache_dir), ".part") == []


def test_a_copy_that_went_bad_is_downloaded_again(config: Config, server: FileServer, demo_shards: Path) -> None:
    """The index has a checksum for each clip, so a cache on a bad disk does no lasting harm; once a shard."""
    dataset = open_remote(config)
    good = dataset.video_bytes(0)
    copy = next(Path(config.data.cache_dir).glob("*.tar"))
    whole = copy.read_bytes()
    copy.write_bytes(bytes(len(whole)))
    assert dataset.video_bytes(0) == good and copy.read_bytes() == whole
    copy.write_bytes(whole[:1000])
    with pytest.raises(FetchError, match="early"):
        dataset.video_bytes(0)
    assert open_remote(config).video_bytes(0) == good
    assert Counter(server.shards_asked_for()) == {"shard-000000.tar": 3 * once_each(demo_shards)["shard-000000.tar"]}


def test_shards_built_again_are_downloaded_again(
    config: Config, shards: Path, demo_videos: Path, tmp_path: Path
) -> None:
    """At the same URL, with the same cache: never a byte of the old ones."""
    assert_same_bytes(open_remote(config), Dataset.open(shards))
    options = ["--videos", demo_videos / "videos", "--labels", demo_videos / "label.csv", "--shard-mb", "0.5"]
    arguments = ["build", *options, "--out", tmp_path / "new", "--seed", "7"]
    assert cli.main([str(item) for item in arguments]) == 0
    shutil.rmtree(shards)
    shutil.copytree(tmp_path / "new", shards)
    assert_same_bytes(open_remote(config), Dataset.open(tmp_path / "new"))


# --- when it cannot be read -------------------------------------------------------------------------------------------


def test_a_server_that_stays_down(config: Config, server: FileServer, demo_shards: Path) -> None:
    dataset = open_remote(config)
    config.data.retries = 2
    patient, hasty = dataset, open_remote(config)
    server.plan("shard-000000.tar", *[servers.status(503)] * 9)
    for opened, attempts in ((patient, 6), (hasty, 3)):
        before = len(server.shards_asked_for())
        with pytest.raises(FetchError, match=rf"{server.url}/shard-000000\.tar: HTTP 503 .*tried {attempts} times"):
            opened.video_bytes(0)
        assert len(server.shards_asked_for()) - before == attempts
    assert hasty.video_bytes(0) == Dataset.open(demo_shards).video_bytes(0)


def test_who_waited_for_a_failed_download_does_not_repeat_it(
    config: Config, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of clips in a shard that is gone costs one round of attempts, not one a clip."""
    dataset = open_remote(config)
    go, began, clock = threading.Event(), threading.Semaphore(0), time.monotonic

    def look_at_the_clock() -> float:
        """What a reader does first when the shard is not there."""
        now = clock()
        if threading.current_thread() in threads:
            began.release()
        return now

    def refuse(handler: servers.Handler, body: bytes) -> None:
        go.wait(60)
        handler.send_error(404)

    server.plan("shard-000000.tar", *[refuse] * 8)
    reasons: list[str] = []

    def fetch() -> None:
        try:
            dataset.video_bytes(0)
        except FetchError as error:
            reasons.append(str(error))

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    monkeypatch.setattr(time, "monotonic", look_at_the_clock)
    for thread in threads:
        thread.start()
    for _ in threads:
        assert began.acquire(timeout=60)
    go.set()
    for thread in threads:
        thread.join()
    assert reasons == [f"{server.url}/shard-000000.tar: no such file or bucket"] * 8
    assert len(server.shards_asked_for()) == 1


def test_a_run_skips_what_is_gone_and_ends_when_all_is(config: Config, server: FileServer, shards: Path) -> None:
    dataset = open_remote(config)
    gone = dataset.shard_name(int(dataset.rows("train")[0]))
    (shards / gone).unlink()
    loader = make_loader(config)
    batches = read(loader)
    assert {failure.shard for failure in loader.failures} == {gone}
    assert sum(int(batch.valid.sum()) for batch in batches) + len(loader.failures) == 6 * 12
    for tar in shards.glob("*.tar"):
        tar.unlink()
    shutil.rmtree(config.data.cache_dir)
    with pytest.raises(UserError, match=rf"{server.url}/shard-.*no such file.*consecutive.*{server.url} still there"):
        read(make_loader(config))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (servers.status(404), r"dataset\.json: no such file or bucket; data\.shards must be the URL"),
        (servers.status(403), r"dataset\.json: access denied: HTTP 403 .*; check your credentials; data\.shards"),
        (servers.status(500), r"dataset\.json: HTTP 500 .*tried 6 times"),
        (servers.garbled, r"dataset\.json: .*tried 6 times"),
    ],
    ids=["404", "403", "500", "garbled"],
)
def test_what_cannot_be_opened_is_a_users_mistake(
    config: Config, server: FileServer, fault: servers.Fault, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.plan("dataset.json", *[fault] * 6)
    with pytest.raises(UserError, match=rf"{server.url}/{says}"):
        open_remote(config)
    server.plan("dataset.json", *[fault] * 6)
    assert entrypoint.run(lambda: len(open_remote(config))) == 2
    message = capsys.readouterr().err.splitlines()
    assert message[-1].startswith(f"error: {server.url}") and not any("Traceback" in line for line in message)


@pytest.mark.parametrize("name", ["index.arrow", "rejected.csv"])
def test_a_missing_file_beside_the_shards_is_named(config: Config, server: FileServer, shards: Path, name: str) -> None:
    (shards / name).unlink()
    with pytest.raises(UserError, match=rf"{server.url}/{name}: no such file"):
        open_remote(config).rejected()


def test_a_server_that_is_not_there(config: Config, tmp_path: Path) -> None:
    with servers.serve(tmp_path) as server:
        config.data.shards, config.data.retries = server.url, 1
    with pytest.raises(UserError, match=rf"{server.url}/dataset\.json: .*tried 2 times"):
        open_remote(config)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nosuch://bucket/demo", r"nosuch://bucket/demo: .*data\.shards takes s3://"),
        ("https://host/demo?signature=x", r"has no \? or #"),
    ],
)
def test_urls_that_cannot_be_used(url: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Dataset.open(url)


def test_a_missing_package_is_named() -> None:
    """In a process of its own, where the packages cannot be imported."""
    code = (
        "import sys\nfor name in ('s3fs', 'gcsfs', 'aiohttp'): sys.modules[name] = None\n"
        "from livetrain.data import Dataset\nfrom livetrain.core.errors import UserError\n"
        "for url in ('s3://b/d', 'gs://b/d', 'https://h/d'):\n"
        "    try: Dataset.open(url)\n"
        "    except UserError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    for url, line in zip(("s3://b/d", "gs://b/d", "https://h/d"), lines, strict=True):
        assert line.startswith(f"{url} needs a package") and "livetrain[remote]" in line


def test_a_local_folder_as_a_file_url(demo_shards: Path) -> None:
    assert_same_bytes(Dataset.open(f"file://{demo_shards}"), Dataset.open(demo_shards))


def test_shards_are_split_in_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["split", "s3://bucket/demo", "--protocol", "hash"]) == 2
    assert "s3://bucket/demo: a URL; only `build` and `verify` take them. Copy it" in capsys.readouterr().err


def test_cache_keys_have_no_effect_on_a_folder() -> None:
    keys = ["data.cache_dir=x", "data.cache_gb=2", "data.download_ahead=3", "data.retries=1", "data.on_outage=wait"]
    keys += ["data.outage_minutes=2", "data.range_mb=1"]
    warnings: list[str] = []
    load_config([], ["data.shards=folder", *keys], warn=warnings.append)
    assert [line.split()[1] for line in warnings] == [key.split("=")[0] for key in keys]
    warnings.clear()
    load_config([], ["data.shards=s3://bucket/folder", *keys], warn=warnings.append)
    assert warnings == []
    load_config([], ["data.sources=[one,two]", *keys], warn=warnings.append)
    named = [line.split()[1] for line in warnings]
    assert named == [key.split("=")[0] for key in keys[2:]], "the joined index of two folders is in the cache"


# --- the cache --------------------------------------------------------------------------------------------------------

READ_ALL = """
import hashlib, sys
from livetrain.config import DataConfig
from livetrain.core import remote
from livetrain.data import Dataset
remote.BLOCK_BYTES = 100_000
dataset = Dataset.open(sys.argv[1], DataConfig(cache_dir=sys.argv[2]))
for row in range(len(dataset)):
    assert hashlib.sha256(dataset.video_bytes(row)).hexdigest() == dataset.text("sha256", row)
print("read", len(dataset))
"""


def read_all(config: Config) -> subprocess.Popen[str]:
    """Another process that reads every clip and checks it."""
    command = [sys.executable, "-c", READ_ALL, config.data.shards, config.data.cache_dir]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_of_a_node_share_a_download(config: Config, server: FileServer, demo_shards: Path) -> None:
    both_are_there = threading.Event()
    server.plan("shard-000000.tar", servers.held(both_are_there))
    processes = [read_all(config) for _ in range(2)]
    server.wait_for(lambda requests: requests.count("dataset.json") == 2 and "shard-000000.tar" in requests)
    both_are_there.set()
    for process in processes:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0 and out.startswith("read "), error
    assert Counter(server.shards_asked_for()) == once_each(demo_shards)
    assert server.requests.count("index.arrow") == 1


def test_a_killed_download_is_not_believed(config: Config, server: FileServer, demo_shards: Path) -> None:
    never = threading.Event()
    server.plan("shard-000000.tar", *[lambda handler, body: answer(handler, body)] * 2, servers.held(never))
    process = read_all(config)
    server.wait_for(lambda requests: requests.count("shard-000000.tar") == 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert names(Path(config.data.cache_dir), ".part") == ["shard-000000.tar.part"] and cached(config) == []
    never.set()
    dataset = open_remote(config)
    assert dataset.video_bytes(0) == Dataset.open(demo_shards).video_bytes(0)
    assert cached(config) == ["shard-000000.tar"] and names(Path(config.data.cache_dir), ".part") == []


def answer(handler: servers.Handler, body: bytes) -> None:
    """No fault."""
    handler.start(206, len(body), len(body))
    handler.wfile.write(body)


def test_what_a_killed_download_left_is_evicted(config: Config, server: FileServer) -> None:
    dataset = open_remote(config)
    left = Path(config.data.cache_dir) / f"{'0' * 12}-{'a' * 64}-shard-000000.tar.part"
    left.write_bytes(bytes(400_000))
    os.utime(left, (0, 0))
    config.data.cache_gb = 0.6 * MB
    open_remote(config).video_bytes(0)
    assert not left.exists() and dataset.video_bytes(0)


def test_the_bound_is_kept(config: Config, server: FileServer, demo_shards: Path) -> None:
    """At every request and after every read, with what is coming counted; other files in the folder are not touched."""
    config.data.cache_gb = 1.2 * MB  # two shards and the index
    cache = Path(config.data.cache_dir)
    cache.mkdir()
    (cache / "mine.tar").write_bytes(b"not the cache's")
    most = 0

    def watch() -> None:
        nonlocal most
        held = sum(p.stat().st_size for p in list(cache.iterdir()) if p.name != "mine.tar" and p.exists())
        most = max(most, held)

    server.watch = watch
    dataset, local = open_remote(config), Dataset.open(demo_shards)
    for row in [*range(len(dataset)), *range(0, len(dataset), 5)]:
        assert dataset.video_bytes(row) == local.video_bytes(row)
        watch()
        assert len(cached(config)) <= 3
    assert 0.9e6 < most <= 1.2e6
    assert (cache / "mine.tar").read_bytes() == b"not the cache's"


def test_the_least_recently_used_shard_goes(config: Config, server: FileServer) -> None:
    config.data.cache_gb = 1.2 * MB
    dataset = open_remote(config)
    first, second, third, *_ = first_rows(dataset)
    for row in (first, second, first, third):
        dataset.video_bytes(row)
    assert cached(config) == sorted(dataset.shard_name(row) for row in (first, third))


def test_many_threads_in_a_cache_of_one_shard(config: Config, server: FileServer, demo_shards: Path) -> None:
    """The worst that can be asked for: it is slow, but each thread gets its bytes, and the bound holds."""
    config.data.cache_gb = 0.52 * MB
    config.data.threads, config.data.download_ahead = 6, 2
    assert_same_steps(steps_of(make_config(demo_shards), 1, steps=2), steps_of(config, 1, steps=2))
    held = [path.stat().st_size for path in Path(config.data.cache_dir).iterdir()]
    assert sum(held) <= 0.52e6


def test_a_cache_below_one_shard_is_a_users_mistake(config: Config, server: FileServer) -> None:
    config.data.cache_gb = 0.4 * MB
    with pytest.raises(UserError, match=rf"data\.cache_gb=0\.0004 is too small: the largest shard of {server.url}"):
        open_remote(config)


def test_a_folder_that_cannot_be_the_cache(config: Config, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config.data.cache_dir = str(tmp_path / "file" / "cache")
    with pytest.raises(UserError, match=r"the shard cache .*file/cache: .*set data\.cache_dir"):
        open_remote(config)


def test_the_cache_is_below_the_users_folder(config: Config, server: FileServer, tmp_path: Path) -> None:
    config.data.cache_dir = ""
    open_remote(config).video_bytes(0)
    assert names(tmp_path / "home" / "livetrain" / "shards", ".tar") == ["shard-000000.tar"]


def test_a_full_disk_makes_room_once(
    config: Config, server: FileServer, demo_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound allows more than the disk has: the oldest shard goes."""
    dataset = open_remote(config)
    first, second, third, *_ = first_rows(dataset)
    dataset.video_bytes(first)
    dataset.video_bytes(second)
    left = 1

    def allocate(*_: int) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    assert dataset.video_bytes(third) == Dataset.open(demo_shards).video_bytes(third)
    assert dataset.shard_name(first) not in cached(config) and dataset.shard_name(third) in cached(config)
    left = 10**6
    with pytest.raises(UserError, match=r"the shard cache .*/cache: No space left on device; set data\.cache_dir"):
        dataset.video_bytes(first)


def test_a_disk_that_is_really_full(config: Config, server: FileServer, demo_shards: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small tmpfs (not root?)")
    try:
        config.data.cache_dir = str(disk / "cache")
        assert_same_bytes(open_remote(config), Dataset.open(demo_shards))
        assert 1 <= len(cached(config)) < 7
        (disk / "other").write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
        shutil.rmtree(config.data.cache_dir)
        (disk / "more").write_bytes(b"x" * 800_000)
        config.data.on_error = "skip"
        with pytest.raises(UserError, match="No space left on device"):
            read(make_loader(config))
        assert names(Path(config.data.cache_dir), ".part") == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # the index may still be mapped


# --- ahead of need ----------------------------------------------------------------------------------------------------


def test_announced_shards_come_in_the_background(config: Config, server: FileServer, demo_shards: Path) -> None:
    dataset = open_remote(config)
    rows = first_rows(dataset)
    wanted = [dataset.shard_name(row) for row in reversed(rows)]
    dataset.prefetch(np.array(rows[::-1]))
    server.wait_for(lambda requests: set(wanted) <= set(requests))  # several threads ask: the last one may ask early
    before = Counter(server.shards_asked_for())
    assert set(before) == set(wanted)
    assert [*before][0] in wanted[: shard_reader.DOWNLOADS]
    assert_same_bytes(dataset, Dataset.open(demo_shards))
    assert Counter(server.shards_asked_for()) == once_each(demo_shards)
    dataset.close()


def test_no_more_is_announced_than_half_of_the_cache_holds(config: Config, server: FileServer) -> None:
    config.data.cache_gb = 2 * MB
    dataset = open_remote(config)
    rows = np.array(first_rows(dataset))
    dataset.prefetch(rows, share=0.5)  # two processes: half a megabyte each, one shard
    wait_until_idle(dataset)
    assert cached(config) == [dataset.shard_name(int(rows[0]))]
    dataset.prefetch(rows[3:])
    wait_until_idle(dataset)
    assert cached(config) == sorted(dataset.shard_name(int(row)) for row in rows[[0, 3, 4]])
    dataset.close()


def wait_until_idle(dataset: Dataset) -> None:
    """Until the background has downloaded what it was asked to: its threads end when nothing is needed any more."""
    assert isinstance(dataset.shard_sets[0].reader, shard_reader.RemoteReader)
    for worker in list(dataset.shard_sets[0].reader._workers):
        worker.join(60)
        assert not worker.is_alive()


def test_a_download_ahead_that_fails_is_told_where_it_is_needed(
    config: Config, server: FileServer, demo_shards: Path
) -> None:
    dataset = open_remote(config)
    config.data.retries = 0
    server.plan("shard-000000.tar", servers.status(404))
    dataset.prefetch(np.array([0]))
    wait_until_idle(dataset)
    assert cached(config) == []
    assert dataset.video_bytes(0) == Dataset.open(demo_shards).video_bytes(0)
    dataset.close()


def test_close_ends_what_waits_for_a_server(
    config: Config, server: FileServer, monkeypatch: pytest.MonkeyPatch, demo_shards: Path
) -> None:
    """Threads that sit out the wait between two attempts do not keep the program from ending."""
    monkeypatch.setattr(remote, "BACKOFF_SECONDS", 1e6)
    monkeypatch.setattr(remote, "MAX_BACKOFF_SECONDS", 1e6)
    dataset = open_remote(config)
    server.plan("shard-000000.tar", servers.status(503))
    dataset.prefetch(np.array([0]))
    server.wait_for(lambda requests: "shard-000000.tar" in requests)
    dataset.close()
    assert dataset.video_bytes(0) == Dataset.open(demo_shards).video_bytes(0)


def test_the_loader_announces_what_it_will_need(
    config: Config, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[list[int]] = []
    shares: set[float] = set()

    def note(self: Dataset, rows: np.ndarray, share: float = 1.0) -> None:
        announced.append(rows.tolist())
        shares.add(share)

    monkeypatch.setattr(Dataset, "prefetch", note)
    config.data.download_ahead = 2
    batches = [batch.rows.tolist() for batch in read(make_loader(config, rank=1, world=3))]
    expected = [sum(batches[first : first + 3], []) for first in range(len(batches))]
    assert announced == [*expected, []]  # at the end nothing is wanted
    assert shares == {1 / 3, 1.0}


# --- S3 and Google ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3(demo_shards: Path) -> Iterator[str]:
    """moto's server with the demo shards in s3://faces/demo."""
    boto3 = pytest.importorskip("boto3")
    with servers.s3("faces") as address:
        client = boto3.client("s3")
        for path in demo_shards.iterdir():
            if path.is_file():
                client.upload_file(str(path), "faces", f"demo/{path.name}")
        yield address


@pytest.fixture
def s3_config(s3: str, tmp_path: Path) -> Config:
    config = make_config(Path("unused"))
    config.data.shards, config.data.cache_dir = "s3://faces/demo", str(tmp_path / "cache")
    return config


@pytest.mark.slow
def test_s3_gives_the_same_batches(s3_config: Config, demo_shards: Path) -> None:
    local, dataset = Dataset.open(demo_shards), open_remote(s3_config)
    assert_same_bytes(dataset, local)
    assert dataset.rejected() == local.rejected()
    assert_same_steps(steps_of(make_config(demo_shards), world=2), steps_of(s3_config, world=2))
    assert cached(s3_config) == shard_names(demo_shards)


def test_mistakes_with_s3_are_told(s3_config: Config, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    for url in ("s3://faces/nothing", "s3://no-such-bucket/demo"):
        with pytest.raises(UserError, match=rf"{url}/dataset\.json: no such file or bucket"):
            Dataset.open(url, s3_config.data)
    requests.post(f"{s3}/moto-api/reset-auth", data="0").raise_for_status()  # from now on keys are looked at
    try:
        with pytest.raises(
            UserError, match=r"s3://faces/demo/dataset\.json: access denied: .*; check your credentials"
        ):
            open_remote(s3_config)
    finally:
        requests.post(f"{s3}/moto-api/reset-auth", data="inf").raise_for_status()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match=r"s3://faces/demo/dataset\.json: .*[Cc]redentials.*; check your credentials"):
        open_remote(s3_config)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match=r"s3://faces/demo.*nobody"):
        open_remote(s3_config)


def test_google_storage_gives_the_same_bytes(
    server: FileServer, config: Config, demo_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gcsfs against a server that answers as Google's: GET …/b/BUCKET/o/OBJECT, with alt=media for the content."""
    # Read when gcsfs is imported: it would ask Google, for a minute, what kind of bucket this is.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    pytest.importorskip("gcsfs")
    from fsspec.config import conf

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url.removesuffix("/data"))
    monkeypatch.setitem(conf, "gs", {"token": "anon"})
    config.data.shards = "gs://faces/demo"
    server.plan("shard-000000.tar", servers.truncated)
    assert_same_bytes(open_remote(config), Dataset.open(demo_shards))
    config.data.shards = "gs://faces/nothing"
    server.plan("dataset.json", servers.status(403))
    with pytest.raises(UserError, match=r"gs://faces/nothing/dataset\.json: access denied: .*check your credentials"):
        open_remote(config)
    server.folder = server.folder / "nothing"
    with pytest.raises(UserError, match=r"gs://faces/nothing/dataset\.json: no such file or bucket"):
        open_remote(config)


def test_threads_that_read_a_bad_copy_all_get_the_next_one(config: Config, demo_shards: Path) -> None:
    """The first asks for another copy; the others, who have read the bad one too, take what it gets."""
    dataset, known = open_remote(config), Dataset.open(demo_shards)
    row = 0
    want = known.video_bytes(row)
    for trial in range(10):
        config.data.cache_dir = f"{config.data.cache_dir}-{trial}"
        dataset = open_remote(config)
        dataset.video_bytes(row)
        path = next(Path(config.data.cache_dir).glob(f"*{dataset.shard_name(row)}"))
        data = bytearray(path.read_bytes())
        offset = int(dataset.column("offset")[row])
        data[offset : offset + 64] = bytes(64)
        path.write_bytes(data)
        gate, found = threading.Barrier(2), []
        source = dataset.shard_sets[0].reader
        usual = source.distrust

        def together(shard: str, generation: int, usual: Any = usual, gate: threading.Barrier = gate) -> bool:
            if not generation:
                gate.wait(10)  # both have read the bad bytes
            return bool(usual(shard, generation))

        source.distrust = together  # type: ignore[method-assign]
        threads = [threading.Thread(target=lambda d=dataset, f=found: f.append(d.video_bytes(row))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [want, want]


def test_no_lock_files_are_left(config: Config, demo_shards: Path) -> None:
    """Whoever else waits for one meanwhile: nobody holds the lock of a file that is gone."""
    assert_same_bytes(open_remote(config), Dataset.open(demo_shards))
    assert not list(Path(config.data.cache_dir).glob("*.lock"))
    from livetrain.data import cache

    found, inside, most = cache.Cache(Path(config.data.cache_dir), 1000), [0], [0]

    def work() -> None:
        for _ in range(200):
            with found.locked("0-index.arrow"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1 and not list(Path(config.data.cache_dir).glob("*.lock"))


OTHER_FAULTS = [pytest.param(fault, marks=pytest.mark.slow) for fault in (errno.EMFILE, errno.ESTALE, errno.ENOSPC)]


@pytest.mark.parametrize("fault", [errno.EIO, *OTHER_FAULTS])
def test_the_machines_faults_are_no_damage(fault: int, demo_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They pass, and the clip comes; or they stay, and the run ends with what to see to. No clip is skipped."""
    monkeypatch.setattr(files, "RETRY_PAUSES", (0.0, 0.01))
    config = make_config(demo_shards)
    want = steps_of(config, world=1, steps=2)
    usual, left = os.pread, [2]

    def failing(*arguments: Any) -> bytes:
        if left[0]:
            left[0] -= 1
            raise OSError(fault, os.strerror(fault))
        return usual(*arguments)

    monkeypatch.setattr(os, "pread", failing)
    loader = make_loader(config, steps=2)
    got = {batch.step: (batch.rows, batch.clips) for batch in read(loader)}
    assert not left[0] and not loader.failures
    assert_same_steps({step: want[step] for step in got}, got)
    left[0] = 10**9
    with pytest.raises(UserError, match=rf"shard-\d+\.tar: {os.strerror(fault)}, 3 times in a row.*this machine's"):
        read(make_loader(config, steps=2))


# --- more data than the cache holds -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_in_windows_each_shard_is_downloaded_once_an_epoch(
    config: Config, server: FileServer, demo_shards: Path
) -> None:
    """Through a cache of half of the shards, in which global order downloads most of them again and again."""
    config.data.cache_gb, config.data.download_ahead = 2.4 * MB, 2
    config.data.window_shards = 1
    config.train.global_batch = 4
    epoch = len(Dataset.open(demo_shards).rows("train")) // 4
    asked = {}
    for order in ("windows", "global"):
        config.data.order, config.data.cache_dir = order, config.data.cache_dir + order
        server.requests.clear()
        local = make_config(demo_shards)
        local.data.order, local.data.window_shards, local.train.global_batch = order, 1, 4
        assert_same_steps(steps_of(local, 1, steps=epoch), steps_of(config, 1, steps=epoch))
        asked[order] = Counter(server.shards_asked_for())
    once = once_each(demo_shards)
    assert asked["windows"] <= Counter(once), asked["windows"] - Counter(once)
    assert sum(asked["global"].values()) > sum(once.values())


def test_small_clips_are_downloaded_alone(config: Config, server: FileServer, demo_shards: Path) -> None:
    config.data.range_mb = 1.0
    local, dataset = Dataset.open(demo_shards), open_remote(config)
    server.requests.clear()
    assert_same_bytes(dataset, local)
    assert len(server.shards_asked_for()) == len(local) and not cached(config)
    dataset.prefetch(np.arange(len(dataset)))
    assert pictures_of(dataset, 0, (0, 3)) == pictures_of(local, 0, (0, 3))
    dataset.close()
    assert not cached(config), "nothing is announced that is read alone"


@pytest.mark.parametrize("fault", [servers.truncated, servers.short, servers.garbled, servers.reset])
def test_a_clip_that_comes_alone_is_checked(
    config: Config, server: FileServer, demo_shards: Path, fault: servers.Fault
) -> None:
    config.data.range_mb = 1.0
    dataset = open_remote(config)
    server.plan("shard-000000.tar", fault)
    assert dataset.video_bytes(0) == Dataset.open(demo_shards).video_bytes(0)
    config.data.retries = 0
    again = open_remote(config)
    server.plan("shard-000000.tar", *[servers.garbled] * 3)
    with pytest.raises(FetchError, match="its checksum is not the one of when it was stored"):
        again.video_bytes(0)


def test_clips_above_the_limit_come_with_their_shard(config: Config, server: FileServer, demo_shards: Path) -> None:
    local = Dataset.open(demo_shards)
    sizes = local.column("size")[: first_rows(local)[1]]
    config.data.range_mb = float(np.sort(sizes)[len(sizes) // 2]) / 1e6
    dataset = open_remote(config)
    small, large = int(sizes.argmin()), int(sizes.argmax())
    assert dataset.video_bytes(small) == local.video_bytes(small) and not cached(config)
    assert dataset.video_bytes(large) == local.video_bytes(large) and cached(config) == ["shard-000000.tar"]


def test_an_outage_is_waited_for(
    config: Config, server: FileServer, demo_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.data.retries, config.data.on_outage = 1, "wait"
    dataset = open_remote(config)
    server.plan("shard-000000.tar", *[servers.status(503)] * 20)
    assert dataset.video_bytes(0) == Dataset.open(demo_shards).video_bytes(0)
    assert capsys.readouterr().err.count("HTTP 503") == 20


def test_an_outage_longer_than_the_limit_is_given_up(config: Config, server: FileServer) -> None:
    config.data.retries, config.data.on_outage, config.data.outage_minutes = 1, "wait", 0.2 / 60
    dataset = open_remote(config)
    server.plan("shard-000000.tar", *[servers.status(503)] * 100_000)
    began = time.monotonic()
    with pytest.raises(FetchError, match="HTTP 503"):
        dataset.video_bytes(0)
    assert 0.2 <= time.monotonic() - began < 20


def test_what_is_not_there_is_not_waited_for(config: Config, server: FileServer, shards: Path) -> None:
    config.data.on_outage = "wait"
    dataset = open_remote(config)
    (shards / "shard-000000.tar").unlink()
    with pytest.raises(FetchError, match="no such file"):
        dataset.video_bytes(0)
