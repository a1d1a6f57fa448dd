"""In MONAI: the drop-in for its loss, the metrics as its own kind, in its loop and in two processes."""

import copy
import inspect
import warnings
from datetime import timedelta

import numpy as np
import pytest
import torch
from oracles import forecast
from torch import distributed, nn

from nacl.losses import nacl_loss
from nacl.metrics import BrierScore, CalibrationError, NegativeLogLikelihood
from nacl.priors import neighbour_prior

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI's imports
    pytest.importorskip("monai")
    import monai.losses
    from monai.data import DataLoader, MetaTensor, decollate_batch
    from monai.data import Dataset as MonaiDataset
    from monai.inferers import sliding_window_inference
    from monai.networks.utils import one_hot
    from monai.transforms import Activations

    from nacl.integrations.monai import NACLLoss, Streamed

C = 4
METRICS = {
    "ece": lambda **o: CalibrationError(**o),
    "border": lambda **o: CalibrationError(region="predicted_border", **o),
    "nll": lambda **o: NegativeLogLikelihood(**o),
    "brier": lambda **o: BrierScore(**o),
}


def batch(axes, holes=0):
    shape = (2, 7, 6) if axes == 2 else (2, 5, 6, 5)
    rng = np.random.default_rng(axes)
    logits = torch.tensor(3 * rng.standard_normal((shape[0], C, *shape[1:])), dtype=torch.float32)
    target = torch.tensor(rng.integers(0, C, shape))
    target.view(-1)[:holes] = -100
    return logits, target


# The loss


def test_the_signature_is_monais_and_more():
    theirs = inspect.signature(monai.losses.NACLLoss).parameters
    ours = inspect.signature(NACLLoss).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert (ours[name].default, ours[name].kind) == (parameter.default, parameter.kind)
    assert all(ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(ours)[len(theirs) :])


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("options", [{}, {"kernel_size": 5, "distance_type": "l2", "alpha": 0.7}])
def test_loss_and_gradient_with_border_zero_are_monais(axes, options):
    found = []
    for loss in (NACLLoss(C, axes, **options, border="zero"), monai.losses.NACLLoss(C, axes, **options)):
        logits, target = batch(axes)
        logits.requires_grad_()
        value = loss(logits, target)
        value.backward()
        found += [value, logits.grad]
    torch.testing.assert_close(found[0], found[2], rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(found[1], found[3], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("axes", [2, 3])
def test_target_of_the_penalty_is_monais_inside_and_sums_to_one_at_the_edge(axes):
    _, target = batch(axes)
    ours, theirs = (loss(C, axes).get_constr_target(target) for loss in (NACLLoss, monai.losses.NACLLoss))
    inside = (..., *[slice(1, -1)] * axes)
    torch.testing.assert_close(ours[inside], theirs[inside])
    torch.testing.assert_close(ours.sum(dim=1), torch.ones(target.shape))
    assert theirs.sum(dim=1).min() < 0.5


@pytest.mark.parametrize("axes", [2, 3])
def test_our_options_reach_our_function(axes):
    logits, target = batch(axes, holes=9)
    image = torch.rand(2, 1, *target.shape[1:])
    loss = NACLLoss(C, axes, 5, "image_proportions_l1", "huber", 0.3, border="replicate", softmax=True, reduction="sum")
    wanted = nacl_loss(
        logits,
        target,
        prior="image_proportions_l1",
        kernel_size=5,
        penalty="huber",
        penalty_weight=0.3,
        border="replicate",
        softmax=True,
        reduction="sum",
        image=image,
    )
    assert torch.equal(loss(logits, target, image), wanted)
    target.clamp_min_(0)[:, :4] = 1  # windows of one class, and of several
    borders = NACLLoss(C, axes, distance_type="huber", mixed_only=True, delta=0.3)(logits, target)
    assert torch.equal(borders, nacl_loss(logits, target, penalty="huber", mixed_only=True, delta=0.3))
    others = [NACLLoss(C, axes, distance_type="huber", **o) for o in ({"mixed_only": True}, {"delta": 0.3})]
    assert all(loss(logits, target) != borders for loss in others)
    gaussian = NACLLoss(C, axes, 5, "gaussian", sigma=2.0, ignore_index=3)
    options = {"prior": "gaussian", "kernel_size": 5, "sigma": 2.0, "ignore_index": 3}
    assert torch.equal(gaussian(logits, target), nacl_loss(logits, target, **options))
    assert torch.equal(gaussian.get_constr_target(target), neighbour_prior(target, C, **options))


def test_labels_as_monais_transforms_give_them_are_taken():
    logits, target = batch(2)
    loss = NACLLoss(C, 2)
    wanted = loss(logits, target)
    for labels in (target[:, None], target.float(), target[:, None].float(), MetaTensor(target[:, None].float())):
        found = loss(MetaTensor(logits), labels)
        assert torch.equal(found, wanted)
        assert type(found) is torch.Tensor


@pytest.mark.parametrize("ignored", [-100, 255])
def test_what_makes_monais_raise_is_ignored(ignored):
    logits, target = batch(2)
    target[:, 2:4] = ignored
    logits.requires_grad_()
    with pytest.raises((RuntimeError, IndexError)):
        monai.losses.NACLLoss(C, 2)(logits, target)
    NACLLoss(C, 2, ignore_index=ignored)(logits, target).backward()
    assert not logits.grad[:, :, 2:4].any()
    assert logits.grad[:, :, :2].all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel_size": 4}, ValueError, "`kernel_size` to be odd, got 4"),
        ({"kernel_ops": "gauss"}, ValueError, "`kernel_ops` .* got 'gauss'. Did you mean 'gaussian'"),
        ({"distance_type": "L1"}, ValueError, "`distance_type` .* Did you mean 'l1'"),
        ({"alpha": -1}, ValueError, r"`alpha` in \[0, inf\), got -1"),
        ({"dim": 4}, ValueError, "`dim` to be 2 or 3, got 4"),
        ({"dim": 1}, ValueError, "`dim` of at least 2, got 1"),
        ({"classes": 1}, ValueError, "`classes` of at least 2, got 1"),
        ({"border": "reflect"}, ValueError, "`border` .* got 'reflect'"),
        ({"kernel_size": (3, 3, 1)}, ValueError, "`kernel_size` of one number, or 2"),
    ],
)
def test_bad_options_are_named_when_the_loss_is_made(options, error, message):
    with pytest.raises(error, match=message):
        NACLLoss(**{"classes": C, "dim": 2, **options})


def test_data_that_do_not_fit_are_named():
    logits, target = batch(2)
    with pytest.raises(ValueError, match=r"`inputs` of shape \(B, 3, H, W\), got \(2, 4, 7, 6\) \(classes=3, dim=2\)"):
        NACLLoss(3, 2)(logits, target)
    with pytest.raises(ValueError, match=r"`inputs` of shape \(B, 4, D, H, W\)"):
        NACLLoss(C, 3)(logits, target)
    with pytest.raises(ValueError, match=r"`targets` of shape \(2, 7, 6\) or \(2, 1, 7, 6\), got \(2, 4, 7, 6\)"):
        NACLLoss(C, 2)(logits, logits)
    with pytest.raises(ValueError, match=r"`targets` of whole numbers, got 0\.5"):
        NACLLoss(C, 2)(logits, target.float() + 0.5)
    with pytest.raises(TypeError, match=r"`inputs` to be a torch\.Tensor, got ndarray"):
        NACLLoss(C, 2)(logits.numpy(), target)
    with pytest.raises(ValueError, match=r"values in \[0, 4\)"):
        NACLLoss(C, 2)(logits, target + 1)


# The metrics


def forms(probs, labels):
    """The same forecast and labels as MONAI's users have them: (y_pred, y)."""
    known = torch.where(labels == -100, 0, labels)[:, None]
    hot = one_hot(known, C) * (labels != -100)[:, None]
    yield probs, labels
    yield probs, labels[:, None].float()
    yield probs, hot
    yield MetaTensor(probs), MetaTensor(hot)
    yield list(probs), list(labels)
    yield list(probs), [x[None] for x in labels.float()]
    yield [MetaTensor(x) for x in probs], [MetaTensor(x) for x in hot]
    yield tuple(probs), hot


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("shape", [(3, 6, 5), (2, 3, 4, 5)])
def test_every_form_of_input_gives_our_number(name, shape):
    probs, labels = forecast(shape, C)
    whole = METRICS[name]()
    whole.update(probs, labels)
    images = []
    for i in range(shape[0]):
        one = METRICS[name]()
        one.update(probs[i : i + 1], labels[i : i + 1])
        images.append([one.compute()])
    for y_pred, y in forms(probs, labels):
        metric = Streamed(METRICS[name]())
        torch.testing.assert_close(metric(y_pred=y_pred, y=y), torch.tensor(images), equal_nan=True)
        assert metric.aggregate().item() == pytest.approx(whole.compute(), abs=1e-6)
        torch.testing.assert_close(metric.get_buffer(), torch.tensor(images), equal_nan=True)


@pytest.mark.parametrize("name", METRICS)
def test_batches_add_up_and_reset_forgets(name):
    metric, whole = Streamed(METRICS[name]()), METRICS[name]()
    for seed in range(3):
        metric(*forecast((2, 6, 5), C, seed=seed))
        whole.update(*forecast((2, 6, 5), C, seed=seed))
    assert metric.aggregate().item() == pytest.approx(whole.compute(), abs=1e-6)
    assert metric.aggregate().item() == pytest.approx(whole.compute(), abs=1e-6)  # asking changes nothing
    assert len(metric) == 6
    metric.reset()
    with pytest.raises(RuntimeError, match="Expected `update` before `compute`"):
        metric.aggregate()
    alone = METRICS[name]()
    alone.update(*forecast((2, 6, 5), C, seed=7))
    metric(*forecast((2, 6, 5), C, seed=7))
    assert metric.aggregate().item() == pytest.approx(alone.compute(), abs=1e-6)


def test_cases_are_the_images():
    metric = Streamed(CalibrationError(aggregation="cases"))
    batches = [forecast((2, 6, 5), C, seed=seed) for seed in range(2)]
    images = torch.cat([metric(*batch) for batch in batches])
    assert images.shape == (4, 1)
    assert metric.aggregate().item() == pytest.approx(images.mean().item(), abs=1e-6)


def test_the_metric_lends_its_arithmetic_only_and_memory_does_not_grow():
    lent = CalibrationError(region="predicted_border")
    metric = Streamed(lent)
    sizes = []
    for seed in range(3):
        metric(*forecast((2, 20, 20), C, seed=seed))
        sizes.append(sum(part.numel() for part in metric.metric.sums.values()))
    assert lent.sums is None
    assert sizes == [64] * 3  # counts and sums of right and wrong, in 15 bins and one
    assert metric.get_buffer().shape == (6, 1)


def test_logits_are_taken_where_the_metric_says_so():
    probs, labels = forecast((2, 6, 5), C)
    found = Streamed(BrierScore(from_logits=True))
    found(probs.log(), labels)
    wanted = Streamed(BrierScore())
    wanted(probs, labels)
    assert found.aggregate().item() == pytest.approx(wanted.aggregate().item(), abs=1e-6)


def test_bad_data_are_named():
    probs, labels = forecast((2, 6, 5), C)
    metric = Streamed(CalibrationError())
    with pytest.raises(ValueError, match="`y` to be labels, got None"):
        metric(probs)
    with pytest.raises(ValueError, match="`y_pred` and `y` of one length, got 2 and 1"):
        metric(list(probs), [labels[0]])
    with pytest.raises(ValueError, match="`y` one-hot: 0 or 1"):
        metric(probs, torch.full_like(probs, 0.25))
    with pytest.raises(ValueError, match="`y` one-hot: 0 or 1, and 1 in one class"):
        metric(probs, torch.ones_like(probs))
    with pytest.raises(ValueError, match=r"`y` of shape \(2, 6, 5\) or \(2, 1, 6, 5\), got \(2, 3, 6, 5\)"):
        metric(probs, probs[:, :3])
    with pytest.raises(ValueError, match=r"`probs` values in \[0, 1\]"):
        metric(4 * probs, labels)
    with pytest.raises(TypeError, match=r"`metric` to be a metric of nacl\.metrics, got str"):
        Streamed("ece")


def work(rank, folder):
    torch.set_num_threads(1)
    meet = {"init_method": f"file://{folder}/meet", "rank": rank, "world_size": 2}
    distributed.init_process_group("gloo", timeout=timedelta(seconds=200), **meet)
    found = {}
    for name, make in METRICS.items():
        for who, seeds in (("both", ((0,), (1, 2))), ("first", ((0, 1, 2), ()))):
            metric = Streamed(make(num_classes=C))
            for seed in seeds[rank]:
                metric(*forecast((2, 6, 5), C, seed=seed))
            found[name, who] = [metric.aggregate().item() for _ in range(2)]  # asking twice adds nothing twice
            if who == "both":
                found[name, "images"] = metric.get_buffer()
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_find_what_one_would(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, make in METRICS.items():
            alone = make()
            for seed in range(3):
                alone.update(*forecast((2, 6, 5), C, seed=seed))
            for who in ("both", "first"):
                assert found[name, who] == pytest.approx([alone.compute()] * 2, abs=1e-6)
            assert found[name, "images"].shape == (6, 1)


# In a loop as MONAI's tutorials have it


def test_training_and_validation_as_in_monais_tutorials(squares):
    torch.manual_seed(0)
    data = {
        split: MonaiDataset(
            [
                {"image": torch.tensor(image)[None], "label": torch.tensor(label)[None].float()}
                for case in squares.split(split)
                for image, label in zip(case.image[0], case.label, strict=True)
            ]
        )
        for split in ("train", "valid")
    }
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    criterion = NACLLoss(classes=3, dim=2, alpha=0.01)
    optimiser = torch.optim.Adam(model.parameters(), 2e-2)
    losses = []
    for _ in range(4):
        for step in DataLoader(data["train"], batch_size=4, shuffle=True):
            optimiser.zero_grad()
            loss = criterion(model(step["image"]), step["label"])
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]

    metrics = [Streamed(CalibrationError(region=region)) for region in ("all", "predicted_border")]
    metrics += [Streamed(BrierScore()), Streamed(NegativeLogLikelihood())]
    plain = [copy.deepcopy(metric.metric) for metric in metrics]
    to_probs = Activations(softmax=True)
    with torch.no_grad():
        for step in DataLoader(data["valid"], batch_size=2):
            logits = sliding_window_inference(step["image"], (16, 16), 4, model, overlap=0.5)
            probs = [to_probs(one) for one in decollate_batch(logits)]
            for metric, mine in zip(metrics, plain, strict=True):
                metric(y_pred=probs, y=decollate_batch(step["label"]))
                mine.update(torch.as_tensor(logits).softmax(dim=1), step["label"][:, 0].long())
    for metric, mine in zip(metrics, plain, strict=True):
        assert metric.aggregate().item() == pytest.approx(mine.compute(), abs=1e-5)
        assert len(metric) == len(data["valid"])
