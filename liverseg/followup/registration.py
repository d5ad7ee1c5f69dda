"""Register the livers of two CTs with elastix: rigid, affine, then a B-spline.

The frame of transforms is ITK's, LPS+ mm; points and fields here are RAS+ mm as elsewhere. A transform maps a point of
the baseline to the same place of the follow-up, as registrations with the baseline as fixed image do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from liverseg.errors import LiversegError
from liverseg.followup.examination import Examination
from liverseg.imageio.boxes import Box, bounding_box, crop_to_box, pad_box, to_global
from liverseg.imageio.conversion import to_sitk
from liverseg.labels import LIVER

if TYPE_CHECKING:
    import SimpleITK

__all__ = [
    "DisplacementField",
    "LiverRegistration",
    "RegistrationQuality",
    "is_covered",
    "register_livers",
    "values_at",
    "voxel_points",
]

_GRID_MM = 2.5
"""Voxels of the images that elastix compares. Our choice: near the slice spacing of most CTs."""
_MARGIN_MM = 25.0
"""Around the liver's box."""
_RIM_MM = 8.0
"""Intensities are compared in the liver and this far around it, where ribs, lung and stomach slide on it no further."""
_HU = (-120.0, 240.0)
"""HU are limited to these: gas and bone would take most of the histogram's bins."""
_FIELD_MM = 4.0
"""Step of the displacement field, a fifth of that of the B-spline's control points."""
_CONTROL_MM = 20.0
"""Step of the B-spline's control points at the finest of its levels, about the size of a liver segment's vessels."""
_SEED = 20261
_CLIP_MM = 20.0
"""Distances to the surface of the liver are limited to this."""
_SURFACE_POINTS = 20_000
_LPS = np.array([-1.0, -1.0, 1.0])
_IDENTITY = np.eye(3)
_INVERSION_STEPS, _TOLERANCE_MM = 50, 0.01
"""Most steps of the inversion, and the step below which it ends."""
_ITERATIONS = 100
"""Of each level of a stage; more did not improve the registration of phantoms."""
POOR_MEAN_MM, POOR_P95_MM = 4.0, 12.0
"""Distances of the livers' surfaces above which a registration is called poor. Our choice."""


@dataclass(frozen=True)
class RegistrationQuality:
    """How well two livers lie on each other after registration.

    Attributes:
        surface_mean_mm: mean distance of the surfaces, of both directions; without what an end of a scan cuts off.
        surface_p95_mm: 95th percentile of these distances.
        surface_mean_before_mm: mean distance after translation alone.
        min_jacobian: smallest determinant of the transform's Jacobian in the liver; 1 keeps volumes.
        folded_share: share of the liver in which it is not positive, where space would fold onto itself.
        converged: False if elastix failed in a stage; then the transform is that of the stages before.
    """

    surface_mean_mm: float
    surface_p95_mm: float
    surface_mean_before_mm: float
    min_jacobian: float
    folded_share: float
    converged: bool = True

    def warnings(self) -> list[str]:
        """Return sentences on what makes the registration poor; the limits are our choice."""
        found = []
        if not self.converged:
            found.append("the registration ended early, the livers have too little in common; check every match")
        if self.surface_mean_mm > POOR_MEAN_MM or self.surface_p95_mm > POOR_P95_MM:
            found.append(
                f"the livers' surfaces are {self.surface_mean_mm:.1f} mm apart on average after registration (95 % "
                f"within {self.surface_p95_mm:.1f} mm); check the matches, and that the CTs are of one patient"
            )
        if self.folded_share > 0:
            found.append(
                f"the registration folds {100 * self.folded_share:.1f} % of the liver; check the matches there"
            )
        return found


@dataclass(frozen=True)
class DisplacementField:
    """Displacements on a regular grid along the patient's axes, interpolated linearly and constant beyond its edge.

    Attributes:
        vectors: RAS+ mm, shape (I, J, K, 3).
        origin: RAS+ mm of the first point.
        step: mm between points, the same along each axis.
    """

    vectors: np.ndarray = field(repr=False)
    origin: np.ndarray
    step: float

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return the displacements at points, RAS+ mm, shape (n, 3)."""
        from scipy.ndimage import map_coordinates

        index = ((np.asarray(points, float) - self.origin) / self.step).T
        columns = [map_coordinates(self.vectors[..., axis], index, order=1, mode="nearest") for axis in range(3)]
        return np.stack(columns, axis=1)

    def positions(self) -> np.ndarray:
        """Return the grid's points, RAS+ mm, shape (I, J, K, 3)."""
        axes = [
            start + self.step * np.arange(count)
            for start, count in zip(self.origin, self.vectors.shape[:3], strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def jacobian_determinants(self) -> np.ndarray:
        """Return the determinant of the Jacobian of x + displacement(x) at each point of the grid."""
        gradient = np.stack(np.gradient(self.vectors, self.step, axis=(0, 1, 2)), axis=-1)
        return np.linalg.det(gradient + _IDENTITY)


@dataclass(frozen=True)
class LiverRegistration:
    """The transform between two livers.

    Attributes:
        forward: displacement from baseline to follow-up.
        quality: of the registration.
        transform: the same as a SimpleITK transform, LPS+ mm; None if it is known as a field alone.
    """

    forward: DisplacementField
    quality: RegistrationQuality
    transform: SimpleITK.Transform | None = field(default=None, repr=False)

    def to_followup(self, points: np.ndarray) -> np.ndarray:
        """Map points of the baseline to the follow-up, RAS+ mm, shape (n, 3)."""
        return np.asarray(points, float) + self.forward.at(points)

    def to_baseline(self, points: np.ndarray) -> np.ndarray:
        """Map points of the follow-up to the baseline, RAS+ mm, shape (n, 3).

        The inverse is found by fixed-point iteration (Chen et al., Medical Physics 35(1):81, 2008), which converges
        where the displacement changes by less than a millimetre per millimetre.
        """
        points = np.asarray(points, float)
        middle = self.forward.origin + self.forward.step * (np.array(self.forward.vectors.shape[:3]) - 1) / 2
        found = points - self.forward.at(middle[None])
        for _ in range(_INVERSION_STEPS):
            step = points - self.forward.at(found) - found
            found = found + step
            if not len(step) or np.abs(step).max() < _TOLERANCE_MM:
                break
        return found

    @cached_property
    def backward(self) -> DisplacementField:
        """The displacement from follow-up to baseline, on a grid around the follow-up's liver."""
        ends = self.to_followup(self.forward.positions().reshape(-1, 3))
        low, high = ends.min(axis=0), ends.max(axis=0)
        count = np.ceil((high - low) / self.forward.step).astype(int) + 1
        grid = DisplacementField(np.zeros((*count, 3)), low, self.forward.step)
        points = grid.positions().reshape(-1, 3)
        return replace(grid, vectors=(self.to_baseline(points) - points).reshape(grid.vectors.shape))


def register_livers(baseline: Examination, followup: Examination) -> LiverRegistration:
    """Register two livers.

    Both CTs are cropped to the liver and resampled to voxels of 2.5 mm. The livers are first aligned by the centroids
    of their outlines, or, if a scan ends within a liver, by the end that both show. elastix then optimises a rotation
    and translation, an affine transform and a cubic B-spline, each from coarse to fine, by Mattes' mutual information
    of the HU, since contrast phases may differ, and by the squared difference of the distances to the livers' surfaces;
    the B-spline also by its bending energy (Klein et al., IEEE Transactions on Medical Imaging 29(1):196, 2010).
    Samples are drawn with a fixed seed, and metrics are summed on one thread, so the same CTs give the same transform.

    Raises:
        LiversegError: if itk-elastix is not installed.
    """
    try:
        import itk
    except ImportError as error:
        raise LiversegError("itk-elastix is not installed; pip install itk-elastix") from error
    fixed, moving = _LiverImages.of(baseline), _LiverImages.of(followup)
    shift = _alignment(baseline, followup)
    stages, converged = _run_elastix(itk, fixed, moving, shift)
    transform = _composite(shift, stages)
    forward = _sample(transform, fixed)
    translated = DisplacementField(np.broadcast_to(shift * _LPS, (1, 1, 1, 3)).copy(), np.zeros(3), _FIELD_MM)
    before = _surface_distances(baseline, followup, LiverRegistration(translated, _UNKNOWN))
    registration = LiverRegistration(forward, _UNKNOWN, transform)
    after = _surface_distances(baseline, followup, registration)
    determinants = _in_liver(forward, baseline)
    quality = RegistrationQuality(
        surface_mean_mm=float(after.mean()),
        surface_p95_mm=float(np.percentile(after, 95)),
        surface_mean_before_mm=float(before.mean()),
        min_jacobian=float(determinants.min()),
        folded_share=float((determinants <= 0).mean()),
        converged=converged,
    )
    return replace(registration, quality=quality)


_UNKNOWN = RegistrationQuality(math.nan, math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class _LiverImages:
    """Images of a liver on a grid along the patient's axes, LPS+ mm.

    Attributes:
        hu: limited to `_HU`, float32.
        distance: to the surface of the liver in mm, negative inside, limited to ±`_CLIP_MM`, float32.
        rim: 1 in the liver and `_RIM_MM` around it, uint8.
    """

    hu: SimpleITK.Image
    distance: SimpleITK.Image
    rim: SimpleITK.Image

    @classmethod
    def of(cls, examination: Examination) -> _LiverImages:
        import SimpleITK as sitk

        volume, lesions = examination.volume, examination.lesions
        margin = [math.ceil(_MARGIN_MM / mm) for mm in volume.axial_spacing]
        box = pad_box(_liver_box(examination), margin, lesions.shape)
        affine = _cropped_affine(volume.axial_affine, box)
        inside = crop_to_box(lesions.inside >= LIVER, lesions.box, box)
        hu = to_sitk(np.clip(volume.axial[box], *_HU).astype(np.float32), affine)
        # without it, the coarser voxels would keep the noise of single ones
        hu = sitk.DiscreteGaussian(hu, variance=[(_GRID_MM / 2) ** 2] * 3)
        grid = _patient_grid(hu)
        resampled = sitk.Resample(hu, grid, sitk.Transform(), sitk.sitkLinear, _HU[0], sitk.sitkFloat32)
        # linear between 0 and 1: the surface of a liver on thick slices stays smooth
        share = sitk.Resample(to_sitk(inside.astype(np.float32), affine), grid, sitk.Transform(), sitk.sitkLinear, 0.0)
        mask = sitk.Cast(share > 0.5, sitk.sitkUInt8)
        distance = sitk.SignedMaurerDistanceMap(mask, squaredDistance=False, useImageSpacing=True)
        rim = sitk.Cast(distance < _RIM_MM, sitk.sitkUInt8)
        clipped = sitk.Clamp(sitk.Cast(distance, sitk.sitkFloat32), sitk.sitkFloat32, -_CLIP_MM, _CLIP_MM)
        return cls(resampled, clipped, rim)


def _cropped_affine(affine: np.ndarray, box: Box) -> np.ndarray:
    moved = affine.copy()
    moved[:3, 3] = (affine @ [*(side.start for side in box), 1.0])[:3]
    return moved


def _patient_grid(image: SimpleITK.Image) -> SimpleITK.Image:
    """Return an empty image along the patient's axes, voxels of `_GRID_MM`, in the bounds of another image."""
    import SimpleITK as sitk

    size = np.array(image.GetSize())
    corners = np.array(
        [
            image.TransformContinuousIndexToPhysicalPoint([float(edge) for edge in corner * (size - 1)])
            for corner in np.indices((2, 2, 2)).reshape(3, -1).T
        ]
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    count = np.maximum(np.floor((high - low) / _GRID_MM).astype(int) + 1, 4)
    grid = sitk.Image([int(number) for number in count], sitk.sitkUInt8)
    grid.SetSpacing([_GRID_MM] * 3)
    grid.SetOrigin([float(number) for number in (low + high - (count - 1) * _GRID_MM) / 2])
    return grid


def _alignment(baseline: Examination, followup: Examination) -> np.ndarray:
    """Return the translation from the baseline's to the follow-up's liver, LPS+ mm.

    It aligns the centroids. If a scan ends within a liver, the other end is aligned along the body, and across it the
    centroids of what both scans show.
    """
    first, second = (
        voxel_points(examination, examination.lesions.inside >= LIVER) for examination in (baseline, followup)
    )
    cuts = [_is_cut(examination) for examination in (baseline, followup)]
    below, above = (any(cut[end] for cut in cuts) for end in range(2))
    shift = second.mean(axis=0) - first.mean(axis=0)
    if below != above:
        end = np.max if below else np.min
        shift[2] = end(second[:, 2]) - end(first[:, 2])
        height = first[:, 2] + shift[2]
        low, high = max(height.min(), second[:, 2].min()), min(height.max(), second[:, 2].max())
        common = [points[(z >= low) & (z <= high)] for points, z in ((first, height), (second, second[:, 2]))]
        if all(len(points) for points in common):
            shift[:2] = (common[1].mean(axis=0) - common[0].mean(axis=0))[:2]
    return shift * _LPS


def _liver_box(examination: Examination) -> Box:
    """Return the box of the liver in the CT, in axial order."""
    lesions = examination.lesions
    box = bounding_box(lesions.inside >= LIVER)
    if box is None:
        raise LiversegError(f"{examination.folder}: no liver in it; two livers are needed for a comparison")
    return to_global(box, lesions.box)


def _is_cut(examination: Examination) -> tuple[bool, bool]:
    """Return whether the liver reaches the first and the last slice of the scan."""
    slices = _liver_box(examination)[0]
    return slices.start == 0, slices.stop == examination.lesions.shape[0]


def voxel_points(examination: Examination, mask: np.ndarray, most: int | None = None) -> np.ndarray:
    """Return the centres of a mask's voxels, RAS+ mm; thinned to at most `most`. The mask has the box's shape."""
    places = np.argwhere(mask)
    if most is not None and len(places) > most:
        places = places[:: math.ceil(len(places) / most)]
    places = places + [side.start for side in examination.lesions.box]
    affine = examination.volume.axial_affine
    return places @ affine[:3, :3].T + affine[:3, 3]


def _run_elastix(
    itk: Any, fixed: _LiverImages, moving: _LiverImages, shift: np.ndarray
) -> tuple[list[Mapping[str, Sequence[str]]], bool]:
    """Return the transform parameter maps of the three stages, in their order, and whether all of them ended.

    Args:
        itk: the module.
        fixed, moving: of baseline and follow-up.
        shift: from baseline to follow-up, LPS+ mm; the follow-up's images are moved back by it.
    """
    found: Any = None
    # the images of a stage must be as many as its metrics, so the spline has a run of its own
    for stages in ([_stage("EulerTransform", 2), _stage("AffineTransform", 1)], [_spline_stage()]):
        try:
            found = _run_stages(itk, fixed, moving, shift, stages, found)
        except RuntimeError:  # the livers have too little in common
            break
    else:
        return _parameter_maps(found), True
    return _parameter_maps(found), False


def _parameter_maps(found: Any) -> list[Mapping[str, Sequence[str]]]:
    """Return the maps of a result, which holds those of its initial transforms as well."""
    return (
        [] if found is None else [found.GetParameterMap(number) for number in range(found.GetNumberOfParameterMaps())]
    )


def _run_stages(
    itk: Any,
    fixed: _LiverImages,
    moving: _LiverImages,
    shift: np.ndarray,
    stages: Sequence[Mapping[str, Sequence[Any]]],
    initial: Any,
) -> Any:
    """Return elastix' parameter object of some stages, which start after an initial one."""
    parameters = itk.ParameterObject.New()
    for stage in stages:
        parameters.AddParameterMap({name: [str(value) for value in values] for name, values in stage.items()})
    method = itk.ElastixRegistrationMethod[itk.Image[itk.F, 3], itk.Image[itk.F, 3]].New()
    of_metric = ["hu", "distance", "hu"][: len(stages[0]["Metric"])]
    images = [
        (_to_itk(itk, getattr(fixed, name), np.zeros(3)), _to_itk(itk, getattr(moving, name), -shift))
        for name in of_metric
    ]
    for own, other in images:
        method.AddFixedImage(own)
        method.AddMovingImage(other)
    method.SetFixedMask(_to_itk(itk, fixed.rim, np.zeros(3)))
    method.SetParameterObject(parameters)
    if initial is not None:
        method.SetInitialTransformParameterObject(initial)
    method.SetLogToConsole(False)
    method.SetLogToFile(False)
    method.Update()
    return method.GetTransformParameterObject()


def _to_itk(itk: Any, image: SimpleITK.Image, moved: np.ndarray) -> Any:
    import SimpleITK as sitk

    converted = itk.image_from_array(sitk.GetArrayFromImage(image))
    converted.SetSpacing(list(image.GetSpacing()))
    converted.SetOrigin([float(number) for number in np.array(image.GetOrigin()) + moved])
    return converted


def _stage(transform: str, resolutions: int, samples: int = 1500) -> dict[str, list[Any]]:
    """Return elastix parameters of a stage. Two metrics: mutual information, and distances to the surface."""
    metrics = ["AdvancedMattesMutualInformation", "AdvancedMeanSquares"]
    if transform == "BSplineTransform":
        metrics.append("TransformBendingEnergyPenalty")
    count = len(metrics)
    schedule = [factor for level in range(resolutions - 1, -1, -1) for factor in [2**level] * 3]
    return {
        "FixedInternalImagePixelType": ["float"],
        "MovingInternalImagePixelType": ["float"],
        "UseDirectionCosines": ["true"],
        "Registration": ["MultiMetricMultiResolutionRegistration"],
        "FixedImagePyramid": ["FixedSmoothingImagePyramid"] * count,
        "MovingImagePyramid": ["MovingSmoothingImagePyramid"] * count,
        "ImagePyramidSchedule": schedule,
        "NumberOfResolutions": [resolutions],
        "Interpolator": ["LinearInterpolator"] * count,
        "ImageSampler": ["RandomCoordinate"] * count,
        "Metric": metrics,
        "Metric0Weight": [1.0],
        "Metric1Weight": [_DISTANCE_WEIGHT],
        "NumberOfHistogramBins": [32],
        "NumberOfSpatialSamples": [samples],
        "NewSamplesEveryIteration": ["true"],
        "CheckNumberOfSamples": ["true"],
        "RequiredRatioOfValidSamples": [0.05],
        "RandomSeed": [_SEED],
        # elastix 5.3 crashes with several metrics on several threads; on one, sums do not depend on the machine
        "UseMultiThreadingForMetrics": ["false"],
        "Optimizer": ["AdaptiveStochasticGradientDescent"],
        "MaximumNumberOfIterations": [_ITERATIONS],
        "AutomaticParameterEstimation": ["true"],
        # DisplacementDistribution divides by the gradient, and steps too far where livers are aligned already
        "ASGDParameterEstimationMethod": ["Original"],
        "AutomaticScalesEstimation": ["true"],
        "AutomaticTransformInitialization": ["false"],
        "Transform": [transform],
        "HowToCombineTransforms": ["Compose"],
        "ErodeMask": ["false"],
        "ErodeFixedMask": ["false"],
        "ResampleInterpolator": ["FinalLinearInterpolator"],
        "Resampler": ["DefaultResampler"],
        "WriteResultImage": ["false"],
        "WriteTransformParametersEachIteration": ["false"],
        "WriteTransformParametersEachResolution": ["false"],
    }


_DISTANCE_WEIGHT, _BENDING_WEIGHT = 0.1, 200.0
"""Of the squared difference of distances (mm²) and the bending energy (1/mm²), beside mutual information, which changes
by some tenths. Our choice, by known deformations of phantoms (benchmarks/followup.py)."""
_BENDING_SAMPLES = 300
"""The bending energy takes most of the time and varies little in space."""


def _spline_stage() -> dict[str, list[Any]]:
    return {
        **_stage("BSplineTransform", 3, samples=2000),
        "Metric2Weight": [_BENDING_WEIGHT],
        "ImageSampler2NumberOfSpatialSamples": [_BENDING_SAMPLES],
        "FinalGridSpacingInPhysicalUnits": [_CONTROL_MM],
        "GridSpacingSchedule": [4, 2, 1],
    }


def _composite(shift: np.ndarray, stages: Sequence[Mapping[str, Sequence[str]]]) -> SimpleITK.Transform:
    """Return the transform that elastix found, as SimpleITK's, preceded in effect by nothing and followed by the shift.

    elastix composes T(x) = spline(affine(rigid(x))); SimpleITK applies the last one of a list first.
    """
    import SimpleITK as sitk

    parts: list[Any] = [sitk.TranslationTransform(3, [float(number) for number in shift])]
    for stage in reversed(stages):
        kind = stage["Transform"][0]
        parameters = [float(number) for number in stage["TransformParameters"]]
        part: Any
        if kind == "BSplineTransform":
            part = sitk.BSplineTransform(3, int(stage["BSplineTransformSplineOrder"][0]))
            part.SetFixedParameters([float(number) for name in _SPLINE_GRID for number in stage[name]])
        else:
            part = sitk.Euler3DTransform() if kind == "EulerTransform" else sitk.AffineTransform(3)
            if kind == "EulerTransform":
                part.SetComputeZYX(stage["ComputeZYX"][0] == "true")
            part.SetCenter([float(number) for number in stage["CenterOfRotationPoint"]])
        part.SetParameters(parameters)
        parts.append(part)
    return sitk.CompositeTransform(parts)


_SPLINE_GRID = ("GridSize", "GridOrigin", "GridSpacing", "GridDirection")
"""ITK's fixed parameters of a B-spline, in order, by elastix' names."""


def _sample(transform: SimpleITK.Transform, fixed: _LiverImages) -> DisplacementField:
    """Return a transform's displacements on the grid of the fixed image, RAS+ mm."""
    import SimpleITK as sitk

    size = [math.ceil(count * _GRID_MM / _FIELD_MM) + 1 for count in fixed.hu.GetSize()]
    origin = fixed.hu.GetOrigin()
    image = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, size, origin, [_FIELD_MM] * 3)
    vectors = sitk.GetArrayFromImage(image).transpose(2, 1, 0, 3) * _LPS
    # LPS+ to RAS+: the first two axes run the other way
    low = np.array(origin) * _LPS - np.array([size[0] - 1, size[1] - 1, 0]) * _FIELD_MM
    return DisplacementField(np.ascontiguousarray(vectors[::-1, ::-1]), low, _FIELD_MM)


def _surface_points(examination: Examination) -> np.ndarray:
    """Return points of the liver's surface, RAS+ mm, without those on the first and last slice of the scan.

    A surface point is the middle of the face between a voxel of the liver and one outside. Holes, such as vessels that
    the network leaves out, are filled.
    """
    from scipy.ndimage import binary_fill_holes

    lesions = examination.lesions
    liver = np.pad(lesions.inside >= LIVER, 1)
    for plane in liver:
        plane[...] = binary_fill_holes(plane)
    start = np.array([side.start for side in lesions.box]) - 1
    affine = examination.volume.axial_affine
    points = []
    for axis in range(3):
        for step in (-1, 1):
            faces = np.argwhere(liver & ~np.roll(liver, -step, axis)) + 0.0
            faces += start
            faces[:, axis] += 0.5 * step
            last = lesions.shape[axis] - 1
            inside = (faces[:, axis] > 0) & (faces[:, axis] < last)
            points.append(faces[inside])
    found = np.concatenate(points)
    if not len(found):
        raise LiversegError(f"{examination.folder}: a liver without a surface; is the scan of the abdomen?")
    return found @ affine[:3, :3].T + affine[:3, 3]


def _surface_distances(baseline: Examination, followup: Examination, registration: LiverRegistration) -> np.ndarray:
    """Return the distances in mm of both livers' surface points to the other surface, in the follow-up's frame.

    Points that the other scan does not cover are left out.
    """
    from scipy.spatial import cKDTree

    own, other = (_thinned(_surface_points(examination)) for examination in (baseline, followup))
    first, back = registration.to_followup(own), registration.to_baseline(other)
    seen, seen_back = is_covered(followup, first), is_covered(baseline, back)
    if not seen.any() or not seen_back.any():
        return np.array([math.inf])
    forwards, _ = cKDTree(other).query(first[seen])
    backwards, _ = cKDTree(first).query(other[seen_back])
    return np.concatenate([forwards, backwards])


def is_covered(examination: Examination, points: np.ndarray) -> np.ndarray:
    """Return which points, RAS+ mm, are in the voxels of an examination's CT."""
    index = _to_index(examination, points)
    return np.asarray(((index >= 0) & (index < examination.lesions.shape)).all(axis=1))


def _to_index(examination: Examination, points: np.ndarray) -> np.ndarray:
    """Return the axial index (slice, row, column) of the voxels that points are in, also beyond the CT's edges."""
    inverse = np.linalg.inv(examination.volume.axial_affine)
    return np.rint(np.asarray(points) @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)


def values_at(examination: Examination, inside: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the values of a map at points, 0 outside of it.

    Args:
        examination: with the grid.
        inside: of the box of its lesions, such as its lesion ids.
        points: RAS+ mm, shape (n, 3).
    """
    index = _to_index(examination, points) - [side.start for side in examination.lesions.box]
    valid = ((index >= 0) & (index < inside.shape)).all(axis=1)
    found = np.zeros(len(index), inside.dtype)
    found[valid] = inside[tuple(index[valid].T)]
    return found


def _thinned(points: np.ndarray) -> np.ndarray:
    return points[:: math.ceil(len(points) / _SURFACE_POINTS)]


def _in_liver(forward: DisplacementField, baseline: Examination) -> np.ndarray:
    """Return the Jacobian's determinants at the points of the field in the baseline's liver."""
    inside = values_at(baseline, baseline.lesions.inside, forward.positions().reshape(-1, 3)) >= LIVER
    determinants = forward.jacobian_determinants().reshape(-1)
    return determinants[inside] if inside.any() else determinants
