"""The only training loop. A task says what is learnt; this file says in which order things happen.

Every pass of the loop: evaluate, save, next batch, step, and only then look at the step before, so
that the device never waits for the host. The order must not change: what is saved at step n is the
state after n updates and the position after n batches, which makes a resumed run bit for bit the
uninterrupted one.

A config has steps, log_every, save_every and evaluate_every (in steps), keep_last and keep_every
(checkpoints), skip_nonfinite (steps), profile_steps, batch_size (examples of all processes), seed,
mesh {replica, fsdp, context, tensor}, optimizer {learning_rate, warmup_steps, schedule,
weight_decay, b1, b2, clip_norm, slowed (optim.py), ema_decay, accumulate (slices of a batch),
frozen (parts that do not learn)},
initial_weights (a weights file to start from, or ""), weights_dtype (of exported weights),
read_threads and read_workers (processes).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from xactor_jax.checkpoint import Checkpoints
from xactor_jax.data.pipeline import Batches, Source
from xactor_jax.errors import InputError
from xactor_jax.metrics import NotFinite, Recorder
from xactor_jax.optim import make_optimizer, update_ema, updates_done, without_gradient
from xactor_jax.planning.chips import peak_arithmetic
from xactor_jax.planning.model_flops import model_flops
from xactor_jax.preemption import StopRequest
from xactor_jax.profile import Profile
from xactor_jax.sharding import check_batch, make_mesh, place, replicated, tensor_shardings
from xactor_jax.start import first_state, kept_frozen
from xactor_jax.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Any, Batch, PRNGKeyArray], tuple[TrainState, Metrics]]


class Objective(Protocol):
    """What is learnt. `params` and `frozen` are nested dicts of arrays."""

    def init(self, key: PRNGKeyArray) -> Any:
        """New parameters; traced by jit, so nothing is read from files here."""
        ...

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """Mean loss over the batch (fp32) and further scalars to log; pure, traced by jit."""
        ...


class Task(Objective, Protocol):
    """An objective and its data."""

    frozen: Any
    """Arrays that the loss reads and training never changes; may be {}. Measured anew from the data
    by every run; a training keeps to those that it began with."""

    def source(self) -> Source:
        """One epoch of training examples as small index values."""
        ...

    def load(self, element: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Read and augment one example; called from several threads at once."""
        ...

    def evaluate(self, params: Any, frozen: Any, key: PRNGKeyArray) -> dict[str, float]:
        """Numbers on held-out data; the same key at every call. Runs on every process."""
        ...

    def sample(self, params: Any, frozen: Any, key: PRNGKeyArray, folder: Path) -> None:
        """Pictures or clips into an existing folder. Runs on every process; process 0 writes."""
        ...

    def export(self, params: Any, frozen: Any, path: Path) -> None:
        """Write the weights file that the other commands read. Runs on every process."""
        ...


def make_step(
    task: Objective, optimizer: optax.GradientTransformation, schedule: optax.Schedule, config: Any
) -> Step:
    """The training step, to be traced by jit: (state, frozen, batch, key) -> (state, metrics)."""
    gradients_of = averaged_gradients(task, config.optimizer)

    def step(
        state: TrainState, frozen: Any, batch: Batch, key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        gradients, metrics = gradients_of(state.params, frozen, batch, key)
        metrics["grad_norm"] = optax.tree.norm(gradients)
        metrics["learning_rate"] = jnp.asarray(schedule(updates_done(state.opt_state)))
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update_ema(state.ema, params, config.optimizer.ema_decay, state.step)
        updated = TrainState(state.step + 1, params, ema, opt_state)
        if config.skip_nonfinite:
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
            skipped = dataclasses.replace(state, step=state.step + 1)
            updated = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, skipped)
        return updated, metrics

    return step


def jit_step(step: Step, state: Any, mesh: Mesh) -> Any:
    """The step compiled at its first call: the state that it replaces is given up for it.

    state: its arrays or their shapes. Left to the compiler, the new state might lie elsewhere.
    """
    return jax.jit(step, donate_argnums=0, out_shardings=(tensor_shardings(state, mesh), None))


def seconds_at_peak(task: Objective, params: Any, *others: Any) -> float | None:
    """Time that a step would take if all devices did its model FLOPs at their peak rate; None if
    the rate is not known. others: frozen, batch and key, as the loss takes them."""
    peak = peak_arithmetic(jax.devices()[0])
    if peak is None:
        return None
    operations = model_flops(lambda *given: task.loss(*given)[0], params, *others)
    return operations / peak / jax.device_count()


def averaged_gradients(task: Objective, optimizer: Any) -> Callable[..., tuple[Any, Metrics]]:
    """A function (params, frozen, batch, key) -> (gradients, metrics with "loss").

    To save memory it takes the batch in `optimizer.accumulate` parts, one after another, and
    averages: the same as the whole batch at once for a loss that is a mean over rows.
    """
    slices = optimizer.accumulate

    def loss_of(params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        return task.loss(without_gradient(params, optimizer.frozen), frozen, batch, key)

    value_and_gradients = jax.value_and_grad(loss_of, has_aux=True)

    def whole(params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        (loss, metrics), gradients = value_and_gradients(params, frozen, batch, key)
        return gradients, {**metrics, "loss": loss}

    def in_slices(params: Any, frozen: Any, batch: Batch, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        # Row i goes to slice i mod slices: each device keeps the rows that it already holds.
        rows = jax.tree.map(lambda x: x.reshape(-1, slices, *x.shape[1:]).swapaxes(0, 1), batch)

        def part(number: jax.Array) -> tuple[Any, Metrics]:
            one = jax.tree.map(lambda x: x[number], rows)
            return whole(params, frozen, one, jax.random.fold_in(key, number))

        def add(total: Any, number: jax.Array) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, part(number)), None

        zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(part, jnp.arange(slices)[0]))
        total, _ = jax.lax.scan(add, zero, jnp.arange(slices))
        return jax.tree.map(lambda x: x / slices, total)

    return whole if slices == 1 else in_slices


def new_state(
    task: Objective,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    given: Any = None,
) -> TrainState:
    """The state before the first step, from given parameters or new ones; traced by jit."""
    params = task.init(key) if given is None else given
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))


def make_batches(config: Any, task: Task, mesh: Mesh) -> Batches:
    """The training batches of a task, from the config's batch_size, seed and reading fields."""
    return Batches(
        task.source(),
        task.load,
        mesh,
        batch_size=config.batch_size,
        seed=config.seed,
        threads=config.read_threads,
        workers=config.read_workers,
    )


def check(config: Any) -> None:
    """Raise InputError for a period, a size or a value that the loop cannot keep to."""
    for name in ("steps", "log_every", "save_every", "evaluate_every", "batch_size"):
        if config[name] < 1:
            raise InputError(f"config.{name}={config[name]} must be at least 1")
    if config.keep_last < 1 or config.keep_every % config.save_every:
        raise InputError(
            f"config.keep_last={config.keep_last} must be at least 1, and config.keep_every="
            f"{config.keep_every} a multiple of config.save_every={config.save_every}"
        )
    if config.optimizer.accumulate < 1:
        raise InputError(
            f"config.optimizer.accumulate={config.optimizer.accumulate} must be at least 1"
        )
    if not 0 <= config.seed < 2**32:
        raise InputError(f"config.seed={config.seed} must lie from 0 to {2**32 - 1}")
    if config.weights_dtype not in ("float32", "float16"):
        raise InputError(f"config.weights_dtype={config.weights_dtype!r}: use float32 or float16")


def make_folder(workdir: Path) -> None:
    """Make a training's folder unless it is there. Raises InputError where that cannot be."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--workdir={workdir}: cannot be made ({error.strerror}); choose another"
        ) from error


def random_keys(seed: int, mesh: Mesh) -> tuple[PRNGKeyArray, ...]:
    """The four streams of a training: initial weights, steps, evaluation, samples."""

    def make() -> tuple[PRNGKeyArray, ...]:
        return tuple(jax.random.split(jax.random.key(seed, impl="rbg"), 4))

    return jax.jit(make, out_shardings=replicated(mesh))()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What the steps of a training work with. keys: of steps, evaluation and samples."""

    config: Any
    task: Task
    workdir: Path
    update: Any
    frozen: Any
    keys: Sequence[PRNGKeyArray]
    batches: Batches
    checkpoints: Checkpoints
    recorder: Recorder
    stop: StopRequest
    profile: Profile

    def loop(self, state: TrainState, start: int) -> int:
        """Steps until the last one or the request to stop; the step reached.

        Raises NotFinite for a step more than may be skipped.
        """
        config = self.config
        step = start
        while True:
            stopping = step < config.steps and self.stop.at(step)
            last = stopping or step == config.steps
            # Whoever asks to stop may not wait for an evaluation.
            if step > start and not stopping and (last or step % config.evaluate_every == 0):
                self.recorder.settle()
                self._evaluate(step, state)
            if last or (step > start and step % config.save_every == 0):
                self.recorder.settle()
                self._save(step, state, is_new=step > start)
            if last:
                self.recorder.write()
                return step
            self.profile.before(step)
            state = self._advance(step, state, is_first=step == start)
            step += 1

    def _evaluate(self, step: int, state: TrainState) -> None:
        """Evaluate the averaged weights and let them make samples."""
        folder = self.workdir / "samples" / f"step_{step:08d}"
        with self.recorder.paused():
            numbers = self.task.evaluate(state.ema, self.frozen, self.keys[1])
            folder.mkdir(parents=True, exist_ok=True)
            self.task.sample(state.ema, self.frozen, self.keys[2], folder)
        self.recorder.write(numbers)

    def _save(self, step: int, state: TrainState, is_new: bool) -> None:
        with self.recorder.paused(to_save=True):
            if is_new:
                meta = {
                    "batches": self.batches.position(),
                    "examples": self.batches.examples,
                    "config": self.config.to_dict(),
                    "totals": self.recorder.totals(),
                }
                self.checkpoints.save(step, state, meta, exported=(state.ema, self.frozen))
            self.task.export(state.ema, self.frozen, self.workdir / "model.safetensors")

    def _advance(self, step: int, state: TrainState, is_first: bool) -> TrainState:
        with self.recorder.waiting_for_data():
            batch = next(self.batches)
        inputs = (state, self.frozen, batch, self.keys[0])
        if is_first:
            self.recorder.seconds_at_peak = seconds_at_peak(self.task, state.params, *inputs[1:])
        annotation = jax.profiler.StepTraceAnnotation("train", step_num=step)
        with annotation, jax.transfer_guard("disallow"):
            state, metrics = self.update(*inputs)
        self.recorder.submit(step + 1, metrics)
        return state


def train(config: Any, task: Task, workdir: Path) -> int:
    """Train `task` in `workdir` until `config.steps`, from its newest checkpoint if it has one.

    Writes checkpoints/, frozen.safetensors (what it measured before its first step), metrics.jsonl,
    tensorboard/, samples/, model.safetensors (the averaged weights) and, for
    `config.profile_steps`, profile/ there. Returns the step reached: less than `config.steps` after
    SIGTERM or Ctrl-C.
    Raises InputError for a config that does not fit, a loss that is not finite, checkpoints that
    cannot be read or written, and reading processes that keep dying.
    """
    check(config)
    mesh = make_mesh(config.mesh)
    check_batch(config.batch_size, mesh, config.optimizer.accumulate)
    make_folder(workdir)
    init_key, *keys = random_keys(config.seed, mesh)
    optimizer, schedule = make_optimizer(config.optimizer, config.steps)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(jax.set_mesh(mesh))
        batches = stack.enter_context(contextlib.closing(make_batches(config, task, mesh)))
        folder = workdir / "checkpoints"
        checkpoints = stack.enter_context(Checkpoints(folder, config.keep_last, config.keep_every))
        make = functools.partial(new_state, task, optimizer)
        state, totals = first_state(task, make, init_key, mesh, checkpoints, batches, config)
        start = int(state.step)
        if start > config.steps:
            raise InputError(f"{workdir} is at step {start}, beyond config.steps={config.steps}")
        sizes = (config.steps, config.log_every, config.batch_size)
        recorder = Recorder(workdir, start, *sizes, totals=totals, skip=config.skip_nonfinite)
        profile = Profile(workdir / "profile", start, config.profile_steps)
        run = Run(
            config=config,
            task=task,
            workdir=workdir,
            update=jit_step(make_step(task, optimizer, schedule, config), state, mesh),
            frozen=place(kept_frozen(task.frozen, workdir, is_new=start == 0), mesh),
            keys=keys,
            batches=batches,
            checkpoints=checkpoints,
            recorder=stack.enter_context(recorder),
            stop=stop,
            profile=stack.enter_context(profile),
        )
        try:
            return run.loop(state, start)
        except NotFinite as error:
            checkpoints.wait()
            raise InputError(
                f"{error}; {checkpoints.describe_latest()}; look at the data, lower "
                "config.optimizer.learning_rate, or let some steps be skipped with "
                "config.skip_nonfinite, and run again"
            ) from None
