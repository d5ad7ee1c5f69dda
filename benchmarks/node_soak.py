"""Kill the node at random while several senders store studies, and check that nothing is lost or doubled.

    python -m benchmarks.node_soak /tmp/node-soak --studies 200 --kills 30 --seed 1

starts Orthanc as the archive (Debian: `apt-get install orthanc orthanc-dicomweb`), a node that sends to it, and four
senders. Each sender stores small random CT studies, three at once, until the node has accepted every slice: a refused
or broken transfer is repeated. Meanwhile the node gets SIGKILL at random moments and starts again. At the end:

- every accepted slice is on the node's disk,
- the archive has one SEG and one SR of the current version of every study, those that the node has prepared, and no
  other objects than the journal explains,
- every study is `sent`, no version was computed twice, and nothing is left in `incoming`,
- the memory of the listening process at the end of its last run is printed, and its growth over that run.

A study may have several versions: if its slices arrive more than `--quiet-seconds` apart, the node computes it as it is
and again when it is complete. Twenty studies and five kills (`--studies 20 --kills 5`) take a minute on two
processors. The exit code is 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import threading
import time
from pathlib import Path

import pydicom

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "pacs")]

from node_processes import Node, connect, write_ct_study  # noqa: E402
from orthanc import INSTALLED, Orthanc  # noqa: E402

SENDERS, GROUP = 4, 3
KILL_SECONDS = 12.0
"""Longest time between two kills; half of it on average."""


def random_weights(path: Path) -> Path:
    """Write random weights of a small network."""
    import torch

    from liverseg.labels import JOINT_LABELS, label_names
    from liverseg.networks import SEResUNet, SlabInput, WeightsRecord, export_weights, package_versions

    torch.manual_seed(2)
    network = SEResUNet("small", out_channels=5)
    window, labels = SlabInput((-200.0, 250.0)), label_names(JOINT_LABELS)
    versions = package_versions()
    record = WeightsRecord("SEResUNet", network.arguments(), window, labels, "none", "ab" * 32, 0, {}, versions)
    export_weights(path, network.state_dict(), record)
    return path


class Sender(threading.Thread):
    """Stores studies until the node has accepted every slice, the slices of several studies in turns.

    Args:
        port: of the node.
        studies: files of each study.
        seed: of the pauses.
        seconds: over which the studies are spread.
    """

    def __init__(self, port: int, studies: list[list[Path]], seed: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self._pause = 2 * seconds * GROUP / len(studies) if studies else 0.0
        self._port, self._studies, self._random = port, studies, random.Random(seed)
        self.accepted: set[str] = set()
        self.transfers = 0

    def run(self) -> None:
        while self._studies:
            group, self._studies = self._studies[:GROUP], self._studies[GROUP:]
            left = [path for paths in zip(*group, strict=True) for path in paths]
            while left:
                left = self._send(left)
                time.sleep(self._random.uniform(0.05, 0.3))
            time.sleep(self._random.uniform(0, self._pause))

    def _send(self, paths: list[Path]) -> list[Path]:
        """Store slices in an association; return those that were not accepted."""
        self.transfers += 1
        association = connect(self._port, ae_title=f"SENDER{self._random.randrange(100)}")
        if not association.is_established:
            time.sleep(0.5)
            return paths
        left = list(paths)
        for path in paths:
            item = pydicom.dcmread(path)
            try:
                status = association.send_c_store(item).get("Status")
            except (RuntimeError, ValueError, OSError):
                break
            if status == 0:
                self.accepted.add(item.SOPInstanceUID)
                left.remove(path)
            elif not association.is_established:
                break
            time.sleep(self._random.uniform(0, 0.02))
        if association.is_established:
            association.release()
        return left


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def run_campaign(folder: Path, studies: int, kills: int, seed: int) -> list[str]:
    """Run the campaign; return what is wrong."""
    generator = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = random_weights(folder / "joint.safetensors")
    groups: list[list[list[Path]]] = [[] for _ in range(SENDERS)]
    for number in range(studies):
        groups[number % SENDERS].append(write_ct_study(folder / "cts" / str(number), number=number + 1, slices=8))
    memory: list[float] = []
    start = time.monotonic()
    with Orthanc(folder / "archive") as archive:
        options = ["--destination", f"ORTHANC@127.0.0.1:{archive.dicom_port}", "--weights", weights, "--liver", "none"]
        options += ["--quiet-seconds", "2", "--no-preview"]
        with Node(folder / "node", *options) as node:
            senders = [
                Sender(node.port, group, seed + number, kills * KILL_SECONDS / 2) for number, group in enumerate(groups)
            ]
            for sender in senders:
                sender.start()
            killed = 0
            while killed < kills:
                time.sleep(generator.uniform(0, KILL_SECONDS))
                node.kill()
                killed += 1
                print(f"{time.monotonic() - start:.0f} s: kill {killed}, {len(node.log('sent'))} sent", flush=True)
                time.sleep(generator.uniform(0, 1))
                node.start(wait=generator.random() < 0.5)
            while True:
                time.sleep(1)
                memory.append(resident_mb(node.process.pid))
                states = list(node.states().values())
                if not any(sender.is_alive() for sender in senders) and states.count("sent") == studies:
                    break
                if node.process.poll() is not None or time.monotonic() - start > 60 * (studies + 10):
                    return [f"the node has ended, or is too slow: {sorted(states)}"]
            time.sleep(3)  # anything that is queued or sent once more shows
            code, out = node.stop()
            faults = [] if code == 0 else [f"exit code {code}: {out}"]
            faults += _check(node, archive, {uid for sender in senders for uid in sender.accepted}, studies)
            transfers = sum(sender.transfers for sender in senders)
    versions = len(node.log("queued"))
    print(f"{studies} studies, {kills} kills, {transfers} associations, {versions} versions queued")
    print(f"{time.monotonic() - start:.0f} s, memory of the node {memory[0]:.0f} to {memory[-1]:.0f} MB")
    return faults


def _check(node: Node, archive: Orthanc, accepted: set[str], studies: int) -> list[str]:
    faults = []
    stored = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in node.instances()}
    if not accepted <= stored or len(stored) != 8 * studies:
        faults.append(f"{len(accepted - stored)} accepted slices are lost, {len(stored)} are there")
    if left := [path.name for path in (node.folder / "incoming").iterdir()]:
        faults.append(f"left in incoming: {left}")
    current = {}
    for path in node.folder.glob("studies/*/study.json"):
        study = json.loads(path.read_text(encoding="utf-8"))
        index = node.folder / "outgoing" / f"{study['key']}-{study['version']}" / "objects.json"
        current[study["uid"]] = {item["uid"] for item in json.loads(index.read_text(encoding="utf-8"))}
        if study["instances"] != 8 or len(current[study["uid"]]) != 2:
            faults.append(f"{study['key']}: {study['instances']} slices, {len(current[study['uid']])} objects")
    found = [
        (item["StudyInstanceUID"], item["SOPInstanceUID"]) for kind in ("SEG", "SR") for item in archive.instances(kind)
    ]
    if len({uid for _, uid in found}) != len(found):
        faults.append("an object is in the archive twice")
    for uid, objects in current.items():
        if not objects <= {item for study, item in found if study == uid}:
            faults.append(f"{uid}: results are missing in the archive")
    done = node.log("done")
    cases = [line["case"] for line in done]
    if len(set(cases)) != len(cases):
        faults.append("a version was computed twice")
    extra = len(found) - 2 * studies
    if extra != 2 * (len({line["case"] for line in node.log("sent")}) - studies):
        faults.append(f"{extra} objects of earlier versions in the archive, which the journal does not explain")
    print(f"{len(found)} objects in the archive, {extra} of them of earlier versions")
    return faults


def main() -> int:
    """Run the campaign and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="scratch folder, which is emptied first")
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not INSTALLED:
        print("Orthanc with its DICOMweb plugin is needed")
        return 2
    faults = run_campaign(args.folder, args.studies, args.kills, args.seed)
    print("\n".join(faults) or "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
