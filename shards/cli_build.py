"""`shards build` and `shards merge`: their options, and what they call."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livetrain.core.errors import UserError
from livetrain.core.files import is_url
from livetrain.core.remote import Folder, Url
from livetrain.core.tables import aligned
from shards.cli_engine import add_engine, engine_from
from shards.cli_stores import media_of
from shards.stores import STORES

if TYPE_CHECKING:
    from livetrain.core.engines import Engine
    from shards.build_request import Options


def add_build(verbs: Any, local: Callable[[str], Path]) -> None:
    """Add both verbs; `local` reads a path, and refuses URLs."""
    build = verbs.add_parser("build", help="build a shard folder from videos and label.csv")
    build.set_defaults(verb=_build)
    build.add_argument(
        "--videos", type=place, required=True, metavar="DIR", help="folder of videos, with those below it, or its URL"
    )
    build.add_argument(
        "--labels", type=local, required=True, metavar="CSV", help="label file: fname,liveness_score,..."
    )
    build.add_argument("--out", type=place, required=True, metavar="DIR", help="shard folder to write, or its URL")
    build.add_argument(
        "--staging", type=local, metavar="DIR", help="--out URL: local folder for records and shards under way"
    )
    build.add_argument(
        "--store",
        choices=STORES,
        default="original",
        help="what to keep: the videos untouched (default), their packets in a new MP4, H.264 or HEVC re-encoded, or "
        "a few JPEG frames of each",
    )
    build.add_argument("--num-frames", type=int, metavar="K", help="--store frames: frames a video (default 16)")
    build.add_argument("--frames-per-second", type=float, metavar="R", help="--store frames: so many a second instead")
    build.add_argument("--size", type=int, metavar="S", help="frames, transcode: shrink the short side to S pixels")
    build.add_argument("--long-side", type=int, metavar="S", help="frames, transcode: shrink the long side to S pixels")
    build.add_argument("--gop", type=int, metavar="N", help="--store transcode: a key frame every N frames (default 8)")
    build.add_argument("--codec", choices=["h264", "hevc"], help="--store transcode: (default h264)")
    build.add_argument(
        "--quality", type=int, metavar="Q", help="frames: of JPEGs (default 95); transcode: CRF (default 18, hevc 20)"
    )
    build.add_argument("--shard-mb", type=float, default=256, metavar="MB", help="size of a shard (default 256)")
    add_engine(
        build, "changes no byte. With 1 all is done in this process, and a video on which the decoder crashes ends it"
    )
    build.add_argument(
        "--check",
        choices=["decode", "probe"],
        default="decode",
        help="decode: every video to its end (default); probe: the first frame of H.264 and HEVC in MP4, and its "
        "packets; damage inside is found in training",
    )
    build.add_argument("--seed", type=int, default=0, help="of the splits and the order of samples (default 0)")
    build.add_argument("--fractions", default="0.6,0.2,0.2", help="of train, dev, test (default 0.6,0.2,0.2)")
    build.add_argument("--folds", type=int, default=0, metavar="K", help="splits fold0 … instead, for cross-validation")
    build.add_argument(
        "--columns", default="", metavar="FIELD=COLUMN,…", help="which column holds what: name (default fname), label "
        "(liveness_score), attack (attack_type), subject (subject), split (split); subject=, split=: use none",
    )  # fmt: skip
    build.add_argument("--invert", action="store_true", help="the label is 1 for attacks")
    build.add_argument(
        "--domain", default="", metavar="NAME", help="data set that all videos are of (default: column domain)"
    )
    build.add_argument("--skip-unlabelled", action="store_true", help="leave out videos that have no row in --labels")
    build.add_argument("--allow-leak", action="store_true", help="take a split column that has people in two splits")
    build.add_argument("--overwrite", action="store_true", help="replace a build with other options in --out")
    build.add_argument(
        "--protocol",
        choices=["stratified", "hash"],
        default="stratified",
        help="how people are split: classes evenly (default), or by a hash of their names, where nobody moves when "
        "others come or go (for thousands of people)",
    )
    build.add_argument(
        "--keep", type=local, metavar="PATH", help="who has a split there keeps it: a shard folder, its index, or a "
        "label file with a column split",
    )  # fmt: skip
    build.add_argument(
        "--reassign",
        action="store_true",
        help="split everyone again, also over a folder that has splits (default: kept)",
    )
    build.add_argument(
        "--append", action="store_true", help="add the videos that --out does not have yet, as new shards; what is "
        "there stays as it is, splits included",
    )  # fmt: skip

    build.add_argument(
        "--part", metavar="I/N", help="do part I (from 0) of N, on one of several machines; then shards merge DIR"
    )

    merge = verbs.add_parser("merge", help="finish a build whose parts (build --part) are done")
    merge.set_defaults(verb=_merge)
    merge.add_argument("folder", type=local, metavar="DIR", help="shard folder that the parts are in")


def place(text: str) -> Folder:
    """A path or a URL."""
    return Url(text.rstrip("/")) if is_url(text) else Path(text)


def _build(arguments: argparse.Namespace) -> int:
    from shards.build import build
    from shards.build_request import Request

    options = _build_options(arguments)
    if arguments.keep and arguments.reassign:
        raise UserError("--keep and --reassign: give one of them")
    start = time.monotonic()
    engine = engine_from(arguments)
    if isinstance(arguments.out, Url):
        return _build_into_bucket(arguments, options, engine)
    if arguments.staging:
        raise UserError("--staging has no effect without --out URL")
    if arguments.part and (arguments.append or arguments.overwrite):
        raise UserError("--part does not go with --append or --overwrite: build in parts into a new folder")
    if arguments.part:
        from shards.build_parts import Part, run_part

        part = Part.parse(arguments.part)
        words = {name: _plain(value) for name, value in vars(arguments).items() if name not in ("verb", "part")}
        print(run_part(Request.read(arguments.videos, arguments.labels, arguments.out, options), part, words, engine))
        return 0
    if arguments.append:
        from shards.append import append

        for option in ("overwrite", "keep", "reassign"):
            if getattr(arguments, option):
                raise UserError(f"--append and --{option}: what is there stays as it is; give one of them")
        content = append(arguments.videos, arguments.labels, arguments.out, options, engine=engine)
    else:
        content = build(
            arguments.videos, arguments.labels, arguments.out, options, engine=engine,
            overwrite=arguments.overwrite,
        )  # fmt: skip
    print(_summary(content, arguments.out, time.monotonic() - start))
    return 0


def _build_into_bucket(arguments: argparse.Namespace, options: Options, engine: Engine) -> int:
    from shards.bucket import Bucket, staging_folder
    from shards.build import build

    if arguments.part or arguments.append:
        raise UserError("--part and --append need a local --out; copy it to the bucket afterwards")
    start, url = time.monotonic(), arguments.out
    content = build(
        arguments.videos, arguments.labels, arguments.staging or staging_folder(url), options, engine=engine,
        overwrite=arguments.overwrite, bucket=Bucket(url),
    )  # fmt: skip
    print(_summary(content, url, time.monotonic() - start))
    return 0


def _plain(value: Any) -> Any:
    """As JSON has it; paths from the root, for they are read elsewhere."""
    return str(value.absolute()) if isinstance(value, Path) else value


def _merge(arguments: argparse.Namespace) -> int:
    from shards.build_parts import asked, merge
    from shards.build_request import Request

    start = time.monotonic()
    given = argparse.Namespace(**asked(arguments.folder))
    given.keep = given.keep and Path(given.keep)
    request = Request.read(place(given.videos), Path(given.labels), arguments.folder, _build_options(given))
    print(_summary(merge(request), arguments.folder, time.monotonic() - start))
    return 0


def _build_options(arguments: argparse.Namespace) -> Options:
    from shards.build_request import Options
    from shards.labels import Columns

    given = dict(item.partition("=")[::2] for item in arguments.columns.split(",") if item)
    if "group" in given:  # until 0.3
        print("warning: --columns group=… is now --columns subject=…", file=sys.stderr)
        given["subject"] = given.pop("group")
    fields = ("name", "label", "attack", "subject", "split")
    if unknown := sorted(set(given) - set(fields)):
        raise UserError(
            f"--columns {unknown[0]}=…: there are {', '.join(fields)}, as in --columns label=spoof,subject=id"
        )
    columns = Columns(**given, invert=arguments.invert)
    if not 0 < arguments.shard_mb < float("inf"):
        raise UserError(f"--shard-mb {arguments.shard_mb:g}: give a size above 0")
    return Options(
        media_of(arguments),
        arguments.shard_mb,
        arguments.seed,
        arguments.fractions,
        arguments.folds,
        columns,
        arguments.check,
        arguments.domain,
        arguments.skip_unlabelled,
        arguments.allow_leak,
        arguments.protocol,
        arguments.keep,
        arguments.reassign,
    )


def split_table(content: dict[str, Any]) -> str:
    """Clips and people of each split, as a table for the terminal."""
    header = ("split", "clips", "live", "attack", "subjects")
    numbers = ("num_samples", "num_live", "num_attack", "num_subjects")
    return aligned(header, [[name, *(counts[key] for key in numbers)] for name, counts in content["splits"].items()])


def _summary(content: dict[str, Any], out: Folder, seconds: float) -> str:
    num_bytes = sum(shard["bytes"] for shard in content["shards"])
    lines = [split_table(content)]
    lines.append(
        f"{content['num_samples']:,} clips in {len(content['shards']):,} shards, {num_bytes / 1e6:,.1f} MB, "
        f"{seconds:.1f} s: {out}"
    )
    if content["num_rejected"]:
        lines.append(f"{content['num_rejected']:,} videos rejected, reasons in {out / 'rejected.csv'}")
    return "\n".join(lines)
