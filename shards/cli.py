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
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from livetrain.core.arguments import Parser
from livetrain.core.errors import EXIT_USER_ERROR, UserError
from livetrain.core.files import is_url
from shards.cli_audit import add_audit
from shards.cli_build import add_build, place, split_table
from shards.cli_engine import add_engine, engine_from
from shards.cli_faces import add_faces

EXIT_DAMAGE = 1
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code. Invalid input is a line on standard error, without a traceback."""
    # What is freed goes back to the system; Arrow's own allocator keeps it. Read when pyarrow is imported.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
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

    add_build(verbs, _local)
    _add_import(verbs)
    _add_split(verbs)

    add_faces(verbs, _local)
    add_audit(verbs, _local)

    verify = verbs.add_parser("verify", help="read a shard folder again and name what is damaged")
    verify.set_defaults(verb=_verify)
    verify.add_argument("folder", type=place, metavar="DIR", help="shard folder, or the URL of one")
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
            f"{text}: a URL; only `build` and `verify` take them. Copy it to a local folder (aws s3 sync, gcloud "
            "storage rsync)"
        )
    return Path(text)


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
    print(split_table(content))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from shards.verify import read_manifest, verify

    damage = verify(arguments.folder, engine=engine_from(arguments), thorough=arguments.thorough)
    for line in damage:
        print(line)
    again = read_manifest(arguments.folder).get("resplit") if not damage else None
    whole = f"all as it was built, and split again since ({again})" if again else "all as it was built"
    print(f"{arguments.folder}: {f'{len(damage)} findings of damage' if damage else whole}")
    return EXIT_DAMAGE if damage else 0


def _demo(arguments: argparse.Namespace) -> int:
    from shards.demo import corpus

    corpus.generate(arguments.out, num_subjects=arguments.num_subjects, seed=arguments.seed)
    print(f"{arguments.out}: videos/ and label.csv")
    return 0
