"""The evaluator built without MONAI is the one that MONAI builds from the config."""

import subprocess
import sys

import pytest
import torch

from liverseg.bundle.paths import inference_config, starter_weights
from liverseg.errors import LiversegError, UsageError
from liverseg.inference import build, find_bundle
from liverseg.inference.predict import _settings, _workflow, run_inference

JOINT, PRETRAIN = "liver_lesion_joint", "liver_lesion_pretrain"


def both(bundle, weights, **overrides):
    """Return the evaluators of this module and of MONAI."""
    config = inference_config(find_bundle(bundle))
    settings = _settings(config, weights, None, cases=[], **overrides)
    ours = build.build_evaluator(config, settings)
    workflow = _workflow(config, settings)
    workflow.initialize()
    return ours, workflow.parser.get_parsed_content("evaluator")


def attributes(thing):
    """Return an object's plain attributes, those of the objects in it included."""
    found = {}
    for name, value in vars(thing).items():
        if hasattr(value, "__dict__") and not isinstance(value, type) and "liverseg" in type(value).__module__:
            found[name] = (type(value).__name__, attributes(value))
        elif value is None or isinstance(value, bool | int | float | str | list | tuple | dict):
            found[name] = value
    return found


def parts(evaluator):
    pipeline = evaluator.pipeline
    steps = [*pipeline.preprocessing.transforms, pipeline.find_lesions]
    return {
        "steps": [(type(step).__name__, attributes(step)) for step in steps],
        "cascade": attributes(pipeline.cascade),
        "writer": {name: value for name, value in attributes(pipeline.writer).items() if name != "output_dir"},
        "network": (type(pipeline.network).__name__, pipeline.network.arguments(), str(evaluator.device)),
        "settings": [*evaluator.settings.items()],
        "shown": (evaluator.statistics, evaluator.progress, evaluator.weights),
    }


def measuring(evaluator):
    """Return the transform that measures lesions, from a Compose or from a partial."""
    steps = evaluator.pipeline.measure_lesions
    transforms = steps.args[0] if hasattr(steps, "args") else steps.transforms
    return [(type(step).__name__, attributes(step)) for step in transforms]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("bundle", "overrides"),
    [
        (JOINT, {}),
        (PRETRAIN, {}),
        (JOINT, {"lesion_threshold": 0.4, "min_lesion_ml": 1, "liver": "none", "batch_size": 3, "preview": False}),
        (JOINT, {"voxel_threshold": "null", "lesion_ranges": "null", "series": "null", "amp": False, "phase": "null"}),
        (JOINT, {"phase": "arterial", "untilt": True, "report": True}),
        (PRETRAIN, {"keep_identifiers": True, "statistics": True, "dicom": False, "pixel_mm": 1.5, "progress": False}),
        (JOINT, {"output_types": ["labels", "rtstruct"], "keep_identifiers": True}),
        (PRETRAIN, {"output_types": ["seg-nrrd"]}),
    ],
)
def test_both_readers_of_a_config_build_the_same(bundle, overrides):
    ours, monais = both(bundle, starter_weights(bundle), **overrides)
    assert parts(ours) == parts(monais)
    assert measuring(ours) == measuring(monais)
    state = monais.pipeline.network.state_dict()  # prepared: its batch norm is folded
    ours.prepare()
    assert all(torch.equal(value, state[key]) for key, value in ours.pipeline.network.state_dict().items())


@pytest.fixture
def edited(tmp_path):
    """Return a function that copies the joint bundle's config with a change and builds its evaluator."""
    text = inference_config().read_text(encoding="utf-8")

    def evaluator(old, new, **settings):
        assert text.count(old) == 1
        path = tmp_path / "inference.yaml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        weights = starter_weights(JOINT)
        return build.build_evaluator(path, {"weights": str(weights), "cases": [], **settings})

    return evaluator


def test_edited_values_are_used(edited):
    found = edited("min_confidence: 0.5", "min_confidence: 0.7")
    assert found.pipeline.find_lesions.min_confidence == 0.7
    assert edited("$bundle.get_device('auto')", "cpu").device == torch.device("cpu")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("find_liver: $@liver_from.find", "find_liver: false"),
        ("min_confidence: 0.5", "min_confidence: $0.5 + 0.1"),
    ],
)
def test_other_edits_are_left_to_monai(old, new, edited):
    assert edited(old, new) is None


def test_keys_that_are_not_values_are_left_to_monai(edited):
    assert edited("min_confidence: 0.5", "min_confidence: 0.6", **{"network_def::size": "small"}) is None


def test_wrong_values_are_refused(edited, tmp_path):
    with pytest.raises(UsageError, match="lesion_threshold is 3; it must be a number, 0 to 1"):
        edited("min_confidence: 0.5", "min_confidence: 0.6", lesion_threshold=3)
    with pytest.raises(UsageError, match="phase is 'venous'; it must be portal, arterial, delayed or native, or null"):
        edited("min_confidence: 0.5", "min_confidence: 0.6", phase="venous")
    with pytest.raises(UsageError, match="untilt is 'yes'; it must be True or False"):
        edited("min_confidence: 0.5", "min_confidence: 0.6", untilt="yes")
    with pytest.raises(UsageError, match="device 'gpu' is not known"):
        edited("min_confidence: 0.5", "min_confidence: 0.6", device="gpu")
    with pytest.raises(LiversegError, match="no such mask or folder"):
        edited("min_confidence: 0.5", "min_confidence: 0.6", liver=str(tmp_path / "none.nii.gz"))
    with pytest.raises(UsageError, match="must not begin with"):
        run_inference(tmp_path, tmp_path / "out", series="$1")


@pytest.mark.integration
def test_a_prediction_imports_no_monai(ct_file, tmp_path):
    program = (
        "import sys\n"
        "from liverseg.cli.main import main\n"
        "code = main(['predict', *sys.argv[1:]])\n"
        "heavy = {'monai', 'ignite', 'sklearn', 'highdicom', 'torchvision'} & {*sys.modules}\n"
        "assert code == 0 and not heavy, (code, heavy)\n"
        "assert len(sys.modules) < 2600, len(sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(ct_file), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
