"""The numbers of each section as a picture; each plot is made of what results.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from xactor_jax.data.shards import FRAME_RATE

_PROBES = ("yaw", "pitch", "roll", "jaw", "smile", "blink", "inner_brows", "lowered_brows")


def _figure(rows: int, height: float, columns: int = 1) -> tuple[Any, Any]:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(rows, columns, figsize=(8, height), layout="constrained", squeeze=False)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure.savefig(path, dpi=100)
    plt.close(figure)


def openings(path: Path, curves: Sequence[Mapping[str, Any]]) -> None:
    """Mouth openings over time, a clip below the other; `curves` hold `clip` and named lists."""
    figure, axes = _figure(len(curves), 1 + 1.6 * len(curves))
    for axis, clip in zip(axes[:, 0], curves, strict=True):
        for name, values in clip.items():
            if name == "clip":
                axis.set_title(values, fontsize=8)
                continue
            style = {"color": "black", "linewidth": 2} if name == "true" else {}
            axis.plot(np.arange(len(values)) / FRAME_RATE, values, label=name, **style)
        axis.set_ylabel("mouth opening")
    axes[0, 0].legend(loc="upper right")
    axes[-1, 0].set_xlabel("seconds")
    _save(figure, path)


def probes(path: Path, numbers: Mapping[str, Any]) -> None:
    """r of each probe on the latent and on pixels, and the accuracy of the identity probes."""
    figure, axes = _figure(1, 3.5, 2)
    places = np.arange(len(_PROBES))
    for shift, ending, label in ((-0.2, "", "motion latent"), (0.2, "_pixels", "12x12 pixels")):
        values = [numbers[f"{name}{ending}"] for name in _PROBES]
        axes[0, 0].bar(places + shift, values, 0.4, label=label)
    labels = [name.replace("_", "\n") for name in _PROBES]
    axes[0, 0].set_xticks(places, labels, fontsize=7)
    axes[0, 0].set(ylabel="r on unseen actors", title="motion")
    axes[0, 0].legend(fontsize=7)
    identity = {
        "motion\nlatent": numbers["identity"],
        "true\nmotion": numbers["identity_true_motion"],
        "12x12\npixels": numbers["identity_pixels"],
        "chance": numbers["chance"],
    }
    axes[0, 1].bar(list(identity), list(identity.values()), color="tab:gray")
    axes[0, 1].set(ylabel="accuracy", ylim=(0, 1), title="identity")
    _save(figure, path)


def lags(path: Path, curves: Mapping[str, Sequence[float]], score: str) -> None:
    """Agreement at each lag in frames; positive: the mouth is late."""
    figure, axes = _figure(1, 3)
    for name, values in curves.items():
        reach = len(values) // 2
        axes[0, 0].plot(np.arange(-reach, reach + 1), values, marker=".", label=name)
    axes[0, 0].axvline(0, color="gray", linewidth=0.5)
    axes[0, 0].set(xlabel="lag in frames, positive: the mouth is late", ylabel=score)
    axes[0, 0].legend()
    _save(figure, path)


# Title, and measures; those of real motion are the same whoever acts.
_PANELS = (
    ("Fréchet distance to real motion", ("frechet",)),
    ("share of real motion's movement", ("deviation_ratio", "velocity_ratio")),
    ("mouth, r with the script", ("mouth_r",)),
    ("blinks a minute", ("blinks", "blinks_true")),
    ("emotion that is heard, recognised", ("emotion_announced", "emotion_held")),
    ("emotion that is told, recognised", ("told_announced", "told_held")),
    ("yaw, range in degrees", ("yaw_range", "yaw_range_true")),
    ("pitch, range in degrees", ("pitch_range", "pitch_range_true")),
    ("distance from the portrait", ("identity",)),
    ("picture", ("colour", "sharpness")),
)


def drift(path: Path, ways: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Every measure over the minutes, of one way of acting or of several."""
    figure, axes = _figure(5, 12, 2)
    for axis, (title, names) in zip(axes.ravel(), _PANELS, strict=True):
        for n, minutes in enumerate(ways.values()):
            for name, style in zip(names, ("-", "--"), strict=False):
                if name not in minutes or (n and name.endswith("_true")):
                    continue
                values = [np.nan if v is None else v for v in minutes[name]]
                colour = "black" if name.endswith("_true") else f"C{n}"
                places = np.arange(1, len(values) + 1)
                axis.plot(places, values, style, color=colour, marker=".")
        axis.set(title=title, xlabel="minute")
        axis.set_ylim(bottom=min(0, *axis.get_ylim()))
        if len(names) > 1:
            _legend(
                axis,
                [(name, "gray", style) for name, style in zip(names, ("-", "--"), strict=True)],
            )
    if len(ways) > 1:
        named = [(way, f"C{n}", "-") for n, way in enumerate(ways)]
        _legend(figure, named, loc="outside upper center", ncols=3)
    _save(figure, path)


def _legend(place: Any, lines: Sequence[tuple[str, str, str]], **options: Any) -> None:
    """A legend of (name, colour, style), for lines that need not be drawn."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color="black" if name.endswith("_true") else colour, ls=style, label=name)
        for name, colour, style in lines
    ]
    place.legend(handles=handles, fontsize=7, **options)


def save_plots(folder: Path, section: str, numbers: Mapping[str, Any]) -> list[Path]:
    """Write the plots of one section. Returns their paths."""
    if section == "reenactment":
        openings(folder / "reenactment.png", numbers["curves"])
        return [folder / "reenactment.png"]
    if section == "identity":
        probes(folder / "identity.png", numbers)
        return [folder / "identity.png"]
    if section == "motion":
        openings(folder / "motion.png", numbers["curves"])
        lags(folder / "motion_lags.png", {"rendered": numbers["lags"]}, "r with the true opening")
        return [folder / "motion.png", folder / "motion_lags.png"]
    if section == "speech":
        curves = {"unheard speech": numbers["lags"], "true footage": numbers["true_lags"]}
        lags(folder / "speech.png", curves, "r of opening and loudness")
        return [folder / "speech.png"]
    if section == "drift":
        drift(folder / "drift.png", {"": numbers["minutes"]})
        return [folder / "drift.png"]
    return []
