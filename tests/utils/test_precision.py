"""The number format of a network's computation."""

import pytest
import torch

from liverseg.errors import UsageError
from liverseg.utils.precision import autocast, autocast_dtype


@pytest.mark.parametrize(("bfloat16", "auto"), [(True, torch.bfloat16), (False, None)])
def test_auto_takes_what_the_processor_computes(bfloat16, auto, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16)
    assert autocast_dtype("cpu", "auto") is auto
    assert autocast_dtype("cpu", False) is None
    with autocast("cpu", "auto"):
        assert torch.is_autocast_enabled("cpu") is (auto is not None)


def test_what_the_processor_lacks_is_refused_before_a_run(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.raises(UsageError, match="amp is true, but cpu has no bfloat16 here; take auto or false"):
        autocast_dtype(torch.device("cpu"), True)
