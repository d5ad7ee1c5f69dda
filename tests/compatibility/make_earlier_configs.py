"""Write `liverseg/bundle/earlier_configs.json` from the history: python tests/compatibility/make_earlier_configs.py

The file has every version of `configs/inference.yaml` between the first and the last of `COMMITS`, and, for studies,
all configs of these commits. Values are stored once per key, since versions differ in few of them.
"""

import hashlib
import itertools
import json
import subprocess
from pathlib import Path

import yaml

COMMITS = ("1f61592", "b28dc57")
BUNDLES = ("liver_lesion_joint", "liver_lesion_pretrain")
STUDIED = "liver_lesion_joint"
OVERLAYS = ((), ("phantom",), ("real_ct",))
TARGET = Path(__file__).parents[2] / "liverseg" / "bundle" / "earlier_configs.json"


def git(*words):
    run = subprocess.run(["git", *words], cwd=TARGET.parent, capture_output=True, check=False)
    return run.stdout if run.returncode == 0 else None


def config_bytes(commit, bundle, name):
    return git("show", f"{commit}:bundles/{bundle}/configs/{name}.yaml")


def strategies(commit):
    listed = git("ls-tree", "--name-only", "--full-tree", commit, f"bundles/{STUDIED}/configs/strategies/")
    return [f"strategies/{Path(line).stem}" for line in listed.decode().splitlines()]


def earlier_configs():
    first, last = COMMITS
    between = git("rev-list", "--reverse", f"{first}..{last}").decode().split()
    sources = [(commit, bundle, "inference") for commit in (first, *between) for bundle in BUNDLES]
    combined = {}
    for commit in COMMITS:
        names = strategies(commit)
        sources += [(commit, STUDIED, name) for name in ("train", "evaluate", "phantom", "real_ct", *names)]
        combined[commit] = {}
        for overlay, strategy in itertools.product(OVERLAYS, names):
            files = ["train", *overlay, strategy, "evaluate"]
            contents = [config_bytes(commit, STUDIED, name) for name in files]
            if None not in contents:
                digest = hashlib.sha256(b"".join(contents)).hexdigest()
                combined[commit][" ".join([STUDIED, *files])] = digest
    pairs, places, configs = [], {}, {}
    for commit, bundle, name in sources:
        content = config_bytes(commit, bundle, name)
        if content is None:
            continue
        entry = configs.setdefault(
            (bundle, name, content), {"bundle": bundle, "name": name, "commits": [], "pairs": []}
        )
        if commit in COMMITS or not entry["commits"]:
            entry["commits"].append(commit[:7])
        if not entry["pairs"]:
            for pair in map(list, yaml.safe_load(content).items()):
                place = places.setdefault(json.dumps(pair), len(pairs))
                if place == len(pairs):
                    pairs.append(pair)
                entry["pairs"].append(place)
    return {"configs": list(configs.values()), "combined": combined, "pairs": pairs}


def text(content):
    """Return JSON with a line for each config, hash and value."""
    compact = {"ensure_ascii": False, "separators": (",", ":")}
    configs = ",\n".join(json.dumps(entry, **compact) for entry in content["configs"])
    pairs = ",\n".join(json.dumps(pair, **compact) for pair in content["pairs"])
    return (
        f'{{"configs":[\n{configs}],\n"combined":{json.dumps(content["combined"], indent=0)},\n"pairs":[\n{pairs}]}}\n'
    )


if __name__ == "__main__":
    TARGET.write_text(text(earlier_configs()), encoding="utf-8")
