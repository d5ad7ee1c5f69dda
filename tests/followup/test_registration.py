import numpy as np
import pytest
import SimpleITK as sitk

from liverseg.followup.registration import (
    DisplacementField,
    LiverRegistration,
    RegistrationQuality,
    register_livers,
    voxel_points,
)

QUALITY = RegistrationQuality(1.0, 2.0, 5.0, 0.9, 0.0)
MOVE = np.array([35.0, -18.0, 120.0])


def smooth_field(amplitude):
    """Return a registration with a translation and a bump along z, on a grid of 5 mm."""
    grid = DisplacementField(np.zeros((41, 41, 41, 3)), np.full(3, -100.0), 5.0)
    points = grid.positions()
    vectors = np.broadcast_to(MOVE, points.shape).copy()
    vectors[..., 2] += amplitude * np.exp(-(points**2).sum(axis=-1) / (2 * 40**2))
    return LiverRegistration(DisplacementField(vectors, grid.origin, grid.step), QUALITY)


def test_points_are_mapped_there_and_back():
    registration = smooth_field(20.0)
    points = np.random.default_rng(1).uniform(-80, 80, (500, 3))
    there = registration.to_followup(points)
    assert np.abs(there - points - MOVE).max() > 15
    np.testing.assert_allclose(registration.to_baseline(there), points, atol=0.02)
    np.testing.assert_allclose(there + registration.backward.at(there), points, atol=0.5)
    assert registration.to_baseline(np.zeros((0, 3))).shape == (0, 3)


def test_the_jacobian_is_that_of_the_formula_and_finds_folding():
    """The slope of a Gaussian bump is largest one standard deviation from its middle: amplitude / 40 exp(-1/2)."""
    steepest = 20 / 40 * np.exp(-0.5)
    determinants = smooth_field(20.0).forward.jacobian_determinants()
    assert determinants.min() == pytest.approx(1 - steepest, abs=0.01)
    assert determinants.max() == pytest.approx(1 + steepest, abs=0.01)
    assert smooth_field(80.0).forward.jacobian_determinants().min() < 0


def test_a_poor_registration_is_said_to_be_poor():
    assert QUALITY.warnings() == []
    poor = RegistrationQuality(4.1, 9.0, 20.0, -0.1, 0.02, converged=False)
    texts = poor.warnings()
    assert [part in text for part, text in zip(("ended early", "4.1 mm", "2.0 %"), texts, strict=True)] == [True] * 3


LESIONS = [(20, 5, 10, 11, 4), (40, -5, -12, 7, 4), (-8, 4, 5, 6, 2)]


@pytest.fixture(scope="module")
def registered(make_examination):
    first = make_examination(LESIONS)
    second = make_examination(LESIONS, shift=MOVE, spacing=(1.7, 1.7, 4.0), shape=(128, 110, 40), first=55.0, seed=9)
    return first, second, register_livers(first, second)


@pytest.mark.integration
def test_another_table_grid_and_noise_are_registered(registered):
    first, _, registration = registered
    points = voxel_points(first, first.lesions.inside >= 1, 2000)
    errors = np.linalg.norm(registration.to_followup(points) - points - MOVE, axis=1)
    assert np.median(errors) < 2.0
    assert np.percentile(errors, 95) < 4.0
    quality = registration.quality
    assert quality.converged and quality.folded_share == 0
    assert quality.surface_mean_mm < 2.0


@pytest.mark.integration
def test_the_transform_that_others_can_use_is_the_field(registered, tmp_path):
    """SimpleITK reads the file, and maps points in LPS as the field does in RAS."""
    first, _, registration = registered
    sitk.WriteTransform(registration.transform, str(tmp_path / "transform.tfm"))
    read = sitk.ReadTransform(str(tmp_path / "transform.tfm"))
    flip = np.array([-1.0, -1.0, 1.0])
    points = voxel_points(first, first.lesions.inside >= 1, 200)
    expected = np.array([read.TransformPoint(tuple(point)) for point in points * flip]) * flip
    np.testing.assert_allclose(registration.to_followup(points), expected, atol=0.1)


@pytest.mark.integration
def test_the_transform_is_that_of_elastix(registered, monkeypatch, tmp_path):
    """transformix, elastix' own, maps points to the same places as the SimpleITK transform."""
    import itk

    from liverseg.followup import registration as module

    first, second, known = registered
    found = []
    original = module._run_stages
    monkeypatch.setattr(module, "_run_stages", lambda *args: found.append(original(*args)) or found[-1])
    again = register_livers(first, second)
    np.testing.assert_array_equal(again.forward.vectors, known.forward.vectors)  # the same CTs, the same transform

    fixed = module._LiverImages.of(first)
    image = module._to_itk(itk, fixed.hu, np.zeros(3))
    point = np.array(voxel_points(first, first.lesions.inside >= 1, 5)[2]) * [-1, -1, 1]
    index = np.rint((point - np.array(fixed.hu.GetOrigin())) / fixed.hu.GetSpacing()).astype(int)
    point = np.array(fixed.hu.GetOrigin()) + index * fixed.hu.GetSpacing()
    transform = itk.TransformixFilter.New(image)
    assert [found[-1].GetParameterMap(number)["Transform"][0] for number in range(3)] == [
        "EulerTransform", "AffineTransform", "BSplineTransform",
    ]  # fmt: skip
    transform.SetTransformParameterObject(found[-1])
    transform.SetComputeDeformationField(True)
    transform.SetOutputDirectory(str(tmp_path))  # else it writes the field into the current folder
    transform.Update()
    field = itk.array_from_image(transform.GetOutputDeformationField())
    shift = module._alignment(first, second)
    own = np.array(again.transform.TransformPoint(tuple(point))) - point - shift
    np.testing.assert_allclose(field[tuple(index[::-1])], own, atol=0.02)


@pytest.mark.integration
def test_a_cut_liver_is_aligned_by_the_end_that_both_show(make_examination):
    """The follow-up starts within the liver: the centroids are 15 mm apart, the domes are where they should be."""
    first = make_examination(LESIONS[:1])
    second = make_examination(LESIONS[:1], shift=(10, 5, 8), first=-10.0, shape=(96, 80, 30), seed=4)
    registration = register_livers(first, second)
    points = voxel_points(first, first.lesions.ids_inside == 1, 500)
    errors = np.linalg.norm(registration.to_followup(points) - points - (10, 5, 8), axis=1)
    assert np.median(errors) < 3.0
