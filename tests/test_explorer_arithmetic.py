"""The script's arithmetic in Chromium against the Python core, on 200 random states each."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from chromium import launched, new_tab

import nacl.explorer
from nacl import neighbour_prior
from nacl._penalties import PENALTIES, penalty_called
from nacl._windows import BORDERS
from nacl.explorer._neighbourhood import SHOWN_PRIORS
from nacl.losses import focal_loss, label_smoothing_loss, mbls_loss
from nacl.priors import svls_prior
from nacl.theory import confidence_ceiling, nacl_minimum

FRONT = Path(nacl.explorer.__file__).parent / "front"
STATES = 200
TOLERANCE = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module")
def script():
    with launched() as browser:
        tab = new_tab(browser)
        for part in ("arithmetic", "sweep"):
            tab.add_script_tag(path=FRONT / f"{part}.js")
        yield tab


def _maps(rng):
    for _ in range(STATES):
        height, width, classes = rng.integers(1, 13), rng.integers(1, 13), int(rng.integers(2, 7))
        labels = rng.integers(0, classes, (height, width))
        options = {
            "kernel_size": int(2 * rng.integers(0, 8) + 1),
            "sigma": round(float(rng.uniform(0.3, 5)), 3),
            "prior": str(rng.choice(SHOWN_PRIORS)),
            "border": str(rng.choice(BORDERS)),
        }
        yield labels, classes, options


def test_windows_and_priors(script):
    states = list(_maps(np.random.default_rng(0)))
    given = [
        [{"height": len(m), "width": len(m[0]), "labels": m.ravel().tolist(), "classes": k}, o] for m, k, o in states
    ]
    found = script.evaluate(
        "states => states.map(state => [neighbourPrior, svlsPrior, svlsLabel].map(f => [...f(...state)]))",
        given,
    )
    for (labels, classes, options), (tau, ring, label) in zip(states, found, strict=True):
        target = torch.from_numpy(labels)[None]
        window = {name: options[name] for name in ("kernel_size", "sigma", "border")}
        double = {"dtype": torch.float64}
        expected = neighbour_prior(target, classes, **options, **double)[0].movedim(0, -1).flatten()
        np.testing.assert_allclose(tau, expected, **TOLERANCE)
        expected = svls_prior(target, classes, **window, **double)[0].movedim(0, -1).flatten()
        np.testing.assert_allclose(ring, expected, **TOLERANCE)
        expected = neighbour_prior(target, classes, prior="gaussian", **window, **double)[0].movedim(0, -1).flatten()
        np.testing.assert_allclose(label, expected, **TOLERANCE)


def test_the_counts_of_one_window_are_those_of_all(script):
    states = [
        [{"height": len(m), "width": len(m[0]), "labels": m.ravel().tolist(), "classes": k}, o]
        for m, k, o in _maps(np.random.default_rng(6))
    ]
    code = """states => states.every(([map, options]) => {
      const { weight } = evidence(map, options, false);
      return map.labels.every((_, i) => countsAt(map, Math.floor(i / map.width), i % map.width, options)
        .every((count, k) => count === weight[i * map.classes + k]));
    })"""
    assert script.evaluate(code, states)


def test_classes_that_a_map_does_not_hold_have_no_share(script):
    states = [
        [{"height": len(m), "width": len(m[0]), "labels": m.ravel().tolist(), "classes": k}, o]
        for m, k, o in _maps(np.random.default_rng(5))
    ]
    code = """states => states.map(([map, options]) => Math.max(...[neighbourPrior, svlsPrior].flatMap(f => {
      const many = { ...map, classes: 40, labels: map.labels.map(k => 7 * k) };
      const small = compacted(many), few = f(small, options);
      const share = (pixel, k) => small.place.has(k) ? few[pixel * small.classes + small.place.get(k)] : 0;
      return f(many, options).map((dense, i) => Math.abs(dense - share(Math.floor(i / 40), i % 40)));
    }).map((off) => Math.max(...off))))"""
    assert all(off < 1e-12 for off in script.evaluate(code, states))


def _pixels(rng):
    for i in range(STATES):
        yield {
            "num_classes": int(rng.integers(2, 21)),
            "noise": 0.0 if i % 2 else float(rng.uniform(0, 0.5)),
            "tau": float(rng.choice([0.0, 1.0, rng.uniform()])),
            "penalty_weight": float(10 ** rng.uniform(-3, 1)),
            "penalty": PENALTIES[i % 3],
            "delta": float(rng.uniform(0.1, 10)),
            "margin": float(rng.uniform(0, 15)),
            "gamma": float(rng.uniform(0, 5)),
            "smoothing": float(rng.uniform(0, 0.5)),
            "x": float(rng.uniform(-3, 15)),
        }


def _shares(state):
    """The expected label and tau of a pixel, the label's class first."""
    others = state["num_classes"] - 1
    label = torch.tensor([1 - state["noise"], *[state["noise"] / others] * others], dtype=torch.float64)
    tau = torch.tensor([state["tau"], *[(1 - state["tau"]) / others] * others], dtype=torch.float64)
    return label / label.sum(), tau / tau.sum()


def _expected(loss, logits, label, **parameters):
    """The mean of a loss over the labels that may come."""
    each = logits.expand(len(label), -1)[..., None, None]
    target = torch.arange(len(label))[:, None, None]
    return label @ loss(each, target, reduction="none", **parameters).flatten()


def test_losses_and_their_slope(script):
    states = list(_pixels(np.random.default_rng(1)))
    both = "[Object.values(LOSSES), [naclGradient]].map(fs => fs.map(f => f(s.x, pixelOf(s), s)))"
    found = script.evaluate(f"states => states.map(s => {both})", states)
    for state, (losses, (parts,)) in zip(states, found, strict=True):
        label, tau = _shares(state)
        x = torch.tensor(state["x"], dtype=torch.float64, requires_grad=True)
        logits = torch.cat([x[None], tau[1:]])
        penalty = penalty_called(state["penalty"], state["delta"]).value
        pull = state["penalty_weight"] / len(label) * penalty(logits - tau).sum()
        fit = _expected(F.cross_entropy, logits, label)
        margins = {name: state[name] for name in ("margin", "penalty", "penalty_weight", "delta")}
        values = [
            fit,
            _expected(label_smoothing_loss, logits, label, smoothing=state["smoothing"]),
            _expected(focal_loss, logits, label, gamma=state["gamma"]),
            (fit - tau @ logits.log_softmax(0)) / 2,
            _expected(mbls_loss, logits, label, **margins),
            fit + pull,
        ]
        np.testing.assert_allclose(losses, [value.item() for value in values], **TOLERANCE)
        slopes = [torch.autograd.grad(part, x, retain_graph=True)[0].item() for part in (fit, pull)]
        np.testing.assert_allclose(parts, slopes, **TOLERANCE)


def test_minima(script):
    states = list(_pixels(np.random.default_rng(2)))
    found = script.evaluate("states => states.map(s => minima(pixelOf(s), s))", states)
    for state, confidence in zip(states, found, strict=True):
        label, tau = _shares(state)
        weights = {name: state[name] for name in ("penalty", "penalty_weight", "delta")}
        at_minimum = nacl_minimum(label[None], tau[None], **weights)[0, 0].item()
        assert confidence["nacl"] == pytest.approx(at_minimum, abs=1e-6)
        assert confidence["ce"] == pytest.approx(label[0].item(), abs=1e-6)
        assert confidence["svls"] == pytest.approx((label[0] + tau[0]).item() / 2, abs=1e-6)
        if state["noise"]:
            continue
        k = state["num_classes"]
        known = {
            "label_smoothing": confidence_ceiling("label_smoothing", k, smoothing=state["smoothing"]),
            "focal": 1.0,
            "mbls": confidence_ceiling("mbls", k, margin=state["margin"], **weights),
            "nacl": confidence_ceiling("nacl", k, tau=tau.tolist(), **weights),
        }
        assert {name: confidence[name] for name in known} == pytest.approx(known, abs=1e-6)


def test_minima_under_noise_are_where_the_loss_is_lowest(script):
    states = [s for s in _pixels(np.random.default_rng(3)) if s["noise"]]
    for state, confidence in zip(
        states, script.evaluate("states => states.map(s => minima(pixelOf(s), s))", states), strict=True
    ):
        label, _ = _shares(state)
        gaps = torch.linspace(-5, 30, 70001, dtype=torch.float64)
        others = len(label) - 1
        # of two rows only: the label's class, and one of the others, which are alike
        p = 1 / (1 + others * torch.exp(-gaps))
        rest = (1 - p) / others
        gamma = state["gamma"]
        focal = -label[0] * (1 - p) ** gamma * p.log() - (1 - label[0]) * (1 - rest) ** gamma * rest.log()
        assert confidence["focal"] == pytest.approx(p[focal.argmin()].item(), abs=1e-3)
        penalty = penalty_called(state["penalty"], state["delta"]).value
        hinge = penalty((gaps.abs() - state["margin"]).clamp(min=0)) * torch.where(gaps > 0, others, 1)
        fit = -label[0] * p.log() - (1 - label[0]) * rest.log()
        mbls = fit + state["penalty_weight"] / len(label) * hinge
        assert confidence["mbls"] == pytest.approx(p[mbls.argmin()].item(), abs=1e-3)


def test_softmax(script):
    logits = np.random.default_rng(4).normal(0, 20, (STATES, 5))
    found = script.evaluate("rows => rows.map(softmaxOf)", logits.tolist())
    np.testing.assert_allclose(found, torch.from_numpy(logits).softmax(1), **TOLERANCE)


def test_reliability_and_packed_maps(script):
    bins = [[0, 0, 0], [4, 2.0, 1], [16, 12.0, 14]]
    points = script.evaluate("reliability", bins)
    assert points == [
        {"confidence": 0.5, "accuracy": 0.25, "share": 0.2},
        {"confidence": 0.75, "accuracy": 0.875, "share": 0.8},
    ]
    assert script.evaluate("meanConfidence", bins) == pytest.approx(0.7)
    maps = script.evaluate(
        "bytes => { const m = unpacked(bytes, 4); return [[...m.confidence], [...m.wrong]] }", [0, 127, 255]
    )
    assert maps == [[0.25, 1, 1], [0, 0, 1]]
    assert script.evaluate("total", [[[1, 2], [3, 4]], [[10, 20], [30, 40]]]) == [[11, 22], [33, 44]]
