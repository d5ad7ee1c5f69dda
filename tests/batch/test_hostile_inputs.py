"""Damaged and hostile inputs in one batch: each ends done and valid, or failed with a category."""

import random
from collections import Counter, defaultdict

import pytest

from benchmarks.soak.inputs import ALL_FAULTS, hostile_batch, run_hostile_batch
from benchmarks.soak.list_faults import LIST_FAULTS, read_hostile_list

ENDS = {"done", "unreadable", "geometry", "not CT"}


@pytest.mark.integration
@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_hostile_inputs_end_done_or_with_a_category(rounds, tmp_path, weights):
    rng = random.Random(2)
    kinds = [*ALL_FAULTS * rounds, "liver mask wrong", "good", "good"]
    source, made = hostile_batch(tmp_path / "in", rng, kinds)
    ended = defaultdict(Counter)
    # raises for wrong outputs, a wrong log, files outside the output folder and lost cases
    for kind, _, how, reason in run_hostile_batch(tmp_path, source, made, weights):
        assert how in ENDS, f"{kind}: {how}: {reason}"
        assert reason.isprintable()
        ended[kind][how] += 1
    assert {*ended} == {*ALL_FAULTS, "good"}
    assert sum(count.total() for count in ended.values()) == len(made)
    assert sum(count["done"] for count in ended.values()) >= 5 * rounds


@pytest.mark.parametrize("kind", LIST_FAULTS)
def test_hostile_manifests_give_cases_or_say_why_not(kind, tmp_path):
    rng = random.Random(3)
    assert {read_hostile_list(tmp_path, kind, rng) for _ in range(25)} <= {"cases", "refused"}
