"""Attack the reading of media: mutated and hostile files must end in one clear line.

    python -m experiments.fuzz_media --inputs=10000 --seeds=FOLDER --keep=findings

Files of `experiments/hostile_media.py` come first, then mutations of its ordinary clips and of the
small files in `--seeds`: cut short, bits flipped, bytes overwritten, pieces removed, doubled,
swapped, taken from another file, and lengths replaced by extreme ones. Each is decoded as
`prepare` reads it, and one in `--whole` is prepared as a whole, in a process of its own that is
watched and started again when it dies. Whatever is neither read nor refused by an InputError is a
finding: another exception, a crash, too long a time, or too much memory. Findings are kept.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import multiprocessing
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import av
import cv2

from experiments.hostile_media import hostile, ordinary
from xactor_jax.command import Parser, run
from xactor_jax.errors import InputError
from xactor_jax.media.audio import has_sound, read_mono_16k
from xactor_jax.media.image import read_image
from xactor_jax.media.video import frames_expected, read_video
from xactor_jax.preparation.clips import Refused, prepare_file
from xactor_jax.preparation.settings import Settings
from xactor_jax.progress import progress

LONGEST_SEED = 500_000  # bytes
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one file: `read`, `refused`, or a finding."""

    kind: str
    what: str
    seconds: float
    megabytes: float  # most that the process has held so far


def decode(path: Path, whole: bool) -> None:
    """Read a file as preparation does; `whole` prepares it. Raises InputError for a bad one."""
    if path.suffix in (".png", ".jpg", ".gif", ".webp"):
        read_image(path)
    elif whole:
        for one in prepare_file(path, path.name, "", Settings(size=64)):
            if isinstance(one, Refused):
                raise InputError(f"{path}: {one.reason}")
    else:
        has_sound(path)
        frames_expected(path)
        errors = []
        # Reduced, which the pictures of few of these files would be.
        for read in (read_mono_16k, lambda path: collections.deque(read_video(path, 96), 0)):
            try:
                read(path)
            except InputError as error:
                errors.append(error)
        if errors:
            raise errors[0]


def attempt(path: Path, whole: bool) -> Outcome:
    """`decode`, and what became of it."""
    start = time.perf_counter()
    kind, what = "read", ""
    try:
        decode(path, whole)
    except InputError as error:
        kind, what = "refused", str(error).replace(str(path), "FILE")
        if "\n" in what:
            kind = "more than one line"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "xactor_jax" in f.filename]
        kind = type(error).__name__
        what = f"{ours[-1].filename}:{ours[-1].lineno} from {place.name}: {error}"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Outcome(kind, what, time.perf_counter() - start, most)


def work(pipe: Connection, megabytes: float) -> None:
    """Attempt the files that come through a pipe, with some more address space than memory."""
    most = round((megabytes + 4_000) * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    cv2.setNumThreads(1)
    av.logging.set_level(None)
    while True:
        pipe.send(attempt(*pipe.recv()))


class Worker:
    """A process that attempts files; it is ended where it takes too long or holds too much."""

    def __init__(self, seconds: float, megabytes: float):
        self.seconds, self.megabytes = seconds, megabytes
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self.megabytes), daemon=True)
        self._process.start()
        theirs.close()
        self._first = True

    def __call__(self, path: Path, whole: bool) -> Outcome:
        """What becomes of a file."""
        self._pipe.send((path, whole))
        try:
            # The first file waits for the process to start.
            if not self._pipe.poll(self.seconds + 120 * self._first):
                outcome = Outcome("too long", "", self.seconds, 0)
            else:
                self._first = False
                outcome = self._pipe.recv()
                if outcome.megabytes > self.megabytes:
                    outcome = dataclasses.replace(outcome, kind="too much memory")
        except EOFError:
            self._process.join()
            outcome = Outcome("crash", f"exit code {self._process.exitcode}", 0, 0)
        if outcome.kind in ("too long", "crash", "too much memory"):
            self.close()
            self._start()
        return outcome

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The bytes of a file after one to four accidents or attacks."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if len(changed) < 16:
            break
        rng.choice(MUTATIONS)(changed, other, rng)
    return bytes(changed)


def _place(data: bytearray, rng: random.Random) -> int:
    """A place in a file, half of the time near its ends, where headers are."""
    near = min(1024, len(data) - 8)
    return rng.choice(
        (rng.randrange(near), len(data) - 8 - rng.randrange(near))
        + (rng.randrange(len(data) - 8),) * 2
    )


def _cut(data: bytearray, other: bytes, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _flip(data: bytearray, other: bytes, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 8, 64))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, other: bytes, rng: random.Random) -> None:
    at, length = _place(data, rng), rng.choice((1, 4, 32, 512))
    fill = rng.choice((b"\0", b"\xff", rng.randbytes(1)))
    data[at : at + length] = fill * len(data[at : at + length])


def _extreme(data: bytearray, other: bytes, rng: random.Random) -> None:
    at, size = _place(data, rng), rng.choice((1, 2, 4, 8))
    value = rng.choice(EXTREMES) % 256**size
    data[at : at + size] = value.to_bytes(size, rng.choice(("big", "little")))


def _piece(data: bytearray, rng: random.Random) -> slice:
    at = _place(data, rng)
    return slice(at, at + rng.choice((1, 16, 256, 4096)))


def _remove(data: bytearray, other: bytes, rng: random.Random) -> None:
    del data[_piece(data, rng)]


def _double(data: bytearray, other: bytes, rng: random.Random) -> None:
    piece = _piece(data, rng)
    data[piece.start : piece.start] = data[piece] * rng.choice((1, 1, 20))


def _swap(data: bytearray, other: bytes, rng: random.Random) -> None:
    one, two = _piece(data, rng), _piece(data, rng)
    data[one], data[two] = data[two], data[one]


def _graft(data: bytearray, other: bytes, rng: random.Random) -> None:
    piece = _piece(data, rng)
    data[piece] = other[piece]


MUTATIONS = (_cut, _flip, _overwrite, _extreme, _remove, _double, _swap, _graft)


def seeds_of(scratch: Path, folder: Path | None) -> list[tuple[str, bytes]]:
    """Suffix and bytes of what mutations begin with: three of our own for each from outside."""
    own = [(path.suffix, path.read_bytes()) for path in ordinary(scratch)]
    if folder is None:
        return own
    kinds = (".mpg", ".mp4", ".wav", ".flac", ".ogg", ".png", ".jpg")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
    small = [path for path in files if path.stat().st_size <= LONGEST_SEED]
    chosen = random.Random(0).sample(small, min(30, len(small)))
    outside = [(path.suffix.lower(), path.read_bytes()) for path in chosen]
    return own * -(-3 * len(outside) // len(own)) + outside


def main() -> None:
    """Attack, and print what was found as JSON."""
    parser = Parser(__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000, help="mutated files")
    parser.add_argument("--seeds", type=Path, help="folder with media to mutate as well")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--seconds", type=float, default=60, help="that a file may take")
    parser.add_argument("--megabytes", type=float, default=2_500, help="that reading may hold")
    parser.add_argument("--keep", type=Path, default=Path("findings"), help="folder for findings")
    parser.add_argument("--whole", type=int, default=10, help="one file in so many is prepared")
    parser.add_argument("--hostile", type=int, default=1, help="0: mutations alone")
    flags = parser.parse_args(sys.argv[1:])
    worker, kinds = Worker(flags.seconds, flags.megabytes), collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    slowest, largest = Outcome("", "", 0, 0), Outcome("", "", 0, 0)
    findings = []

    def judge(path: Path, whole: bool) -> None:
        nonlocal slowest, largest
        outcome = worker(path, whole)
        slowest = max(slowest, outcome, key=lambda o: o.seconds)
        largest = max(largest, outcome, key=lambda o: o.megabytes)
        kinds[outcome.kind] += 1
        if outcome.kind == "refused":
            reasons[re.sub(r"[-+]?\d[\d.]*", "N", outcome.what)[:80]] += 1
        elif outcome.kind != "read":
            row = {"file": os.fsencode(path.name).decode("utf-8", "backslashreplace")}
            findings.append(row | dataclasses.asdict(outcome))
            print(json.dumps(findings[-1]), file=sys.stderr, flush=True)
            flags.keep.mkdir(parents=True, exist_ok=True)
            if path.name.startswith("input"):
                (flags.keep / path.name).write_bytes(path.read_bytes())

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if flags.hostile:
            for path in hostile(scratch):
                judge(path, whole=True)
                judge(path, whole=False)
        seeds = seeds_of(scratch, flags.seeds)
        # Ctrl-C reports what was found until then.
        with (
            contextlib.suppress(KeyboardInterrupt),
            progress("attacking", flags.inputs, "files") as advance,
        ):
            for n in range(flags.inputs):
                rng = random.Random(f"{flags.seed} {n}")
                suffix, data = rng.choice(seeds)
                path = scratch / f"input{n}{suffix}"
                path.write_bytes(mutated(data, rng.choice(seeds)[1], rng))
                judge(path, whole=n % flags.whole == 0)
                path.unlink()
                advance(1)
        worker.close()
    found = {
        "inputs": sum(kinds.values()),
        "kinds": dict(kinds),
        "reasons": dict(reasons.most_common(25)),
        "slowest_seconds": slowest.seconds,
        "most_megabytes": largest.megabytes,
        "findings": findings,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    run(main)
