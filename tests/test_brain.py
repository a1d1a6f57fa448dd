"""The brain: its template's anatomy, its labels against its posterior, and one patient on several grids."""

import importlib.util
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from scipy.special import ndtr
from scipy.stats import binom

from nacl.data import SPLITS, brain, template
from nacl.data.brain import CLASS_NAMES, PARAMETERS, T1, T2, draw_labels, generate
from nacl.data.fields import smooth_field

ONE = {"train": 1, "valid": 0, "test": 0}
PLAIN = replace(PARAMETERS, cases=ONE)
STILL = replace(PLAIN, scale=(1, 1), turn=(0, 0), shift=(0, 0), waves=(), fluid=(1, 1), ambiguity=(1, 1))


@pytest.fixture(scope="module")
def dataset():
    return generate(48)


# The template


def tissue(z, y, x):
    """Probabilities of fluid, grey and white at a place of the template in mm."""
    head = template.read()
    at = tuple(round(place - zero) for place, zero in zip((z, y, x), head.origin, strict=True))
    return head.tissues[(slice(None), *at)]


def test_the_template_is_a_distribution():
    tissues = template.read().tissues
    assert tissues.min() >= 0
    assert tissues.sum(axis=0).max() <= 1 + 1e-6


def test_the_template_has_the_volumes_of_an_adult_head():
    """In litres; adults have brains of 1.0 to 1.8, more grey than white matter, and 0.1 to 0.5 of fluid."""
    fluid, grey, white = template.read().tissues.sum(axis=(1, 2, 3)) / 1e6
    assert 1.0 < grey + white < 1.8
    assert 1.2 < grey / white < 1.8
    assert 0.1 < fluid < 0.5


def test_the_template_is_its_own_mirror_image():
    head = template.read()
    np.testing.assert_allclose(head.tissues, head.tissues[..., ::-1], atol=1e-6)
    assert head.origin[2] == -(head.tissues.shape[3] - 1) / 2


@pytest.mark.parametrize(
    ("kind", "places"),
    {
        0: [(20, -5, 6), (20, -5, -6)],  # lateral ventricles
        1: [(11, 11, 13), (11, 11, -13), (8, -18, 10), (8, -18, -10)],  # caudate nuclei, thalamus
        2: [(8, 26, 0), (14, -38, 0), (20, 30, 25)],  # corpus callosum, front and back; frontal white matter
    }.items(),
)
def test_known_places_of_the_brain_are_what_they_are(kind, places):
    """Places in MNI space, up, forward and right; none of them is symmetric from front to back."""
    for place in places:
        assert tissue(*place).argmax() == kind
        assert tissue(*place)[kind] > 0.75


def test_tissues_are_nested():
    tissues = template.read().tissues
    background = 1 - tissues.sum(axis=0)
    depth = distance_transform_edt(background < 0.5)
    fluid, grey, white = ((depth * t).sum() / t.sum() for t in tissues)
    assert fluid < grey < white
    # No voxel of white matter within 3 mm of the background, none of grey next to it.
    assert depth[tissues[2] > 0.5].min() > 3
    assert depth[tissues[1] > 0.5].min() > 1


def test_a_scanner_mixes_tissues_and_makes_none():
    sharp, thick = template.read().tissues, template.at_resolution(9.0, 2.0).tissues
    assert thick.sum(axis=0).max() <= 1 + 1e-6
    middle = slice(30, 130)
    np.testing.assert_allclose(thick[:, middle].sum((1, 2, 3)), sharp[:, middle].sum((1, 2, 3)), rtol=0.02)
    assert (thick.max(axis=0) > 0.9).sum() < 0.8 * (sharp.max(axis=0) > 0.9).sum()


def test_without_nilearn_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'nacl-calibration\[train\]'") as caught:
        template.read.__wrapped__()
    assert caught.value.name == "nilearn"


def test_a_nilearn_without_the_template_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(template, "folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*mni_icbm152_gm.*nilearn 0.10 or later"):
        template.read.__wrapped__()


# The cases


def test_brain_has_one_shape_of_case(dataset):
    assert (dataset.name, dataset.class_names, dataset.unit) == ("brain", CLASS_NAMES, "mm")
    assert {split: len(dataset.split(split)) for split in SPLITS} == PARAMETERS.cases
    for case in dataset.cases:
        assert case.image.shape == (1, 8, 48, 48)
        assert (case.image.dtype, case.label.dtype, case.posterior.dtype) == (np.float32, np.uint8, np.float32)
        assert 0 <= case.image.min() <= case.image.max() <= 1
        assert case.spacing == pytest.approx((9, 208 / 48, 208 / 48))


def test_brain_posterior_is_a_distribution_at_every_pixel(dataset):
    for case in dataset.cases:
        assert 0 <= case.posterior.min() <= case.posterior.max() <= 1
        np.testing.assert_allclose(case.posterior.sum(axis=0, dtype=np.float64), 1, atol=1e-6)


def test_every_slice_holds_all_tissues_and_the_whole_head(dataset):
    for case in dataset.cases:
        assert all(set(np.unique(plane)) == {0, 1, 2, 3} for plane in case.label)
        assert (case.label > 0).mean(axis=(1, 2)).min() > 0.1
        edge = np.concatenate([case.posterior[0, :, [0, -1]].ravel(), case.posterior[0, :, :, [0, -1]].ravel()])
        assert edge.min() > 0.95


def test_brain_is_the_same_every_time_and_no_two_patients_are_alike(dataset):
    again = generate(48, replace(PARAMETERS, cases={"train": 2, "valid": 1, "test": 1}))
    for case in again.cases:
        first = next(other for other in dataset.cases if other.name == case.name)
        for name in ("image", "label", "posterior"):
            assert np.array_equal(getattr(case, name), getattr(first, name))
    posteriors = np.stack([case.posterior for case in dataset.cases])
    for i, one in enumerate(posteriors[:10]):
        assert np.abs(posteriors[i + 1 :] - one).max(axis=(1, 2, 3, 4)).min() > 0.5
    assert not np.array_equal(generate(48, replace(PLAIN, seed=1)).cases[0].posterior, posteriors[0])


def test_a_patient_who_keeps_still_is_the_template():
    """One who is neither moved nor sharpened, through voxels of 1 mm, at known places: z -11.5 ... 51.5, 208 pixels."""
    still = generate(208, replace(STILL, slice_thickness=1.0)).cases[0].posterior
    head = template.at_resolution(1.0, 1.0)
    for plane, row, column in [(4, 61, 98), (3, 100, 121), (5, 140, 70), (2, 30, 110), (6, 120, 130)]:
        z, y, x = 20 + 9 * (plane - 3.5), -17 + 103.5 - row, column - 103.5
        at = [place - zero for place, zero in zip((z, y, x), head.origin, strict=True)]
        corners = np.ix_(*([math.floor(i), math.floor(i) + 1] for i in at))
        assert all(i % 1 == 0.5 for i in at)  # all eight corners count the same
        expected = np.array([t[corners].mean() for t in head.tissues])
        np.testing.assert_allclose(still[1:, plane, row, column], expected, atol=1e-5)


def test_a_patients_ambiguity_and_fluid_are_as_in_the_formula():
    plain = generate(32, STILL).cases[0].posterior.astype(np.float64)
    changed = generate(32, replace(STILL, ambiguity=(0.4, 0.4), fluid=(1.5, 1.5))).cases[0].posterior
    powers = (plain * np.array([1, 1.5, 1, 1]).reshape(4, 1, 1, 1)) ** 2.5
    np.testing.assert_allclose(changed, powers / powers.sum(axis=0), atol=1e-5)


def test_thin_and_thick_slices_show_the_same_patient():
    thick = generate(48, PLAIN).cases[0]
    thin = generate(48, replace(PLAIN, slices=22, slice_spacing=3.0)).cases[0]
    assert thin.spacing[0] == 3
    np.testing.assert_allclose(thin.posterior[:, ::3], thick.posterior, atol=1e-5)


def test_fine_and_coarse_pixels_show_the_same_patient():
    """The middle of each of 3 x 3 pixels is where the one large pixel's middle is, which mixes more."""
    fine, coarse = (generate(size, PLAIN).cases[0].posterior for size in (144, 48))
    stranger = generate(48, replace(PLAIN, seed=1)).cases[0].posterior
    apart = np.abs(fine[:, :, 1::3, 1::3] - coarse).mean()
    assert apart < 0.04
    assert np.abs(stranger - coarse).mean() > 2.5 * apart


def test_a_full_volume_has_the_whole_brain():
    whole = replace(PLAIN, slices=44, slice_spacing=4, slice_thickness=4, centre=5, scale=(1, 1), ambiguity=(1, 1))
    case = generate(52, whole).cases[0]
    assert case.spacing == (4, 4, 4)
    litres = case.posterior.sum(axis=(1, 2, 3)) * 4**3 / 1e6
    assert litres[2] == pytest.approx(1.0, abs=0.15)
    assert litres[3] == pytest.approx(0.67, abs=0.1)
    assert case.posterior[0, -1].min() > 0.99


# The annotators


def test_drawn_labels_have_the_posterior_at_every_pixel():
    """Exact two-sided binomial tests, one a pixel and class, at a family-wise significance of 0.1% (Bonferroni)."""
    draws, posterior = 10_000, generate(32, PLAIN).cases[0].posterior[:, 3, 8:24, 8:24].astype(np.float64)
    # Slices 1 m apart are independent, so one call with the same posterior in 10,000 slices is 10,000 draws.
    repeated = np.repeat(posterior[:, None], draws, axis=1)
    labels = draw_labels(repeated, np.random.default_rng(1), spacing=(1000, 6.5, 6.5))
    counts = np.stack([(labels == k).sum(axis=0) for k in range(4)])
    p = (posterior / posterior.sum(axis=0)).clip(0, 1)
    p_value = 2 * np.minimum(binom.cdf(counts, draws, p), binom.sf(counts - 1, draws, p))
    assert ((p > 0.05) & (p < 0.95)).sum() > 50
    assert p_value.min() > 0.001 / p_value.size
    # The test can see: frequencies of a posterior that is 4 points off fail it.
    off = np.where((p > 0.3) & (p < 0.7), p + 0.04, p)
    assert (2 * np.minimum(binom.cdf(counts, draws, off), binom.sf(counts - 1, draws, off))).min() < 0.001 / p.size


def test_a_label_is_the_class_whose_share_of_the_unit_interval_holds_u():
    posterior = generate(16, PLAIN).cases[0].posterior.astype(np.float64)
    spacing = (9.0, 13.0, 13.0)
    labels = draw_labels(posterior, np.random.default_rng(7), spacing=spacing, correlation=18.0)
    u = ndtr(smooth_field(np.random.default_rng(7), posterior.shape[1:], (2, 18 / 13, 18 / 13)))
    for place in np.ndindex(*labels.shape):
        k, below = 0, 0.0
        while k < 3 and u[place] >= below + posterior[(k, *place)]:
            below += posterior[(k, *place)]
            k += 1
        assert labels[place] == k


def test_an_annotators_error_is_smooth_across_slices_and_within_them():
    """At p = 1/2 the share of neighbours that agree is 1/2 + arcsin(r) / pi, with r the correlation at 1 and 2 mm."""
    posterior = np.zeros((4, 40, 80, 80))
    posterior[[2, 3]] = 0.5
    for spacing in ((1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 2.0, 1.0)):
        rng = np.random.default_rng(0)
        labels = np.stack([draw_labels(posterior, rng, spacing=spacing, correlation=4.0) for _ in range(4)])
        for axis, step in enumerate(spacing, start=1):
            agree = (np.diff(labels.astype(int), axis=axis) == 0).mean()
            correlation = math.exp(-(step**2) / (4 * 4.0**2))
            assert agree == pytest.approx(0.5 + math.asin(correlation) / math.pi, abs=0.01)


# The images


def test_an_image_without_noise_is_the_mean_intensity_under_the_posterior():
    fixed = ((0.01, 0.01), (0.2, 0.2), (0.5, 0.5), (0.8, 0.8))
    case = generate(32, replace(PLAIN, intensities={"t1": fixed}, bias=0.0, noise=0.0)).cases[0]
    expected = sum(m * p for m, p in zip((0.01, 0.2, 0.5, 0.8), case.posterior, strict=True))
    np.testing.assert_allclose(case.image[0], expected, atol=1e-6)


def test_neither_contrast_nor_noise_changes_the_patient_or_the_annotator():
    plain = generate(32, PLAIN).cases[0]
    for change in ({"noise": 0.2}, {"bias": 0.3}, {"intensities": {"t1": T1, "t2": T2}}):
        other = generate(32, replace(PLAIN, **change)).cases[0]
        assert np.array_equal(other.posterior, plain.posterior)
        assert np.array_equal(other.label, plain.label)
        assert not np.array_equal(other.image, plain.image)


def test_patient_image_and_annotator_draw_from_streams_of_their_own(monkeypatch):
    """Or noise in the image would tell what the annotator does, and the posterior would not be the truth."""
    seeds = []

    def noted(function):
        def call(*args, **kwargs):
            seeds.extend(tuple(rng.bit_generator.seed_seq.entropy) for rng in args if hasattr(rng, "bit_generator"))
            return function(*args, **kwargs)

        return call

    for name in ("_posterior", "_image", "draw_labels"):
        monkeypatch.setattr(brain, name, noted(getattr(brain, name)))
    generate(8, replace(PARAMETERS, cases={"train": 2, "valid": 2, "test": 0}))
    assert len(seeds) == len(set(seeds)) == 12


def test_tissues_are_told_apart_in_each_contrast():
    both = generate(64, replace(PARAMETERS, cases={"train": 6, "valid": 0, "test": 0}, intensities={"a": T1, "b": T2}))
    assert both.channel_names == ("a", "b")
    for case in both.cases:
        t1, t2 = ([channel[p > 0.95].mean() for p in case.posterior] for channel in case.image)
        assert t1[0] < t1[1] < t1[2] < t1[3]
        assert t2[0] < t2[3] < t2[2] < t2[1]


def test_noise_is_of_a_magnitude():
    """Where there is no signal it is Rayleigh, of mean sigma sqrt(pi / 2); where there is much, Gaussian."""
    fixed = ((0.0, 0.0), (0.0, 0.0), (0.6, 0.6), (0.6, 0.6))
    case = generate(128, replace(PLAIN, intensities={"t1": fixed}, bias=0.0, noise=0.05)).cases[0]
    empty, tissue = (case.image[0][case.posterior[part].sum(axis=0) > 1 - 1e-6] for part in ([0, 1], [2, 3]))
    assert empty.mean() == pytest.approx(0.05 * math.sqrt(math.pi / 2), rel=0.02)
    assert tissue.std() == pytest.approx(0.05, rel=0.03)
    assert tissue.mean() == pytest.approx(0.6 + 0.05**2 / 1.2, abs=0.001)


def test_the_bias_field_is_smooth_and_of_the_strength_asked_for():
    many = replace(
        PARAMETERS, cases={"train": 40, "valid": 0, "test": 0}, noise=0.0, intensities={"t1": ((0.5, 0.5),) * 4}
    )
    fields = np.stack([case.image[0] / 0.5 - 1 for case in generate(16, many).cases])
    assert fields.std() == pytest.approx(PARAMETERS.bias, rel=0.2)
    assert np.abs(np.diff(fields, axis=-1)).max() < 0.1


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slices": 0}, "`slices` of at least 1, got 0"),
        ({"slice_spacing": 0}, r"`slice_spacing` in \(0, inf\), got 0"),
        ({"slice_thickness": -1.0}, "`slice_thickness`"),
        ({"field_of_view": 400}, "`field_of_view` in .*, got 400"),
        ({"ambiguity": (0.0, 0.5)}, "`ambiguity` in .*, got 0.0"),
        ({"intensities": {"t1": T1[:3]}}, "`intensities` with a range for each of 4 classes.*t1"),
    ],
)
def test_parameters_that_make_no_brain_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PARAMETERS, **change)


def test_a_size_below_1_is_named():
    with pytest.raises(ValueError, match="`size` of at least 1, got 0"):
        brain.generate(0)


def test_the_fingerprint_is_of_the_parameters_and_of_the_templates_files(tmp_path, monkeypatch):
    before = brain.fingerprint()
    assert before == brain.fingerprint()
    for name in template.MAPS:
        shutil.copy(template.file_of(name), tmp_path)
    monkeypatch.setattr(template, "folder", lambda: tmp_path)
    assert brain.fingerprint() == before
    with template.file_of("gm").open("ab") as file:
        file.write(b"another release")
    assert brain.fingerprint() != before


def test_a_channels_contrast_does_not_depend_on_the_size():
    """White is brighter than grey by as much, in both channels, whatever the number of pixels."""
    two = replace(PARAMETERS, cases={"train": 1, "valid": 0, "test": 0}, intensities={"t1": T1, "t2": T2}, bias=0.0)
    contrasts = []
    for size in (48, 96):
        case = generate(size, two).cases[0]
        sure = [case.posterior[k] > 0.99 for k in (2, 3)]
        contrasts.append([np.median(channel[sure[1]]) - np.median(channel[sure[0]]) for channel in case.image])
    np.testing.assert_allclose(*contrasts, atol=0.02)
