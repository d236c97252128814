"""`livetrain submit`: what it asks SLURM for, what it leaves in the run directory, what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from livetrain import cli
from livetrain.config import load_config, to_yaml
from livetrain.data import Dataset
from livetrain.jobs import array, ledger, submit
from livetrain.tracking.environment import code_version
from shards import cli as shards_cli
from tests.slurm import cluster as slurm

REPO = Path(__file__).parents[2]


def dry_run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["submit", "data.shards=x", *map(str, arguments), "--dry-run"]) == 0
    return capsys.readouterr().out


def test_dry_run_shows_the_call_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    said = dry_run(
        capsys, "configs/base.yaml", f"run_dir={run}", "--nodes", 4, "--gpus-per-node", 8, "--time", "1:00:00"
    )
    for option in (
        "--nodes=4",
        "--gpus-per-node=8",
        "--time=1:00:00",
        "--signal=B:USR1@180",
        f"--output={run}/job.log",
    ):
        assert option in said
    assert f"LIVETRAIN_CODE={run}/code" in said and "LIVETRAIN_PROCESSES_PER_NODE=8" in said
    assert not run.exists()


def test_the_cluster_file_says_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site.yaml").write_text(
        "partition: gpu\naccount: faces\ntime: '3:00:00'\nstop_seconds_before_limit: 60\ncpus_per_task: 32\n"
        "python: /opt/python\nsetup: [module load cuda/13, export NCCL_DEBUG=INFO]\n"
        "container: apptainer exec --nv a.sif\nsrun_options: [--cpu-bind=none]\nsbatch_options: [--exclusive]\n"
    )
    said = dry_run(capsys, "configs/base.yaml", f"run_dir={tmp_path}/run", "--cluster", tmp_path / "site.yaml")
    for part in ("--partition=gpu", "--account=faces", "--time=3:00:00", "@60", "--cpus-per-task=32", "--exclusive"):
        assert part in said
    for part in ("LIVETRAIN_PYTHON=/opt/python", "'apptainer exec --nv a.sif'", "LIVETRAIN_SRUN=--cpu-bind=none"):
        assert part in said
    assert "module load cuda/13\nexport NCCL_DEBUG=INFO" in said and "--qos" not in said and "--gpus" not in said


def test_what_follows_runs_in_the_same_environment_with_resources_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options of the container go along; a leaderboard asks for no GPU, an evaluation for one; none waits for ever."""
    (tmp_path / "site.yaml").write_text(
        "partition: gpu\ncpus_per_task: 32\nsetup: [module load cuda]\nsrun_options: [--container-image=a.sqsh]\n"
        "sbatch_options: [--exclude=n7]\n"
    )
    asked = [
        "configs/base.yaml",
        f"run_dir={tmp_path}/a run",
        "--cluster",
        tmp_path / "site.yaml",
        "--gpus-per-node",
        8,
    ]
    for more, what, gpus in (
        (["--array", "seed=0..1"], "leaderboard", ""),
        (["--evaluate-on", "s3://bucket/other"], "evaluate", "--gpus-per-node=1"),
    ):
        second = dry_run(capsys, *asked, "--nodes", 2, *more).split("sbatch --parsable")[2]
        first = dry_run(capsys, *asked, "--nodes", 2, *more)
        assert "--gpus-per-node=8" in first and first.count("LIVETRAIN_SRUN=--container-image=a.sqsh") == 2
        for part in (
            "--nodes=1",
            "--partition=gpu",
            "--exclude=n7",
            "--kill-on-invalid-dep=yes",
            f"verb.sbatch' {what} ",
        ):
            assert part in second, part
        assert ("--gpus" in second) == bool(gpus) and gpus in second and "--wrap" not in second
    assert "data.shards=s3://bucket/other" in second and "on-other" in second


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("30", 1800), ("10:30", 630), ("1:00:00", 3600), ("2-0", 172800), ("1-12:30", 131400), ("0", float("inf"))],
)
def test_time_limits(limit: str, seconds: float) -> None:
    assert submit.seconds_of(limit) == seconds


def test_a_lead_as_long_as_the_job_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["submit", "data.shards=x", "--time", "00:03:00", "--dry-run"]) == 2
    assert "--time 00:03:00 is no longer than stop_seconds_before_limit=180" in capsys.readouterr().err
    assert cli.main(["submit", "data.shards=x", "--time", "soon", "--dry-run"]) == 2


def test_the_shipped_cluster_file_has_every_key() -> None:
    assert submit.load_cluster(REPO / "slurm" / "cluster.yaml") == submit.Cluster()


def test_the_home_directory_in_a_cluster_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    (tmp_path / "cluster.yaml").write_text("python: ~/venv/bin/python\nsetup: [source ~/it]\n")
    found = submit.load_cluster(tmp_path / "cluster.yaml")
    assert (found.python, list(found.setup)) == ("/home/ann/venv/bin/python", ["source ~/it"]), "a shell runs setup"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--cluster", "absent.yaml"], "absent.yaml: no such file"),
        (["--cluster", "typo.yaml"], "typo.yaml: .*partitoin.*it may hold: partition"),
        (["--cluster", "gap.yaml"], r"gap.yaml: partition: \?\?\? stands for a value that is still to be given"),
        (["--array", "absent.txt"], "absent.txt"),
        (["--array", "bad.txt"], r"bad.txt, line 2: must hold `key=value`"),
        (["--array", "good.txt", "--evaluate-on", "x"], "--array makes many"),
        (["--array", "good.txt", "--folds"], "--folds is an array already"),
        (["--array", "seed=3..1"], "'3..1' ends before it begins"),
        (["--array", "seed=1 optim.lr"], "'optim.lr' is not key=value"),
        (["--array", "optim.lrr=1,2"], "unknown key optim.lrr; did you mean optim.lr"),
        (["--array", "optim.lr=fast,2"], "optim.lr"),
        (["--nodes", "two"], "--nodes"),
        (["--gpu", "2"], "unknown option --gpu"),
        (["optim.lrr=1"], "optim.lr"),
        (["name=a b"], "to name a job"),
    ],
)
def test_mistakes_are_told_before_anything_is_queued(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("typo.yaml").write_text("partitoin: gpu\n")
    Path("gap.yaml").write_text("partition: ???\n")
    Path("bad.txt").write_text("optim.lr=1e-3\nseed 3\n")
    Path("good.txt").write_text("seed=1\n")
    assert cli.main(["submit", "data.shards=x", *arguments]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not Path("runs").exists()


@pytest.fixture
def fake_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that writes down how it was called and answers with a number, as the real one does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "sbatch"
    script.write_text('#!/bin/sh\necho "$LIVETRAIN_ARRAY $@" >> "$CALLS"\ngrep -c parsable "$CALLS"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_the_run_directory_gets_code_and_configuration(
    fake_sbatch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [str(REPO / "configs" / "quickstart.yaml"), "run_dir=run", "data.shards=shards", "seed=7"]
    assert cli.main(["submit", *asked, "--evaluate-on", "other"]) == 0
    assert capsys.readouterr().out.startswith(f"job 1: {tmp_path}/run\njob 2, after it")
    run = tmp_path / "run"
    config = load_config([run / "submitted.yaml"], [], warn=print)
    assert (config.seed, config.data.shards, config.run_dir) == (7, f"{tmp_path}/shards", str(run))
    (code,) = run.glob("code-*")
    for name in (
        "livetrain/train.py",
        "livetrain/report/report.html.j2",
        "shards/format/tar.py",
        "slurm/train.sbatch",
    ):
        assert (code / name).read_bytes() == (REPO / name).read_bytes()
    assert os.access(code / "slurm" / "train.sbatch", os.X_OK)
    assert code_version(code) == code_version(REPO), "the commit at submission"
    first, second = fake_sbatch.read_text().split("\n", 1)
    (submitted,) = run.glob("submitted-*.yaml")
    assert f"{code}/slurm/train.sbatch {submitted}" in first and "--dependency=singleton" in first
    assert "--dependency=afterok:1" in second and f"data.shards={tmp_path}/other run_dir={run}/on-other" in second
    jobs = ledger.read(run)
    assert [(job.job, job.what, job.runs) for job in jobs] == [
        ("1", "train", [str(run)]),
        ("2", "evaluate", [str(run)]),
    ]
    assert jobs[0].commit == code_version(REPO) and jobs[0].code == str(code) and jobs[0].command[0] == "sbatch"


def test_what_is_queued_does_not_change(fake_sbatch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another configuration, then other code, are submitted while the first job waits."""
    repo = tmp_path / "repo"
    for name in ("livetrain/train.py", "slurm/train.sbatch", "slurm/verb.sbatch", "configs/base.yaml"):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        (repo / name).write_text(f"{name}\n")
    git = ["git", "-C", str(repo), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(submit, "REPO", repo)
    asked = ["submit", "data.shards=x", f"run_dir={tmp_path}/run"]
    assert cli.main(asked) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*-*") if path.is_file()}
    assert cli.main(asked) == 0 and cli.main([*asked, "seed=3"]) == 0
    assert len(list((tmp_path / "run").glob("code-*"))) == 1 and len(list((tmp_path / "run").glob("submitted-*"))) == 2
    (repo / "livetrain" / "train.py").write_text("changed\n")
    (repo / "livetrain" / "new.py").write_text("new\n")
    (repo / "livetrain" / "__pycache__").mkdir()
    (repo / "livetrain" / "__pycache__" / "a.pyc").write_text("")
    assert cli.main(asked) == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    first, second = sorted((tmp_path / "run").glob("code-*"), key=lambda path: path.stat().st_mtime)
    assert not (first / "CHANGES.patch").exists() and not list(second.rglob("*.pyc"))
    patch = (second / "CHANGES.patch").read_text()
    assert "+changed" in patch and "+new" in patch and (second / "livetrain" / "new.py").exists()
    jobs = ledger.read(tmp_path / "run")
    assert [job.code for job in jobs] == [str(first)] * 3 + [str(second)]
    assert jobs[-1].commit == f"{jobs[0].commit}+changes"
    names = {item for job in jobs for item in job.command if item.startswith("--job-name=")}
    assert len(names) == 1, "one after the other"
    assert cli.main(["submit", "data.shards=x", f"run_dir={tmp_path}/other"]) == 0
    assert ledger.read(tmp_path / "other")[0].command[2] not in names, "another run of the same name does not wait"


def test_an_array_has_a_run_for_each_line(
    fake_sbatch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("optim.lr=1e-3\noptim.lr=3e-3 seed=2\n")
    assert cli.main(["submit", "data.shards=x", f"run_dir={tmp_path}/run", "--array", str(tmp_path / "a.txt")]) == 0
    first, second, _ = fake_sbatch.read_text().split("\n", 2)
    (kept,) = (tmp_path / "run").glob("array-*.txt")
    assert "--array=0-1 " in first and first.startswith(f"{kept} ") and "singleton" not in first
    assert (
        "--dependency=afterany:1" in second
        and f"/slurm/verb.sbatch leaderboard {tmp_path}/run" in fake_sbatch.read_text()
    )
    assert kept.read_text() == (tmp_path / "run" / "array.txt").read_text()
    assert (tmp_path / "run" / "array.txt").read_text().splitlines() == [
        f"optim.lr=1e-3 run_dir={tmp_path}/run/task-0",
        f"optim.lr=3e-3 seed=2 run_dir={tmp_path}/run/task-1",
    ]


def test_an_array_does_not_take_other_runs_for_its_own(
    fake_sbatch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task's folder with a run of other settings is refused before anything is submitted; its own continues."""
    monkeypatch.chdir(tmp_path)
    asked = ["submit", "data.shards=x", "run_dir=run", "--array", "optim.lr=1e-3,3e-3"]
    task = tmp_path / "run" / "task-1"
    task.mkdir(parents=True)
    own = load_config([], [f"data.shards={tmp_path}/x", f"run_dir={task}", "optim.lr=3e-3"], warn=print)
    (task / "config.yaml").write_text(to_yaml(own))
    assert cli.main(asked) == 0
    submitted = fake_sbatch.read_text()
    assert cli.main([*asked[:-1], "optim.lr=1e-3,5e-3"]) == 2
    said = capsys.readouterr().err
    assert f"{task} holds a run with other settings: optim.lr was 0.003 and is 0.005" in said
    assert fake_sbatch.read_text() == submitted


def test_an_array_of_values_has_a_run_for_each_combination() -> None:
    assert array.combinations("seed=0..2") == ["seed=0", "seed=1", "seed=2"]
    assert array.combinations("data.fold=3..4/5") == ["data.fold=3/5", "data.fold=4/5"]
    assert array.combinations("seed=7 model.pool=mean,max optim.lr=1e-3") == [
        "seed=7 model.pool=mean optim.lr=1e-3", "seed=7 model.pool=max optim.lr=1e-3",
    ]  # fmt: skip
    assert array.combinations("data.sources=[a,b],[c]") == ["'data.sources=[a,b]'", "'data.sources=[c]'"]
    assert array.combinations("data.weights=[1, 2],[2, 1]  seed=1,2")[3] == "'data.weights=[2, 1]' seed=2"


def test_an_array_is_no_longer_than_the_cluster_takes_and_may_be_throttled(
    fake_sbatch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scontrol = fake_sbatch.parent / "bin" / "scontrol"
    scontrol.write_text("#!/bin/sh\necho 'MaxArraySize            = 4'\n")
    scontrol.chmod(0o755)
    asked = ["submit", "data.shards=x", f"run_dir={tmp_path}/run", "--array"]
    assert cli.main([*asked, "seed=0..3"]) == 2
    assert "an array of 4 runs is more than this cluster takes (MaxArraySize=4)" in capsys.readouterr().err
    assert cli.main([*asked, "seed=0..2", "--at-once", "2"]) == 0
    assert "--array=0-2%2 " in fake_sbatch.read_text()
    assert cli.main(["submit", "data.shards=x", f"run_dir={tmp_path}/b", "--at-once", "2"]) == 2


def test_a_job_for_each_fold(fake_sbatch: Path, demo_videos: Path, tmp_path: Path) -> None:
    build = ["build", "--videos", demo_videos / "videos", "--labels", demo_videos / "label.csv", "--folds", "3"]
    assert shards_cli.main([*map(str, build), "--out", str(tmp_path / "folds")]) == 0
    asked = [f"data.shards={tmp_path / 'folds'}", f"run_dir={tmp_path / 'run'}", "--folds"]
    assert cli.main(["submit", *asked]) == 0
    called = fake_sbatch.read_text()
    assert "--array=0-2" in called and "--dependency=afterok:1" in called
    (submitted,) = (tmp_path / "run").glob("submitted-*.yaml")
    assert f"/slurm/verb.sbatch cv {submitted}" in called
    lines = (tmp_path / "run" / "array.txt").read_text().splitlines()
    assert lines[1] == f"data.fold=1/3 name=run-fold-1 run_dir={tmp_path}/run/fold-1"
    dataset = Dataset.open(tmp_path / "folds")
    people = [set(dataset.columns["subject"].take(dataset.rows(f"fold{n}")).to_pylist()) for n in range(3)]
    assert len(set.union(*people)) == sum(map(len, people)) == 6, "no person in two folds"
    for line in lines:
        config = load_config([], [f"data.shards={tmp_path / 'folds'}", *line.split()], warn=print)
        parts = [dataset.rows(getattr(config.data, f"{name}_split")) for name in ("train", "dev", "test")]
        assert sorted(row for rows in parts for row in rows) == list(range(len(dataset)))


def test_folds_need_shards_with_folds(demo_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["submit", f"data.shards={demo_shards}", f"run_dir={tmp_path / 'run'}", "--folds"]) == 2
    assert "build it with --folds K" in capsys.readouterr().err


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    job = submit.Job(["sbatch", "x"], {})
    with pytest.raises(submit.UserError, match="sbatch is not on PATH"):
        submit.sbatch(job)


def test_the_batch_script_outside_of_a_job() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    done = subprocess.run([REPO / "slurm" / "train.sbatch"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "this is a batch script" in done.stderr


def test_why_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm.shutil, "which", lambda name, path=None: None)
    assert "apt-get install slurm-wlm" in slurm.missing()


STAND_INS = {
    # srun gives the options away and runs the command, as on a node; its Python is not the batch host's.
    "srun": '#!/bin/bash\necho "srun $SRUN_CPUS_PER_TASK $*" >>"$CALLS"\nwhile [[ "$1" == -* ]]; do shift; done\n'
    'PATH="$NODE:$PATH" exec "$@"\n',
    "scontrol": '#!/bin/bash\ncase "$1 $2" in\n"show hostnames") echo n0 ;;\n'
    '"show node") echo "NodeName=n0 NodeAddr=10.0.0.1 X=1" ;;\n*) echo "scontrol $*" >>"$CALLS" ;;\nesac\n',
    "sandboxed": '#!/bin/bash\n[[ "$PATH" == "$NODE:"* ]] || exit 126\nexec "$@"\n',
    "python": '#!/bin/bash\necho "python $SET_UP $*" >>"$CALLS"\n'
    '[[ "$2" == livetrain.cli ]] && exit "$TRAINED"\nexit "$AGAIN"\n',
}


def run_batch(script: str, arguments: list[str], folder: Path, **variables: str) -> tuple[int, list[str]]:
    """(exit code, calls) of a batch script with stand-ins for SLURM, and a Python that works inside of srun alone."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in STAND_INS.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    calls = folder / "calls"
    calls.write_text("")
    environment = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "CALLS": str(calls), "NODE": str(folder / "node"),
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n0", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
        "SLURM_CPUS_PER_TASK": "12", "LIVETRAIN_CODE": str(folder), "LIVETRAIN_PYTHON": str(folder / "bin" / "python"),
        "LIVETRAIN_CONTAINER": "sandboxed", "LIVETRAIN_SETUP": "export SET_UP=yes", "LIVETRAIN_SRUN": "--image=a.sqsh",
        "TRAINED": "0", "AGAIN": "1",
    }  # fmt: skip
    command = ["bash", str(REPO / "slurm" / script), *arguments]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=50)
    return done.returncode, calls.read_text().splitlines()


@pytest.mark.parametrize(
    ("trained", "again", "requeued"),
    [("75", "0", True), ("137", "1", False), ("75", "127", True), ("2", "127", False), ("0", "1", False)],
)
def test_whether_to_go_on_is_decided_where_the_run_was(
    trained: str, again: str, requeued: bool, tmp_path: Path
) -> None:
    """In its container, with its modules and image; where that cannot be asked, the exit code decides."""
    code, calls = run_batch("train.sbatch", ["a.yaml", "name=b c"], tmp_path, TRAINED=trained, AGAIN=again)
    assert code == int(trained)
    assert ("scontrol requeue 7" in calls) == requeued
    steps = [call for call in calls if call.startswith("srun 12 ")]
    assert len(steps) == 2 and all("--image=a.sqsh" in step for step in steps), "cores and image reach both"
    train, decided = (call for call in calls if call.startswith("python yes -m livetrain."))
    assert (
        "livetrain.cli train" in train and decided == f"python yes -m livetrain.jobs.requeue {trained} a.yaml name=b c"
    )


@pytest.mark.parametrize("shards", ["", "fsdp2", "hsdp"])
def test_weights_in_shards(shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script hears of it, and Accelerate's own parser takes what it hands on."""
    said = dry_run(capsys, f"run_dir={tmp_path / 'run'}", *(["--shards", shards] if shards else []))
    assert ("LIVETRAIN_SHARDS" in said) == bool(shards) and (not shards or f"LIVETRAIN_SHARDS={shards}" in said)
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    more = {"LIVETRAIN_PROCESSES_PER_NODE": "4", "SLURM_NNODES": "2", "LIVETRAIN_SHARDS": shards}
    _, calls = run_batch("train.sbatch", ["a.yaml"], tmp_path, LIVETRAIN_CODE=str(REPO), **more)
    call = next(call for call in calls if call.startswith("python yes -m livetrain.cli train"))
    words = call.split("livetrain.cli train ")[1].removesuffix(" a.yaml").split()
    options, _, _ = _validate_launch_command(launch_command_parser().parse_args([*words, "train.py"]))
    assert (options.num_processes, options.num_machines, options.main_process_ip) == (8, 2, "10.0.0.1")
    assert (bool(options.use_fsdp), options.multi_gpu) == (bool(shards), not shards)
    assert bool(getattr(options, "use_parallelism_config", False)) == (shards == "hsdp")
    if shards:
        assert str(options.fsdp_version) == "2"
    if shards == "hsdp":
        sizes = options.parallelism_config_dp_replicate_size, options.parallelism_config_dp_shard_size
        assert sizes == (2, 4)


def test_other_verbs_run_in_the_same_environment(tmp_path: Path) -> None:
    code, calls = run_batch("verb.sbatch", ["evaluate", "a run", "data.shards=s3://b"], tmp_path, TRAINED="3")
    assert code == 3 and calls[0].startswith("srun 12 --ntasks=1 --unbuffered --image=a.sqsh bash -c")
    assert calls[-1] == "python yes -m livetrain.cli evaluate a run data.shards=s3://b"
    outside = subprocess.run(
        ["bash", str(REPO / "slurm" / "verb.sbatch")], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert outside.returncode == 2 and "this is a batch script" in outside.stderr
