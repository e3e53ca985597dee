"""The JobSet against what Kubernetes, JobSet and TPUs ask of it.

Sources: github.com/kubernetes-sigs/jobset api/jobset/v1alpha2/jobset_types.go; the Job API of
Kubernetes; cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus for chips and hosts.
"""

import math
import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml
from absl import flags

from xactor_jax import main  # defines the flags

ROOT = Path(__file__).parents[2]
CHIPS_OF_A_HOST = {"tpu-v4-podslice": 4, "tpu-v5-lite-podslice": 4, "tpu-v5p-slice": 4}


@pytest.fixture(scope="module")
def manifest():
    [found] = yaml.safe_load_all((ROOT / "launch" / "gke_jobset.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def job(manifest):
    [replicated] = manifest["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


@pytest.fixture(scope="module")
def container(job):
    [found] = job["template"]["spec"]["containers"]
    return found


def test_the_kind_and_the_names_are_valid(manifest, container):
    assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert manifest["kind"] == "JobSet"
    names = [manifest["metadata"]["name"], manifest["spec"]["replicatedJobs"][0]["name"]]
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", n) for n in [*names, container["name"]])


def test_pods_are_the_hosts_of_the_slice(job, container):
    selector = job["template"]["spec"]["nodeSelector"]
    chips = CHIPS_OF_A_HOST[selector["cloud.google.com/gke-tpu-accelerator"]]
    topology = selector["cloud.google.com/gke-tpu-topology"]
    hosts = math.prod(map(int, topology.split("x"))) // chips
    assert job["completions"] == job["parallelism"] == hosts
    resources = container["resources"]
    assert resources["limits"] == resources["requests"] == {"google.com/tpu": chips}


def failed(job, container, code):
    """Reason and message of a job of which a container ended so.

    Source: github.com/kubernetes/kubernetes pkg/controller/job/pod_failure_policy.go.
    """
    assert job["backoffLimit"] == 0
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        asked = rule["onExitCodes"]
        assert (rule["action"], asked["operator"]) == ("FailJob", "In")
        if asked["containerName"] == container["name"] and code in asked["values"]:
            return "PodFailurePolicy", (
                f"Container {container['name']} for pod default/xactor-slice-0-0-2abcd failed with "
                f"exit code {code} matching FailJob rule at index {index}"
            )
    return "BackoffLimitExceeded", "Job has reached the specified backoff limit"


def action(policy, reason, message):
    """What the JobSet does then: the first rule that matches, or a restart that counts."""
    for rule in policy["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
        patterns = rule["onJobFailureMessagePatterns"]
        matches = any(re.search(pattern, message) for pattern in patterns)
        if reason in rule["onJobFailureReasons"] and matches:
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (2, "FailJobSet"),
        (75, "RestartJobSetAndIgnoreMaxRestarts"),
        (1, "RestartJobSet"),
        (137, "RestartJobSet"),
    ],
    ids=["bad input", "planned stop", "failure", "killed"],
)
def test_all_begin_again_unless_their_input_is_bad(manifest, job, container, code, expected):
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] >= 10
    assert action(policy, *failed(job, container, code)) == expected
    # One pod alone cannot join again: the job fails at once, and the JobSet makes all anew.
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_volumes_hold_everything_that_outlives_a_pod(job, container):
    [volume] = job["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"]
    [mount] = container["volumeMounts"]
    assert mount["name"] == volume["name"]
    kept = [container["workingDir"], *(one["value"] for one in container["env"])]
    assert all(path.startswith(mount["mountPath"] + "/") for path in kept)
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


def test_the_command_is_one_that_the_training_takes(container):
    assert container["command"] == ["bash", "-ec"]
    lines = container["args"][0].replace("\\\n", " ").splitlines()
    [line] = [line for line in lines if "xactor_jax.main" in line]
    words = shlex.split(line)
    assert words[:4] == ["exec", "python", "-m", "xactor_jax.main"]
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words[4:])
    path, _, size = given["config"].partition(":")
    config = runpy.run_path(str(ROOT / path))["get_config"](size)
    for name in given:
        if name.startswith("config."):
            for part in name.split(".")[1:]:
                config = config[part]
        else:
            assert name in flags.FLAGS, name
    assert main.STOPPED.name in given
