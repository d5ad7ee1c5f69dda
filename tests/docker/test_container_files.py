"""The Dockerfile and the files for Compose, Kubernetes and Slurm agree with the program and each other."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

import liverseg

DOCKER = Path(__file__).resolve().parents[2] / "docker"


@pytest.fixture(scope="module")
def compose():
    """Services of compose.yaml."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]


@pytest.fixture(scope="module")
def job():
    """The spec of the Kubernetes job."""
    return yaml.safe_load((DOCKER / "kubernetes-job.yaml").read_text(encoding="utf-8"))["spec"]


@pytest.fixture(scope="module")
def container(job):
    """The job's container."""
    (container,) = job["template"]["spec"]["containers"]
    return container


def seconds(text):
    """Return `60s` or `2m` in seconds."""
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


def shell(script, **environment):
    """Run a script with `sh -c` and return exit status and output."""
    done = subprocess.run(
        ["sh", "-c", script],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.returncode, done.stdout.strip() or done.stderr.strip()


def test_the_image_is_labelled_with_this_version():
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r'image\.version="(.*)"', text)[1] == liverseg.__version__


def test_the_image_runs_a_batch_by_default():
    lines = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    words = {line.split()[0]: json.loads(line.split(maxsplit=1)[1]) for line in lines if line[:3] in ("ENT", "CMD")}
    assert words == {"ENTRYPOINT": ["liverseg"], "CMD": ["batch", "/input", "/output"]}


def test_every_dependency_is_installed_by_hash():
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"docker/([\w-]+)\.lock", text)) == {"torch-cpu", "torch-cuda", "requirements", "build"}
    installs = [line for line in text.splitlines() if re.search(r"-r \S", line)]
    assert len(installs) == 3
    assert all("--require-hashes --only-binary :all:" in line for line in installs)


def test_what_the_build_needs_is_in_its_context():
    kept = (DOCKER.parent / ".dockerignore").read_text(encoding="utf-8").splitlines()
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert "docker/sbom.py" in text and "!docker/sbom.py" in kept and "!docker/*.lock" in kept
    assert {"!setup.cfg", "!pyproject.toml", "!README.md", "!LICENSE", "!liverseg", "!bundles"} <= set(kept)


@pytest.mark.parametrize("service", ["batch", "train", "train-gpu"])
def test_services_are_locked_down(compose, service):
    chosen = compose[service]
    assert chosen["read_only"] and chosen["init"] and chosen["network_mode"] == "none"
    assert chosen["cap_drop"] == ["ALL"] and chosen["security_opt"] == ["no-new-privileges:true"]
    assert not chosen["user"].startswith(("0", "root"))
    assert all(mount["read_only"] for mount in chosen["volumes"] if mount["target"] != "/output")
    assert chosen["restart"].startswith("on-failure:")  # limited: an exit code of 3 would otherwise restart it forever


def test_services_call_verbs_there_are(compose):
    assert compose["batch"]["command"][:3] == ["batch", "/input", "/output"]
    for service in ("train", "train-gpu"):
        subcommand, bundle, *overrides = compose[service]["command"]
        config = (DOCKER.parent / "bundles" / f"liver_lesion_{bundle}" / "configs" / "train.yaml").read_text("utf-8")
        assert subcommand == "train" and overrides
        assert all(re.search(rf"^{re.match('--([a-z_]+)=', option)[1]}:", config, re.MULTILINE) for option in overrides)


def test_a_case_in_hand_has_its_grace(compose, job, container):
    words = compose["batch"]["command"]
    assert seconds(compose["batch"]["stop_grace_period"]) > int(words[words.index("--grace") + 1])
    (script,) = container["args"]
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] > int(re.search(r"--grace (\d+)", script)[1])
    slurm = (DOCKER / "slurm-array.sh").read_text(encoding="utf-8")
    assert int(re.search(r"--signal=TERM@(\d+)", slurm)[1]) > int(re.search(r"--grace (\d+)", slurm)[1])


def alive_tests(compose, container):
    """Each health check's shell script, and the file it searches for from index 2 of 4."""
    kind, script = compose["batch"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    yield script.replace("$$", "$"), "alive"
    for probe in ("startupProbe", "livenessProbe"):
        words = container[probe]["exec"]["command"]
        assert words[:2] == ["sh", "-c"]
        yield words[2], "alive-3-of-4"


def test_health_is_the_age_of_the_alive_file(compose, container, tmp_path):
    checks = list(alive_tests(compose, container))
    assert len(checks) == 3
    for number, (script, name) in enumerate(checks):
        folder = tmp_path / str(number) / ".liverseg"
        folder.mkdir(parents=True)
        script = script.replace("/output", str(folder.parent))
        index = {"JOB_COMPLETION_INDEX": "2", "SHARDS": "4"}
        assert shell(script, **index)[0] == 1
        (folder / name).touch()
        assert shell(script, **index) == (0, "")
        old = time.time() - 300
        os.utime(folder / name, (old, old))
        assert shell(script, **index)[0] == 1


def test_every_index_of_the_job_is_another_shard(job, container):
    assert container["command"] == ["sh", "-c"]
    (script,) = container["args"]
    assert script.startswith("exec liverseg batch /input /output ")
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    count = job["completions"]
    assert job["completionMode"] == "Indexed" and environment["SHARDS"] == str(count)
    commands = [
        shell(script.replace("exec liverseg", "echo"), JOB_COMPLETION_INDEX=str(index), **environment)[1]
        for index in range(count)
    ]
    assert [re.search(r"--shard (\S+)", line)[1] for line in commands] == [f"{n + 1}/{count}" for n in range(count)]


def test_exit_codes_mean_to_the_job_what_they_mean_to_liverseg(job):
    assert job["template"]["spec"]["restartPolicy"] == "Never" and job["backoffLimitPerIndex"] > 0
    codes = {}
    for rule in job["podFailurePolicy"]["rules"]:
        for code in rule.get("onExitCodes", {"values": []})["values"]:
            codes[code] = rule["action"]
    assert codes == {2: "FailJob", 3: "FailIndex", 143: "Ignore"}  # 1 and 137 are retried, within the limit


def test_pods_are_locked_down(job, container):
    pod = job["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
    assert not pod["automountServiceAccountToken"]
    own = container["securityContext"]
    assert (
        own["readOnlyRootFilesystem"]
        and not own["allowPrivilegeEscalation"]
        and own["capabilities"] == {"drop": ["ALL"]}
    )
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["image"].endswith(":" + liverseg.__version__)


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_takes_the_job(version):
    validator = pytest.importorskip("kubernetes_validate")
    definition = yaml.safe_load((DOCKER / "kubernetes-job.yaml").read_text(encoding="utf-8"))
    validator.validate(definition, version, strict=True)
    definition["spec"]["compltions"] = 4
    with pytest.raises(validator.ValidationError):
        validator.validate(definition, version, strict=True)


def array_task(tmp_path, **environment):
    """Run the Slurm script as a task of an array; return exit status and stderr."""
    files = {name: str(tmp_path) for name in ("INPUT", "OUTPUT", "WEIGHTS", "IMAGE")}
    environment = {"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_COUNT": "4", **files, **environment}
    done = subprocess.run(
        ["bash", str(DOCKER / "slurm-array.sh")], env=environment, capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize("task, shards", [("0", "4"), ("5", "4"), ("9", "8")])
def test_a_task_that_is_no_shard_is_refused(tmp_path, task, shards):
    code, errors = array_task(tmp_path, SLURM_ARRAY_TASK_ID=task, SHARDS=shards)
    assert code == 2 and errors.startswith(f"slurm-array.sh: task {task} is no shard of {shards};")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    code, errors = array_task(tmp_path, SLURM_ARRAY_TASK_ID="1", INPUT=str(tmp_path / "absent"))
    assert code == 2 and "INPUT names no file or folder" in errors


def test_the_script_is_sound_shell():
    shellcheck = shutil.which("shellcheck")
    command = [shellcheck] if shellcheck else ["bash", "-n"]
    done = subprocess.run([*command, str(DOCKER / "slurm-array.sh")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
