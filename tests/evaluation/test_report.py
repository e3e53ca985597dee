import io
import json

import pytest
from rich.console import Console

from xactor_jax.evaluation.plots import save_plots
from xactor_jax.evaluation.report import Bar, print_table, rows, write_results

MOTION = {
    "right": 0.8,
    "wrong": 0.3,
    "ridge": 0.78,
    "gap": 0.5,
    "best_lag": -2,
    "amplitude": 0.9,
    "ridge_amplitude": 0.7,
    "n": {"clips": 4, "frames": 300},
    "lags": [0.1] * 5 + [0.8] + [0.1] * 5,
    "curves": [{"clip": "a", "true": [0.1, 0.2, 0.1], "right": [0.1, 0.15, 0.1]}],
}
PROBES = ("yaw", "pitch", "roll", "jaw", "smile", "blink", "inner_brows", "lowered_brows")


def test_bars_say_whether_they_are_met():
    assert Bar("s", "w", "n", 0.75, None).met(0.75) is True
    assert Bar("s", "w", "n", None, 1.3).met(1.31) is False
    assert Bar("s", "w", "n", -1, 1).met(-1) is True
    assert Bar("s", "w", "n").met(5) is None
    assert Bar("s", "w", "n", 0.9, None).met(float("nan")) is False


def test_rows_hold_what_was_measured_its_goal_and_its_baselines():
    found = {row["what"]: row for row in rows({"motion": MOTION})}
    row = found["mouth opening, r with the truth"]
    assert (row["measured"], row["goal"], row["met"]) == (0.8, "≥ 0.75", True)
    assert row["baselines"] == {"ridge": 0.78}
    assert row["n"] == {"clips": 4, "frames": 300}
    assert found["best lag, frames"]["met"] is False
    assert {row["section"] for row in found.values()} == {"motion"}


def test_outside_a_terminal_the_table_is_markdown():
    text = io.StringIO()
    print_table({"motion": MOTION}, Console(file=text))
    line = next(line for line in text.getvalue().splitlines() if "best lag" in line)
    assert [cell.strip() for cell in line.split("|")[1:5]] == [
        "best lag, frames",
        "-2",
        "-1 to 1",
        "no",
    ]
    assert "\x1b" not in text.getvalue()


def test_results_are_valid_json_even_where_a_number_is_not_finite(tmp_path):
    broken = {**MOTION, "gap": float("nan")}
    path = write_results(tmp_path, {"clips": 4}, {"motion": broken})
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["numbers"]["motion"]["gap"] is None
    assert content["flags"] == {"clips": 4}
    assert len(content["table"]) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("section", "numbers"),
    [
        ("motion", MOTION),
        ("reenactment", {"curves": MOTION["curves"]}),
        ("speech", {"lags": [0.1] * 25, "true_lags": [0.2] * 25}),
        (
            "identity",
            {f"{name}{end}": 0.5 for name in PROBES for end in ("", "_pixels")}
            | dict.fromkeys(("identity", "identity_true_motion", "identity_pixels", "chance"), 0.1),
        ),
    ],
)
def test_every_section_is_plotted(tmp_path, section, numbers):
    paths = save_plots(tmp_path, section, numbers)
    assert paths
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
