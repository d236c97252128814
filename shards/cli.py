"""Command line of the shard builder.

    python -m shards build --videos DIR --labels label.csv --out DIR    videos and labels -> a shard folder
    python -m shards merge DIR                                          finish a build that was made in parts
    python -m shards import LAYOUT ROOT --out label.csv                 a known data set -> its label.csv
    python -m shards split DIR --protocol NAME                          other splits for a shard folder, in place
    python -m shards faces DIR                                          find the face of each clip, into faces.arrow
    python -m shards audit DIR --out audit.html                         copies, one person twice, shortcuts, outliers
    python -m shards verify DIR                                         read all of it again, name what is damaged
    python -m shards demo DIR                                           generate a small labelled corpus to try it on

Exit codes: 0 done, 1 damage found by verify, 2 invalid input or options, 74 a fault of the machine,
130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livetrain.core.arguments import Parser
from livetrain.core.errors import EXIT_USER_ERROR, UserError
from livetrain.core.files import is_url
from shards.cli_audit import add_audit
from shards.cli_engine import add_engine, engine_from
from shards.cli_faces import add_faces
from shards.cli_stores import media_of
from shards.stores import STORES

if TYPE_CHECKING:
    from shards.build import Options

EXIT_DAMAGE = 1
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code. Invalid input is a line on standard error, without a traceback."""
    try:
        arguments = parser().parse(sys.argv[1:] if argv is None else argv)
        return int(arguments.verb(arguments))
    except SystemExit as stop:  # argparse has printed the help
        return stop.code if isinstance(stop.code, int) else EXIT_USER_ERROR
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return EXIT_INTERRUPTED


def parser() -> Parser:
    """The command line of `livetrain shards`, one sub-parser a verb."""
    parser = Parser(doc=__doc__, prog="shards", formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")

    build = verbs.add_parser("build", help="build a shard folder from videos and label.csv")
    build.set_defaults(verb=_build)
    build.add_argument(
        "--videos", type=_local, required=True, metavar="DIR", help="folder of videos, with those below it"
    )
    build.add_argument(
        "--labels", type=_local, required=True, metavar="CSV", help="label file: fname,liveness_score,..."
    )
    build.add_argument("--out", type=_local, required=True, metavar="DIR", help="shard folder to write")
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
        "--keep", type=_local, metavar="PATH", help="who has a split there keeps it: a shard folder, its index, or a "
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
    merge.add_argument("folder", type=_local, metavar="DIR", help="shard folder that the parts are in")

    _add_import(verbs)
    _add_split(verbs)

    add_faces(verbs, _local)
    add_audit(verbs, _local)

    verify = verbs.add_parser("verify", help="read a shard folder again and name what is damaged")
    verify.set_defaults(verb=_verify)
    verify.add_argument("folder", type=_local, metavar="DIR", help="shard folder")
    add_engine(verify, "changes no finding")
    verify.add_argument(
        "--thorough", action="store_true", help="also decode every sample and compare the files with each other"
    )

    demo = verbs.add_parser("demo", help="generate a small labelled corpus of videos")
    demo.set_defaults(verb=_demo)
    demo.add_argument("out", type=_local, metavar="DIR", help="folder for videos/ and label.csv")
    demo.add_argument("--num-subjects", type=int, default=12, metavar="N", help="people, of 10 clips each (default 12)")
    demo.add_argument("--seed", type=int, default=0)
    return parser


def _add_import(verbs: Any) -> None:
    from shards.importers import LAYOUTS

    layouts = "\n\n".join(f"{name}\n{module.__doc__}" for name, module in LAYOUTS.items())
    parser = verbs.add_parser(
        "import",
        help="write the label.csv of a known data set",
        description=f"Writes the label.csv of a data set in one of these layouts:\n\n{layouts}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=_import)
    parser.add_argument("layout", choices=list(LAYOUTS), metavar="LAYOUT", help="one of those above")
    parser.add_argument("root", type=_local, metavar="ROOT", help="folder of the data set; of `table`: the file")
    parser.add_argument("--out", type=_local, required=True, metavar="CSV", help="label file to write")
    parser.add_argument("--domain", default="", metavar="NAME", help="name of the data set (default: the layout's)")
    parser.add_argument("--protocol", default="", help="oulu_npu, nuaa_raw, hifimask: which official protocol")
    parser.add_argument("--fold", type=int, default=0, metavar="N", help="oulu_npu: fold of protocols 3 and 4")
    parser.add_argument("--columns", nargs="+", default=[], metavar="FIELD=COLUMN", help="table: which column is what")
    parser.add_argument("--invert", action="store_true", help="table: the label is 1 for attacks")
    parser.add_argument("--live", nargs="+", default=(), metavar="NAME", help="class_folders: folders of live people")
    parser.add_argument("--subject-pattern", default="", metavar="REGEX", help="class_folders: the person in a path")
    parser.add_argument("--clips", type=_local, metavar="DIR", help="layouts of pictures: folder for the clips")
    parser.add_argument("--clip-frames", type=int, default=0, metavar="N", help="nuaa_raw: frames of a clip (16)")


def _add_split(verbs: Any) -> None:
    from shards.resplit import PROTOCOLS

    parser = verbs.add_parser(
        "split",
        help="split a shard folder again; no tar is touched",
        description="Changes the splits of a shard folder: index.arrow, rejected.csv and dataset.json.\n\n"
        + "\n".join(f"{name:<22}{meaning}" for name, meaning in PROTOCOLS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(verb=_split)
    parser.add_argument("folder", type=_local, metavar="DIR", help="shard folder")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), required=True, metavar="NAME", help="one of those above")
    parser.add_argument("--fractions", help="of train, dev, test (default 0.6,0.2,0.2)")
    parser.add_argument("--folds", type=int, metavar="K", help="kfold: number of folds (default 5)")
    parser.add_argument("--attack", metavar="A[,B]", help="leave_one_attack_out: what is seen in test alone")
    parser.add_argument("--domain", metavar="A[,B]", help="leave_one_domain_out: what is test")
    parser.add_argument("--dev-fraction", type=float, metavar="F", help="carve_dev: share of train (default 0.2)")
    parser.add_argument("--labels", type=_local, metavar="CSV", help="labels: a label file with a column split")
    parser.add_argument("--allow-leak", action="store_true", help="labels: take it with people in two splits")
    parser.add_argument("--seed", type=int, default=0)


def _local(text: str) -> Path:
    """A path. A URL is refused by name: a Path of it would be a folder called `s3:`."""
    if is_url(text):
        raise argparse.ArgumentTypeError(
            f"{text}: a URL; shards are built and verified in a local folder, and copied from or to a bucket "
            "(aws s3 sync, gcloud storage rsync)"
        )
    return Path(text)


def _build(arguments: argparse.Namespace) -> int:
    from shards.build import Request, build

    options = _build_options(arguments)
    if arguments.keep and arguments.reassign:
        raise UserError("--keep and --reassign: give one of them")
    start = time.monotonic()
    engine = engine_from(arguments)
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


def _plain(value: Any) -> Any:
    """As JSON has it; paths from the root, for they are read elsewhere."""
    return str(value.absolute()) if isinstance(value, Path) else value


def _merge(arguments: argparse.Namespace) -> int:
    from shards.build import Request
    from shards.build_parts import asked, merge

    start = time.monotonic()
    given = argparse.Namespace(**asked(arguments.folder))
    given.keep = given.keep and Path(given.keep)
    request = Request.read(Path(given.videos), Path(given.labels), arguments.folder, _build_options(given))
    print(_summary(merge(request), arguments.folder, time.monotonic() - start))
    return 0


def _build_options(arguments: argparse.Namespace) -> Options:
    from shards.build import Options
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


def _split_table(content: dict[str, Any]) -> str:
    lines = [f"{'split':<8}{'clips':>9}{'live':>9}{'attack':>9}{'subjects':>10}"]
    for name, counts in content["splits"].items():
        numbers = (counts["num_samples"], counts["num_live"], counts["num_attack"])
        lines.append(f"{name:<8}" + "".join(f"{number:>9,}" for number in numbers) + f"{counts['num_subjects']:>10,}")
    return "\n".join(lines)


def _summary(content: dict[str, Any], out: Path, seconds: float) -> str:
    num_bytes = sum(shard["bytes"] for shard in content["shards"])
    lines = [_split_table(content)]
    lines.append(
        f"{content['num_samples']:,} clips in {len(content['shards']):,} shards, {num_bytes / 1e6:,.1f} MB, "
        f"{seconds:.1f} s: {out}"
    )
    if content["num_rejected"]:
        lines.append(f"{content['num_rejected']:,} videos rejected, reasons in {out / 'rejected.csv'}")
    return "\n".join(lines)


def _import(arguments: argparse.Namespace) -> int:
    from shards import importers
    from shards.importers.layout import Options as ImportOptions

    columns = dict(item.partition("=")[::2] for item in arguments.columns)
    if not all(columns.values()):
        raise UserError(f"--columns {' '.join(arguments.columns)}: write FIELD=COLUMN, such as label=spoof")
    options = ImportOptions(
        arguments.protocol,
        arguments.fold,
        columns,
        arguments.invert,
        tuple(arguments.live),
        arguments.subject_pattern,
        arguments.clips,
        arguments.clip_frames,
    )
    rows = importers.read(arguments.layout, arguments.root, options, arguments.domain)
    importers.write(arguments.out, rows)
    print(importers.summary(rows))
    videos = arguments.clips or arguments.root
    left = [] if videos.is_file() else importers.without_row(videos, rows)
    if left:
        shown = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
        print(f"{len(left):,} other videos are not of this layout, or have no label ({shown}): they are left out")
    where = "VIDEOS" if videos.is_file() else videos
    skip = " --skip-unlabelled" if left else ""
    print(f"next: python -m shards build --videos {where} --labels {arguments.out} --out DIR{skip}")
    return 0


def _split(arguments: argparse.Namespace) -> int:
    from shards.resplit import Request, resplit

    names = ("fractions", "folds", "attack", "domain", "dev_fraction", "labels")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    content = resplit(
        arguments.folder, Request(arguments.protocol, arguments.seed, given, allow_leak=arguments.allow_leak)
    )
    print(_split_table(content))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from shards.format import manifest
    from shards.verify import verify

    damage = verify(arguments.folder, engine=engine_from(arguments), thorough=arguments.thorough)
    for line in damage:
        print(line)
    again = manifest.read(arguments.folder).get("resplit") if not damage else None
    whole = f"all as it was built, and split again since ({again})" if again else "all as it was built"
    print(f"{arguments.folder}: {f'{len(damage)} findings of damage' if damage else whole}")
    return EXIT_DAMAGE if damage else 0


def _demo(arguments: argparse.Namespace) -> int:
    from shards.demo import corpus

    corpus.generate(arguments.out, num_subjects=arguments.num_subjects, seed=arguments.seed)
    print(f"{arguments.out}: videos/ and label.csv")
    return 0
