"""Whether an hour of acting costs, minute by minute, what its first minute costs.

python -m benchmarks.hour --checkpoint=checkpoints/tiny --speech=demo/speech.wav

A voice that speaks on and on is pushed by the second, as from a microphone. Of every minute: the
processor's time, which other work on the machine hardly changes, and the memory that the
process then holds. Ratios are to the first minute after the context is full.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from xactor_jax.acting import Acting, LiveActing
from xactor_jax.command import Parser, run, start_up
from xactor_jax.data.audio_features import recording_gain
from xactor_jax.data.shards import FRAME_RATE, SAMPLE_RATE
from xactor_jax.errors import InputError
from xactor_jax.media.audio import read_mono_16k
from xactor_jax.motion_sampler import MotionSampler
from xactor_jax.progress import progress
from xactor_jax.release import MOTION_FILE


def seconds_of(speech: np.ndarray) -> Iterator[np.ndarray]:
    """The recording, again and again, a second at a time."""
    place = 0
    while True:
        yield np.take(speech, np.arange(place, place + SAMPLE_RATE), mode="wrap")
        place += SAMPLE_RATE


def measure(sampler: MotionSampler, speech: np.ndarray, minutes: int) -> dict[str, list[float]]:
    """Processor seconds, wall seconds and megabytes of every minute acted.

    Args:
      speech: samples, 16 kHz mono.
    """
    live = LiveActing(Acting(sampler, None, jax.random.key(0)), recording_gain(speech))
    voice = seconds_of(speech)
    context = sampler.config.context / FRAME_RATE
    for _ in range(int(context) + 2):  # compiles, and fills the context
        live.push(next(voice))
    found: dict[str, list[float]] = {"processor_seconds": [], "seconds": [], "megabytes": []}
    with progress("acting", minutes, "minutes") as advance:
        for _ in range(minutes):
            spent, began = time.process_time(), time.perf_counter()
            acted = sum(len(live.push(next(voice))) for _ in range(60))
            assert abs(acted - 60 * FRAME_RATE) <= sampler.config.chunk
            found["processor_seconds"].append(time.process_time() - spent)
            found["seconds"].append(time.perf_counter() - began)
            found["megabytes"].append(held_megabytes())
            advance(1)
    return found


def held_megabytes() -> float:
    """Memory that this process holds; on macOS the most that it has held.

    A peak, such as that of compiling, would hide what grows below it.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def summary(found: dict[str, list[float]]) -> dict[str, float]:
    """The last minute against the first, and how fast the hour went."""
    return {
        "minutes": len(found["seconds"]),
        "time_of_last_to_first": found["processor_seconds"][-1] / found["processor_seconds"][0],
        "time_of_second_half_to_first": float(np.divide(*halves(found["processor_seconds"]))),
        "memory_of_last_to_first": found["megabytes"][-1] / found["megabytes"][0],
        "real_time_factor": float(np.mean(found["seconds"])) / 60,
    }


def halves(values: list[float]) -> tuple[float, float]:
    """Medians of the second half and of the first."""
    middle = len(values) // 2
    return float(np.median(values[middle:])), float(np.median(values[:middle]))


def main() -> None:
    """Print the measures as JSON."""
    parser = Parser(__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", default="checkpoints/tiny", help="folder of weights")
    parser.add_argument("--speech", default="demo/speech.wav", help="a recording, to be repeated")
    parser.add_argument("--minutes", type=int, default=60, help="to act")
    parser.add_argument("--output", help="a JSON file for what every minute cost")
    chosen = parser.parse_args(sys.argv[1:])
    if chosen.minutes < 2:
        raise InputError(f"--minutes={chosen.minutes}: use 2 or more")
    start_up()
    sampler = MotionSampler.open(Path(chosen.checkpoint) / MOTION_FILE)
    speech = read_mono_16k(chosen.speech)
    found = measure(sampler, speech, chosen.minutes)
    print(json.dumps(summary(found)))
    if chosen.output:
        Path(chosen.output).write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    run(main)
