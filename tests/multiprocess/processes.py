"""Processes of one training that find each other as those of a Slurm job do."""

import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
DEVICES = 4
# jax/_src/clusters/slurm_cluster.py: the port is one of the last 4096, by the number of the job.
PORTS = range(65536 - 4096, 65536)


def free_job_number():
    """Of a port that is free; tests that run beside each other begin their search apart."""
    for further in range(len(PORTS)):
        number = (61 * os.getpid() + further) % len(PORTS)
        with socket.socket() as tried:
            if tried.connect_ex(("localhost", PORTS[number])):
                return number + len(PORTS) * (1 + os.getpid())
    raise AssertionError("no port is free")


def linear(kind):
    """One of the `KINDS` of train_linear.py."""
    return (str(HERE / "train_linear.py"), kind, f"--config={HERE / 'linear_config.py'}")


LINEAR = linear("plain")
AUTOENCODER = ("-m", "xactor_jax.main", f"--config={HERE / 'autoencoder_config.py'}")
MOTION = ("-m", "xactor_jax.main", f"--config={HERE / 'motion_config.py'}")


def start(count, workdir, *flags, training=LINEAR, joined=False):
    """Begin or continue the training in `workdir` with `count` processes and 4 devices in all.

    joined: whether one process alone also joins the others, of whom there are none.
    """
    joined = joined or count > 1
    job = str(free_job_number())
    slurm = {"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": str(count)}
    command = [
        sys.executable,
        *training,
        f"--workdir={workdir}",
        *(["--distributed"] if joined else []),
        *flags,
    ]
    processes = []
    for number in range(count):
        environment = {
            **os.environ,
            **(slurm if joined else {}),
            "SLURM_PROCID": str(number),
            "SLURM_LOCALID": str(number),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(DEVICES // count),
            "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "compiled"),
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE.parents[1])]),
        }
        with (workdir / f"errors_{number}").open("a") as errors:
            pipes = {"stdout": subprocess.PIPE, "stderr": errors}
            processes.append(subprocess.Popen(command, env=environment, text=True, **pipes))
    return processes


def until(happens, process):
    """Look again and again, a minute or several at most; whether it happened before the end."""
    for _ in range(20_000):
        if happens():
            return True
        try:
            process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        return happens()
    raise AssertionError("nothing happens")


def end_of(processes):
    """Exit codes and outputs, once all have ended."""
    outputs = [process.communicate(timeout=400)[0] for process in processes]
    return [process.returncode for process in processes], outputs
