import pytest
from batch_runs import batch, happened, results, write_ct


@pytest.fixture(scope="session")
def many(tmp_path_factory, weights):
    """A folder with twelve CTs, and what an undisturbed batch makes of them."""
    root = tmp_path_factory.mktemp("many")
    for number in range(12):
        write_ct(root / "in" / f"ct{number:02}.nii.gz", number)
    code, _, err = batch(root / "in", root / "out", "--weights", weights)
    assert code == 0, err
    return root / "in", {case: results(root / "out", case) for case in happened(root / "out", "done")}
