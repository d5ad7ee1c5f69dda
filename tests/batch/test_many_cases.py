"""The measurement of a batch of many CTs, with few."""

from datetime import datetime, timezone

import pytest

from benchmarks.soak.many import Sample, many, quarter_rows
from benchmarks.soak.material import Journal
from benchmarks.soak.report import report
from benchmarks.soak.runs import Fault


@pytest.mark.integration
@pytest.mark.slow
def test_a_batch_of_four_is_measured_and_reported(tmp_path):
    many(tmp_path, 4)
    (line,) = Journal(tmp_path).lines("many")
    assert line["cases"] == 4 and len(line["quarters"]) == 4
    for quarter in line["quarters"]:
        assert quarter["cases_per_s"] > 0
        assert quarter["worker_memory"] > quarter["batch_memory"] > 10e6
        assert min(quarter[f"{process}_{name}"] for process in ("batch", "worker") for name in NUMBERS) > 0
    assert line["recognised"]["recognised_s"] < line["recognised"]["seconds"]
    assert line["sizes"]["index.html"] > 0 and line["sizes"]["files"] == 4 * 6
    text = report(tmp_path)
    assert "| quarter of 4 cases |" in text and "recognising the cases" in text and "index.html" in text


NUMBERS = ("descriptors", "threads")
START = 1_000_000


def lines():
    """Log of eight cases that take one second each, of which the last two take two."""
    done = [1, 2, 3, 4, 5, 6, 8, 10]
    for event, seconds in [("run begun", -5), ("begun", 0), *(("done", second) for second in done)]:
        yield {"event": event, "time": datetime.fromtimestamp(START + seconds, timezone.utc).isoformat()}


def test_quarters_have_the_rate_the_processor_time_and_the_largest_sample():
    samples = [Sample(START + n, "worker", 1000 + n, 10 + n % 2, 3, 0.5 * n) for n in range(11)]
    samples += [Sample(START + n, "batch", 500, 5, 2, 0.01 * n) for n in range(11)]
    rows = quarter_rows(list(lines()), samples)
    assert [row["cases_per_s"] for row in rows] == [1, 1, 1, 0.5]
    assert [row["worker_memory"] for row in rows] == [1002, 1004, 1006, 1010]
    assert [row["worker_descriptors"] for row in rows] == [11] * 4
    assert [round(row["worker_cpu_ms"]) for row in rows] == [500, 500, 500, 1000]
    assert [round(row["batch_cpu_ms"]) for row in rows] == [10, 10, 10, 20]
    assert {row["batch_memory"] for row in rows} == {500}


def test_a_process_without_samples_is_no_measurement():
    with pytest.raises(Fault, match="no sample of the worker"):
        quarter_rows(list(lines()), [Sample(START, "batch", 500, 5, 2, 0.0)])
