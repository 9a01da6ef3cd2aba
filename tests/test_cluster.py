"""The examples of `examples/cluster/`: job scripts for Slurm run with stand-ins of its programs, and manifests fit their schemas.

A stand-in notes the words that it was called with; what it was to start is then done in this process, on small data.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pages.small import DISTIL, fake_cells

from limbeck.cli.command import Parser
from limbeck.cli.main import COMMANDS, main
from limbeck.experts.store import TrajectoryStore
from limbeck.runtime.executor import Shard

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sbatch"))
# Of sbatch's options, those that the scripts may use, and what they take.
OPTIONS = {
    "job-name": r"[\w-]+",
    "array": r"\d+(-\d+)?",
    "nodes": r"\d+",
    "ntasks": r"\d+",
    "ntasks-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "gres": r"none|gpu:\d+",
    "mem": r"\d+[MGT]",
    "time": r"\d+:\d\d:\d\d",
    "signal": r"TERM@\d+",
    "requeue": "",
    "open-mode": "append|truncate",
    "output": r"[\w%.-]+",
}
# srun takes options until the first word that is none, and does the rest; the others only note.
STUBS = {
    "srun": 'note srun "$@"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'note scontrol "$@"; tr , "\\n" <<< "$3"',
    "torchrun": 'note torchrun "$@"',
    "limbeck": 'note limbeck "$@"',
}


def directives(script: Path) -> dict[str, str]:
    """The options in a script's head, where sbatch reads them."""
    found = dict[str, str]()
    for line in script.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            break
        if line.startswith("#SBATCH "):
            name, _, value = line.removeprefix("#SBATCH --").partition("=")
            found[name] = value
    return found


@pytest.fixture
def sbatch(tmp_path: Path) -> Any:
    """Runs a script as sbatch would, once for every task of an array; what was called, word by word."""
    stubs, notes = tmp_path / "bin", tmp_path / "notes"
    stubs.mkdir()
    for name, text in STUBS.items():
        note = f"note() {{ printf '%s\\n' \"$(printf '%q ' \"$@\")\" >> {shlex.quote(str(notes))}; }}"
        (stubs / name).write_text(f"#!/bin/bash\n{note}\n{text}\n")
        (stubs / name).chmod(0o755)

    def submit(script: str, *words: str, hosts: str = "node1", real: bool = False, **given: str) -> list[list[str]]:
        if real:
            (stubs / "torchrun").write_text(f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n')
        options = directives(FOLDER / script) | {name.replace("_", "-"): value for name, value in given.items() if name.islower()}
        first, last = (int(number) for number in (options.get("array", "1-1").replace("-", " ") + " 0").split()[:2])
        tasks = range(first, max(first, last) + 1)
        about = {"SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": options["cpus-per-task"], "SLURM_JOB_NODELIST": hosts}
        about |= {"SLURM_JOB_NUM_NODES": str(hosts.count(",") + 1)} | {
            name: value for name, value in given.items() if name.isupper()
        }
        if options["gres"] != "none":
            about["SLURM_GPUS_ON_NODE"] = options["gres"].removeprefix("gpu:")
        for task in tasks:
            array = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(len(tasks))} if "array" in options else {}
            path = f"{stubs}:{os.environ['PATH']}"
            environment = (
                {name: value for name, value in os.environ.items() if name[:6] != "SLURM_"} | about | array | {"PATH": path}
            )
            subprocess.run(["bash", FOLDER / script, *words], env=environment, check=True, timeout=300)
        lines = notes.read_text().splitlines()
        notes.unlink()
        return [shlex.split(line) for line in lines]

    return submit


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_bash_and_its_options_are_sbatchs(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert {"nodes", "cpus-per-task", "mem", "time"} <= directives(script).keys() <= OPTIONS.keys()
    for name, value in directives(script).items():
        assert re.fullmatch(OPTIONS[name], value), (name, value)
    options = re.findall(r"`?sbatch ((?:--\S+ )*)", script.read_text(encoding="utf-8"))
    for name, value in re.findall(r"--([\w-]+)=([\w:-]+)", " ".join(options)):
        assert re.fullmatch(OPTIONS[name], value), (name, value)


def test_the_tasks_of_an_array_are_the_shares_of_a_command(sbatch: Any) -> None:
    called = sbatch("array.sbatch", "compare", "--methods", "edf,datm", array="1-3")
    starts = [words for words in called if words[0] == "limbeck"]
    assert [words[:-2] for words in starts] == [["limbeck", "compare", "--methods", "edf,datm"]] * 3
    assert [words[-2:] for words in starts] == [["--shard", f"{number}/3"] for number in (1, 2, 3)]
    assert [words[:2] for words in called if words[0] == "srun"] == [["srun", "--cpus-per-task=8"]] * 3
    shares = [Shard.parse(words[-1]).of(10) for words in starts]
    assert sorted(number for share in shares for number in share) == list(range(10))
    (again,) = (words for words in sbatch("array.sbatch", "compare", array="3", SHARES="4") if words[0] == "limbeck")
    assert again == ["limbeck", "compare", "--shard", "3/4"]


def test_an_array_trains_all_experts(sbatch: Any, tmp_path: Path) -> None:
    words = ["experts", "scenes", *DISTIL.split(), "experts.num_experts=3"]
    for start in sbatch("array.sbatch", *words, f"experts.store={tmp_path / 'shared'}", array="1-2"):
        assert start[0] == "srun" or main(start[1:]) == 0
    assert main([*words, f"experts.store={tmp_path / 'alone'}"]) == 0
    shared, alone = TrajectoryStore(tmp_path / "shared"), TrajectoryStore(tmp_path / "alone")
    assert shared.content == alone.content and len(shared.experts) == 3


def test_an_array_runs_all_cells_of_a_comparison(sbatch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cells(monkeypatch)
    words = ["compare", "--methods", "edf,random", "--data", "scenes", "--output", str(tmp_path / "compare")]
    finished = []
    for start in sbatch("array.sbatch", *words, array="1-2"):
        if start[0] == "limbeck":
            assert main(start[1:]) == 0
            finished.append(len(list((tmp_path / "compare" / "cells").glob("*.json"))))
    assert finished == [3, 6]  # two methods on three seeds


@pytest.mark.parametrize("hosts", ["node1", "node1,node2"])
def test_torchrun_starts_a_process_a_gpu_on_every_node(hosts: str, sbatch: Any) -> None:
    from torch.distributed.run import get_args_parser

    called = sbatch("torchrun.sbatch", "scenes", "--output", "runs/x y", hosts=hosts)
    assert called[0][:3] == ["scontrol", "show", "hostnames"]
    (start,) = (words for words in called if words[0] == "torchrun")
    found = get_args_parser().parse_args(start[1:])
    assert found.nnodes == str(hosts.count(",") + 1)
    assert (found.nproc_per_node, found.max_restarts) == ("4", 3)
    assert (found.rdzv_backend, found.rdzv_endpoint, found.rdzv_id) == ("c10d", "node1:24711", "4711")
    assert (found.module, found.training_script) == (True, "limbeck")
    assert found.training_script_args == ["distill", "scenes", "--output", "runs/x y", "--resume"]


def test_without_gpus_it_is_a_process_a_core(sbatch: Any) -> None:
    (start,) = (words for words in sbatch("torchrun.sbatch", "scenes", gres="none", cpus_per_task="2") if words[0] == "torchrun")
    assert start[start.index("--nproc-per-node") + 1] == "2"


@pytest.mark.slow
def test_the_script_distils_on_two_ranks(sbatch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parents[1]))
    words = ["scenes", *DISTIL.split(), "engine.device=cpu", "--output", str(tmp_path / "run")]
    for _ in range(2):  # with --resume: the second time it is there
        sbatch("torchrun.sbatch", *words, hosts="localhost", real=True, gres="none", cpus_per_task="2")
    state = json.loads((tmp_path / "run" / "state.json").read_text(encoding="utf-8"))
    assert state["resolved"]["ranks"] == 2 and (tmp_path / "run" / "results.json").exists()


def manifest(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")))


def test_the_ray_cluster_fits_rays_schema() -> None:
    ray = importlib.util.find_spec("ray")
    if ray is None or ray.origin is None:
        pytest.skip("ray is not installed")
    schema = json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    held = manifest("ray.yaml")
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(held, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(held | {"workers": 2}, schema)
    # What ray asks of machines that are there already, beyond its schema: addresses, and no types of nodes.
    assert held["provider"].keys() == {"type", "head_ip", "worker_ips"} and "available_node_types" not in held
    assert held["max_workers"] == len(held["provider"]["worker_ips"])


def record(required: str, **fields: Any) -> dict[str, Any]:
    """An object of these fields, of which some are required, and no others."""
    return {"type": "object", "required": required.split(), "properties": fields, "additionalProperties": False}


def many(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": item}


# Of the custom resource ray.io/v1 RayJob and of pods what the manifest uses, by the references of KubeRay (1.4) and Kubernetes.
TEXT, YES_OR_NO, COUNT = {"type": "string", "minLength": 1}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
NAME = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|[KMGT]i|[MGT])?$"}
AMOUNTS = {"type": "object", "propertyNames": {"pattern": r"^(cpu|memory|[a-z.]+/[a-z]+)$"}, "additionalProperties": QUANTITY}
CONTAINER = record(
    "name image",
    name=NAME,
    image=TEXT,
    env=many(record("name value", name={"type": "string", "pattern": "^[A-Z_]+$"}, value={"type": "string"})),
    resources=record("", requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts=many(record("name mountPath", name=NAME, mountPath={"type": "string", "pattern": "^/"}, readOnly=YES_OR_NO)),
)
VOLUME = {
    **record(
        "name",
        name=NAME,
        persistentVolumeClaim=record("claimName", claimName=NAME, readOnly=YES_OR_NO),
        emptyDir=record("", medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
    ),
    "minProperties": 2,
    "maxProperties": 2,
}
POD = record("spec", spec=record("containers", containers=many(CONTAINER), volumes=many(VOLUME)))
PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}  # of `ray start`, all of them strings
WORKERS = record(
    "groupName minReplicas maxReplicas rayStartParams template",
    **dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), COUNT),
    groupName=NAME,
    rayStartParams=PARAMETERS,
    template=POD,
)
RAY_JOB = record(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=record("name", name={**NAME, "maxLength": 47}, namespace=NAME),
    spec={
        **record(
            "entrypoint rayClusterSpec",
            entrypoint=TEXT,
            shutdownAfterJobFinishes=YES_OR_NO,
            ttlSecondsAfterFinished=COUNT,
            backoffLimit=COUNT,
            activeDeadlineSeconds={"type": "integer", "minimum": 1},
            runtimeEnvYAML=TEXT,
            submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
            rayClusterSpec=record(
                "headGroupSpec",
                rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
                headGroupSpec=record("rayStartParams template", rayStartParams=PARAMETERS, template=POD),
                workerGroupSpecs=many(WORKERS),
            ),
        ),
        # The operator refuses a time to live of a cluster that is not to be shut down.
        "dependentSchemas": {"ttlSecondsAfterFinished": {"properties": {"shutdownAfterJobFinishes": {"const": True}}}},
    },
)


def test_the_job_of_kubernetes_fits_the_schema_of_its_resource() -> None:
    held = manifest("rayjob.yaml")
    jsonschema.validate(held, RAY_JOB, cls=jsonschema.Draft202012Validator)
    for wrong in ({"entryPoint": "x"}, {"entrypoint": 3}, {"backoffLimit": -1}, {"shutdownAfterJobFinishes": False}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(held | {"spec": held["spec"] | wrong}, RAY_JOB, cls=jsonschema.Draft202012Validator)


def test_what_is_mounted_is_there_and_minima_are_within_maxima() -> None:
    cluster = manifest("rayjob.yaml")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
            assert container["resources"]["requests"] == container["resources"]["limits"]
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def commands() -> list[list[str]]:
    """The words behind `limbeck` of the commands that the manifests have, or speak of."""
    spoken = re.findall(r"^# +(.*limbeck .*)$", (FOLDER / "ray.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    texts = [manifest("rayjob.yaml")["spec"]["entrypoint"], *(text for text in spoken if "--executor" in text)]
    return [shlex.split(text.removeprefix("cd /shared && limbeck ")) for text in texts]


def test_the_command_beside_a_ray_cluster_has_limbeck_and_the_cache_of_its_machines() -> None:
    said = (FOLDER / "ray.yaml").read_text(encoding="utf-8")
    (exports,) = re.findall(r"^# +export (.*)$", said, re.MULTILINE)
    begun = manifest("ray.yaml")
    pip = next(one for one in begun["setup_commands"] if "/pip install" in one)
    assert f"PATH={pip.partition('/pip ')[0]}:$PATH" in exports.split()
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert begun[name][-1].split()[0] in exports.split()


def test_the_commands_of_manifests_are_limbecks() -> None:
    assert len(commands()) == 2
    for name, *rest in commands():
        parser = Parser()
        COMMANDS[name].add_arguments(parser)
        given = parser.parse_intermixed_args(rest)
        # Tasks see no GPU unless they ask for one; what is written to is below the folder that all machines see.
        assert (given.executor, given.address, given.output) == ("ray", "auto", "compare") and given.gpus == 1
