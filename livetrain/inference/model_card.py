"""README.md of a package, with the hub's header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABELS = ["attack", "live"]  # by class number: live = 1


def model_card(description: Mapping[str, Any]) -> str:
    """README.md of a package, with the hub's header: what it is, how to use it, what is known of its errors."""
    shown, config = description["preprocessing"], description["config"]
    lines = [
        "---",
        "library_name: timm",
        "tags: [face-anti-spoofing, liveness, presentation-attack-detection, livetrain]",
        "---",
        "",
        f"# {config['name']}, version {description['version']}",
        "",
        "Tells a live person in front of a camera from a presentation attack, from a short video.",
        f"A `{config['model']['backbone']}` on each of {shown['num_frames'] or 'all'} frames, {shown['size'][0]}",
        "pixels a side;",
        f"features pooled by {config['model']['pool']}; one linear head. Made by livetrain {description['livetrain']}.",
        "",
        "## Use",
        "",
        "```python",
        "from livetrain import load_model",
        'model = load_model("DIR")',
        'print(model.predict("video.mp4"))',
        "```",
        "",
        "`livetrain predict --checkpoint DIR --videos VIDEOS --out submission.csv` scores a folder.",
        '`timm.create_model("local-dir:DIR", pretrained=True)` loads the backbone alone: features of frames.',
        "",
        "## Input and output",
        "",
        *[f"- {name}: {_plain(value)}" for name, value in shown.items()],
        f"- output: {description['output']}; labels: {', '.join(f'{i} {name}' for i, name in enumerate(LABELS))}",
        f"- threshold: {_threshold_text(description)}",
        "",
        "## Errors",
        "",
        *_figures(description.get("metrics", {})),
        "",
        "Measured on the splits of the training run's own data. Other cameras, lights, people and attacks have other",
        "errors: measure on data of the place of use, and choose the threshold there.",
    ]
    return "\n".join(lines) + "\n"


def _threshold_text(description: Mapping[str, Any]) -> str:
    if description["threshold"] is None:
        return "none is known; choose one on data of your own"
    return f"accept where p_live >= {description['threshold']:.6g} (chosen on dev: {description.get('criterion')})"


def _figures(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not metrics:
        return ["None are known."]
    rows = [
        ("clips", "num_clips", 1.0, ""),
        ("people", "num_subjects", 1.0, ""),
        ("AUC", "auc", 1.0, ""),
        ("EER", "eer", 100.0, " %"),
        ("APCER, largest", "apcer_max", 100.0, " %"),
        ("BPCER", "bpcer", 100.0, " %"),
        ("HTER", "hter", 100.0, " %"),
    ]
    lines = [f"| | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for title, key, factor, unit in rows:
        values = [figures.get(key) for figures in metrics.values()]
        cells = ["unknown" if value is None else f"{value * factor:.4g}{unit}" for value in values]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _plain(value: Any) -> str:
    return ", ".join(f"{item:g}" for item in value) if isinstance(value, list) else str(value)
