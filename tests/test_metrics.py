import json
import math

import jax.numpy as jnp
import pytest
from tensorboardX.proto.event_pb2 import Event

from xactor_jax.metrics import MetricsWriter, NotFinite, Recorder


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def tensorboard_scalars(folder):
    """{(name, step): value} read from the record format itself: length, crc, payload, crc."""
    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
            data = data[16 + size :]
    return found


def metrics(loss):
    values = {"loss": loss, "grad_norm": 1.0, "learning_rate": 0.5}
    return {name: jnp.float32(value) for name, value in values.items()}


def test_each_step_is_one_json_object_and_one_tensorboard_point(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, {"loss": 0.5, "rate": 3})
    writer.write(2, {"loss": 0.25, "rate": math.inf})
    writer.close()
    assert lines(tmp_path) == [
        {"step": 1, "loss": 0.5, "rate": 3.0},
        {"step": 2, "loss": 0.25, "rate": None},
    ]
    assert tensorboard_scalars(tmp_path) == {("loss", 1): 0.5, ("rate", 1): 3.0, ("loss", 2): 0.25}


def test_resuming_drops_later_lines_and_a_line_cut_short(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in range(1, 6):
        writer.write(step, {"loss": step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')

    writer = MetricsWriter(tmp_path, 3)
    writer.write(4, {"loss": 40})
    writer.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 40),
    ]


def test_a_line_holds_the_means_since_the_line_before(tmp_path):
    with Recorder(tmp_path, step=0, steps=6, log_every=2, batch_size=4) as recorder:
        for step, loss in enumerate([5.0, 3.0, 2.0, 1.0, 7.0], start=1):
            recorder.submit(step, metrics(loss))
        recorder.settle()
        recorder.write({"psnr": 30.0})
        recorder.write()
    written = lines(tmp_path)
    assert [(line["step"], line["loss"]) for line in written] == [(2, 4.0), (4, 1.5), (5, 7.0)]
    assert all(line["samples_per_second"] == 4 * line["steps_per_second"] for line in written)
    assert ["evaluate/psnr" in line for line in written] == [False, False, True]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_reported_with_its_step(tmp_path, loss):
    with Recorder(tmp_path, step=0, steps=9, log_every=1, batch_size=4) as recorder:
        recorder.submit(1, metrics(1.0))
        recorder.submit(2, {**metrics(loss), "share": jnp.float32(loss)})
        with pytest.raises(NotFinite, match=f"step 2: loss is {loss}, share is {loss}$"):
            recorder.submit(3, metrics(loss))
    assert [line["step"] for line in lines(tmp_path)] == [1]


def test_steps_that_may_be_skipped_are_counted_and_not_averaged(tmp_path):
    with Recorder(tmp_path, 0, 9, log_every=2, batch_size=4, skip=1) as recorder:
        for step, loss in enumerate([5.0, math.nan, 3.0], start=1):
            recorder.submit(step, metrics(loss))
        recorder.settle()
        recorder.write()
        totals = recorder.totals()
    assert [(line["loss"], line["skipped_steps"]) for line in lines(tmp_path)] == [(5, 1), (3, 1)]
    with Recorder(tmp_path, 3, 9, 2, batch_size=4, totals=totals, skip=1) as recorder:
        recorder.submit(4, metrics(math.inf))
        with pytest.raises(NotFinite, match="after 1 such steps that were skipped"):
            recorder.settle()


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


def test_waits_utilisation_and_goodput_are_shares_of_the_clock(tmp_path):
    clock = Clock(1000.0)

    def run(recorder, steps):
        """Steps of 10 seconds: 3 of waiting for data, 7 of computing."""
        for step in steps:
            with recorder.waiting_for_data():
                clock.now += 3
            clock.now += 7
            recorder.submit(step, metrics(1.0))
        clock.now += 7  # The last one computes still.
        recorder.settle()

    with Recorder(tmp_path, 0, 9, log_every=100, batch_size=4, clock=clock) as recorder:
        recorder.seconds_at_peak = 2.0
        run(recorder, range(1, 6))
        with recorder.paused(to_save=True):
            clock.now += 20
        recorder.write()
        totals = recorder.totals()
    [line] = lines(tmp_path)
    # Of five steps the first, which compiles, is not timed; the last one ends without a wait.
    assert line["step_seconds"] == pytest.approx((3 * 10 + 7) / 4)
    assert line["data_wait_seconds"] == pytest.approx(3 * 3 / 4)
    assert line["samples_per_second"] == pytest.approx(4 / line["step_seconds"])
    assert line["checkpoint_wait_seconds"] == 20
    assert line["flops_utilisation"] == pytest.approx(2 / line["step_seconds"])
    assert line["goodput"] == pytest.approx(4 * 7 / (clock.now - 1000))

    clock.now += 500  # Until the training is started again.
    with Recorder(tmp_path, 5, 9, 100, batch_size=4, totals=totals, clock=clock) as recorder:
        run(recorder, range(6, 9))
        recorder.write()
    assert lines(tmp_path)[-1]["goodput"] == pytest.approx((4 + 2) * 7 / (clock.now - 1000))


def test_nothing_is_shown_outside_a_terminal(tmp_path, capfd):
    with Recorder(tmp_path, step=0, steps=2, log_every=1, batch_size=4) as recorder:
        recorder.submit(1, metrics(1.0))
        with recorder.paused():
            pass
        recorder.settle()
    assert capfd.readouterr() == ("", "")
