"""The configuration: what comes last wins, mistakes are named with what would be right, dead keys are warned about."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

from livetrain import config as config_module
from livetrain.config import Config, describe_keys, known_keys, load_config, to_yaml
from livetrain.core.errors import UserError

REPO = Path(__file__).parents[2]
SHARDS = "data.shards=somewhere"


def load(*overrides: str, files: list[Path] | None = None) -> tuple[Config, list[str]]:
    warnings: list[str] = []
    return load_config(files or [], [SHARDS, *overrides], warn=warnings.append), warnings


def test_command_line_beats_files_beats_defaults(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("optim: {lr: 1.0, weight_decay: 2.0}\nname: first\n")
    (tmp_path / "mine.yaml").write_text("base: base.yaml\noptim: {lr: 3.0}\n")
    config, warnings = load("optim.beta1=0.5", files=[tmp_path / "mine.yaml"])
    assert (config.optim.lr, config.optim.weight_decay, config.optim.beta1) == (3.0, 2.0, 0.5)
    assert config.optim.beta2 == Config().optim.beta2 and config.run_dir == "runs/first" and not warnings


def test_what_is_written_loads_to_the_same(tmp_path: Path) -> None:
    config, _ = load("optim.lr=1e-5", "train.precision=bf16", "augment.enabled=false", "seed=12345678901234")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config([tmp_path / "config.yaml"], [], warn=lambda line: None) == config


def test_keys_of_older_versions_load_and_are_named_where_they_had_an_effect(tmp_path: Path) -> None:
    old = tmp_path / "config.yaml"
    old.write_text(
        "verdict: {interval: bca, resample: people_then_videos, bootstrap_replicates: 2000, confidence: 0.9}\n"
    )
    config, warnings = load(files=[old])
    assert config.verdict.confidence == 0.9
    (line,) = warnings
    assert "config.yaml: verdict.resample=people_then_videos has no effect any more" in line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", r"unknown key optim\.lrr; did you mean optim\.lr\?"),
        ("lr=1", r"unknown key lr; did you mean optim\.lr\?"),
        ("train.global_bath=1", r"did you mean train\.global_batch\?"),
        ("modle.backbone=x", r"did you mean model\.backbone\?"),
        ("optim.lr=fast", r"optim\.lr.*'fast'"),
        ("data.num_frames=2.5", r"data\.num_frames.*2\.5"),
        ("augment.enabled=maybe", r"augment\.enabled"),
        ("data.fit=squash", r"data\.fit='squash' is not one of stretch, center, pad"),
        ("train.precision=fp8", r"train\.precision='fp8' is not one of fp32, bf16, fp16"),
        ("augment.flip=1.5", r"augment\.flip=1\.5 is out of range; it must be from 0 to 1"),
        ("train.epochs=-1", r"train\.epochs=-1.*at least"),
        ("optim.lr=nan", r"optim\.lr=nan is out of range"),
        ("data=3", r"data is a section; set its keys, for example data\.shards"),
        ("ddp.static_graph=true train.accumulation=2", r"static_graph=true needs train\.accumulation=1"),
        ("augment.face_scale_max=0.6", r"face_scale_min=1\.0 is above augment\.face_scale_max=0\.6"),
        ("data.face_multi_scale=[1.0,0.2]", r"data\.face_multi_scale=\[1\.0, 0\.2\] has scales outside of 0\.5 to 10"),
        ("data.face_multi_scale=[1.0] eval.tta=five_crop", r"data\.face_multi_scale and eval\.tta=five_crop both cut"),
        ("augment.crop_scale_max=0.1", r"crop_scale_min=0\.6 is above augment\.crop_scale_max=0\.1"),
        ("resume", r"not key=value"),
        ("--lr=3", r"not key=value"),
        ("data.shards=", r"data\.shards is not set"),
        ("data.sources=[a,b]", r"data\.shards and data\.sources are both set"),
        ("data.shards= data.sources=[a,b] data.weights=[1]", r"weights has 1 numbers, data\.sources 2 folders"),
        ("data.train_split=train++x", r"'train\+\+x': a name is empty"),
        ("data.train_split=train@a data.leave_out=b", r"leave_out=b does not go with data\.train_split=train@a"),
        ("data.train_split=all", r"data\.train_split=all and data\.dev_split=dev share clips"),
    ],
)
def test_mistakes_are_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(*override.split())


def test_a_configuration_leaves_no_trace_in_the_next() -> None:
    plain, _ = load()
    before = to_yaml(plain)
    changed, _ = load("optim.lr=0.5", "domains.names=[a,b]", "augment.preset=light")
    for config in (plain, changed):
        config.domains.names.append("c")
    assert to_yaml(load()[0]) == before != to_yaml(changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("optim:\n  lrr: 3\n", r"mine\.yaml: unknown key optim\.lrr; did you mean optim\.lr\?"),
        ("optim: [1, 2\n", r"mine\.yaml: cannot be read as YAML"),
        ("- a\n- b\n", r"mine\.yaml: must hold"),
        ("base: mine.yaml\n", r"leads back"),
        ("base: other.yaml\n", r"other\.yaml: no such file"),
        ("optim:\n  lr: slow\n", r"mine\.yaml: optim\.lr"),
        ("optim:\n  lr: ???\n", r"mine\.yaml: optim\.lr: \?\?\? stands for"),
        ("data:\n  sources:\n  - ???\n", r"mine\.yaml: data\.sources\.0: \?\?\? stands for"),
        ("optim:\n  lr: ${x}\n", r"mine\.yaml: optim\.lr: Interpolation key 'x' not found"),
        ("optim:\n  lr: ${name}\n", r"mine\.yaml: optim\.lr: .*could not be converted to Float"),
        ("data:\n  sources:\n  - ${oc.env:NOT_SET}\n", r"mine\.yaml: data\.sources: .*'NOT_SET' not found"),
    ],
)
def test_mistakes_in_files_name_the_file(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        load(files=[tmp_path / "mine.yaml"])


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["loss.focal_gamma=3"], "loss.focal_gamma"),
        (["augment.enabled=false", "augment.flip=0.1"], "augment.flip"),
        (["augment.blur=0", "augment.blur_sigma_max=3"], "augment.blur_sigma_max"),
        (["augment.mixup_alpha=1"], "augment.mixup_alpha"),
        (["data.frame_interval_seconds=1"], "data.frame_interval_seconds"),
        (["model.weights=x", "model.pretrained=true"], "model.pretrained"),
        (["model.freeze_backbone=true", "optim.layer_decay=0.5"], "optim.layer_decay"),
        (["optim.momentum=0.5"], "optim.momentum"),
        (["optim.name=sgd", "optim.beta1=0.5"], "optim.beta1"),
        (["optim.schedule=constant", "optim.min_lr_ratio=0.5"], "optim.min_lr_ratio"),
        (["train.max_steps=5", "train.epochs=3"], "train.epochs"),
        (["eval.use_ema=false"], "eval.use_ema"),
        (["eval.top_frames=5"], "eval.top_frames"),
        (["eval.aggregate=topk", "eval.trim=0.1"], "eval.trim"),
        (["eval.num_frames=0", "eval.batch_size=4"], "eval.batch_size"),
        (["tracking.wandb=disabled", "tracking.project=x"], "tracking.project"),
        (["data.face_scale=1.5"], "data.face_scale"),
        (["augment.face_shift=0.2"], "augment.face_shift"),
        (["data.crop=face", "data.face_multi_scale=[1.0,2.0]", "data.face_scale=1.5"], "data.face_scale"),
        (["data.crop=face", "data.face_missing=skip", "data.fit=center"], "data.fit"),
    ],
)
def test_keys_without_effect_are_warned_about(overrides: list[str], key: str) -> None:
    _, warnings = load(*overrides)
    assert [line.split()[1] for line in warnings] == [key]
    _, quiet = load(*(item for item in overrides if not item.startswith(key + "=")))
    assert quiet == []


def test_a_resolved_configuration_warns_of_nothing(tmp_path: Path) -> None:
    """config.yaml of a run names all keys; those that have no effect are as by default."""
    config, _ = load("train.max_steps=5", "tracking.wandb=disabled")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load(files=[tmp_path / "config.yaml"])[1] == []


def test_splits_that_share_people_are_refused() -> None:
    with pytest.raises(UserError, match="train_split=fold1.fold2 and data.test_split=fold2 share clips"):
        load("data.train_split=fold1+fold2", "data.dev_split=fold0", "data.test_split=fold2")


def test_a_domain_that_is_left_out_is_tested_alone(tmp_path: Path) -> None:
    keys = ["data.train_split=train+test", "data.test_split=all", "data.leave_out=msu+siw"]
    config, warnings = load("data.shards=", "data.sources=[a,b]", "data.weights=[1,0.5]", *keys)
    assert (config.data.train_split, config.data.dev_split) == ("train+test@-msu+siw", "dev@-msu+siw")
    assert (config.data.test_split, warnings) == ("all@msu+siw", [])
    assert (config.data.sources, config.data.weights) == (["a", "b"], [1.0, 0.5])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config([tmp_path / "config.yaml"], [], warn=warnings.append) == config and not warnings


def test_every_field_says_what_it_is() -> None:
    lines = {line.split("=")[0].split()[0]: line for line in describe_keys().splitlines()}
    assert lines.keys() == known_keys().keys()
    assert all(len(line.split(maxsplit=1)[1]) >= 12 for line in lines.values())


def test_every_field_is_read_somewhere() -> None:
    """No key that nothing reads: each name occurs as an attribute outside of config.py."""
    used: set[str] = set()
    for path in (REPO / "livetrain").rglob("*.py"):
        if path.name != "config.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    unread = [key for key in known_keys() if key.split(".")[-1] not in used and key != "augment.preset"]
    assert unread == []


@pytest.mark.parametrize(
    "path",
    sorted(
        [
            *(REPO / "configs").glob("*.yaml"),
            *(REPO / "configs" / "protocols").glob("*.yaml"),
            *(REPO / "configs" / "backbones").glob("*.yaml"),
        ]
    ),
    ids=lambda path: path.name,
)
def test_shipped_configurations_load_without_warnings(path: Path) -> None:
    warnings: list[str] = []
    config = load_config([path], [] if "shards" in path.read_text() else [SHARDS], warn=warnings.append)
    assert not warnings
    changed = dataclasses.asdict(config) != dataclasses.asdict(load_config([], [SHARDS], warn=warnings.append))
    assert changed and config_module.to_dict(config)["train"]["global_batch"] > 0


def test_presets_are_defaults_that_what_is_given_overrides(tmp_path: Path) -> None:
    def load(*overrides: str) -> Config:
        return load_config([], ["data.shards=x", *overrides], warn=lambda line: None)

    assert load().augment == load("augment.preset=standard").augment == Config().augment
    assert not load("augment.preset=none").augment.enabled
    strong = load("augment.jpeg=0.9", "augment.preset=strong").augment
    assert (strong.jpeg, strong.noise, strong.crop_scale_min) == (0.9, 0.3, 0.35)
    (tmp_path / "a.yaml").write_text("augment: {preset: light, color: 0.7}")
    light = load_config([tmp_path / "a.yaml"], ["data.shards=x"], warn=lambda line: None)
    assert (light.augment.color, light.augment.erase) == (0.7, 0.0)
    (tmp_path / "resolved.yaml").write_text(to_yaml(light))
    again = load_config([tmp_path / "resolved.yaml"], [], warn=lambda line: None)
    assert again == light
    with pytest.raises(UserError, match="augment.preset='wild' is not one of standard, none, light, strong"):
        load("augment.preset=wild")


def test_keys_of_shards_and_of_whole_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them have an effect is for the launcher to say."""
    lines: list[str] = []
    keys = ["data.shards=x", "fsdp.param_dtype=bf16", "ddp.bucket_mb=5"]
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    load_config([], keys, warn=lines.append)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    load_config([], keys, warn=lines.append)
    assert ["fsdp.param_dtype" in lines[0], "ddp.bucket_mb" in lines[1], len(lines)] == [True, True, 2]


def test_a_renamed_key_works_with_a_warning_in_files_and_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("data: {nvdec_lanes: 2}\n")
    config, warnings = load(files=[tmp_path / "old.yaml"])
    assert config.data.nvdec_pipelines == 2
    assert warnings == [
        f"warning: {tmp_path}/old.yaml: data.nvdec_lanes is now data.nvdec_pipelines; the old name will be removed"
    ]
    config, warnings = load("data.nvdec_lanes=3", files=[tmp_path / "old.yaml"])
    assert config.data.nvdec_pipelines == 3 and len(warnings) == 2
    with pytest.raises(UserError, match="out of range"):
        load("data.nvdec_lanes=99")
    with pytest.raises(UserError, match="are the same key; leave data.nvdec_lanes out"):
        load("data.nvdec_lanes=2", "data.nvdec_pipelines=4")


def test_the_home_directory_in_any_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run_dir=~/run` would make a folder called ~: a shell leaves it, and YAML has no shell."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yaml").write_text("data: {shards: ~/shards, cache_dir: '~'}\n")
    (tmp_path / "run.yaml").write_text("base: ~/base.yaml\nname: ${data.shards}\n")
    config = load_config([tmp_path / "run.yaml"], ["run_dir=~/run"], warn=lambda line: None)
    assert (config.data.shards, config.name, config.run_dir) == (f"{tmp_path}/shards",) * 2 + (f"{tmp_path}/run",)
    assert config.data.cache_dir == str(tmp_path)
    config = load_config([], ["data.sources=[~/c,d]"], warn=lambda line: None)
    assert list(config.data.sources) == [f"{tmp_path}/c", "d"]
