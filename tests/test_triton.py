"""The fused kernel against loops: under Triton's interpreter on any machine that has Triton, natively on a GPU.

The interpreter is chosen by an environment variable that Triton reads when it is imported; so this file, run as a
script, is the process that has it set.
"""

import functools
import importlib.util
import os
import subprocess
import sys
import traceback
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

import nacl.losses as nacl
from nacl.losses import _triton
from nacl.losses._triton import available, fused_pixel_loss
from nacl.priors import BORDERS

HAS_TRITON = importlib.util.find_spec("triton") is not None
IGNORE = -100
SVLS = {"label_share": 0.5, "prior_share": 0.5}
NACL = {"penalty": "l1", "penalty_weight": 0.3}
ALL = {"label_share": 0.5, "prior_share": 0.3, "uniform_share": 0.2, "penalty": "huber", "penalty_weight": 0.7}


def gaussian(window, sigma=0.7):
    """Weights of the neighbours, the centre 0, sum 1."""
    grid = np.stack(np.meshgrid(*(np.arange(size) - size // 2 for size in window), indexing="ij"))
    square = (grid**2).sum(axis=0)
    weights = np.where(square > 0, np.exp(-square / (2 * sigma**2)), 0)
    return weights / max(weights.sum(), 1e-300)


def slow_tau(target, classes, window, weights, border, ignore_index):
    """Class shares (N, C, *spatial) of each window, by the definition; the pixel's own label where nothing counts."""
    tau = np.zeros((target.shape[0], classes, *target.shape[1:]))
    sizes = target.shape[1:]
    for n, *pixel in np.ndindex(*target.shape):
        total, counts = 0.0, np.zeros(classes)
        for place in np.ndindex(*window):
            at = [i + p - size // 2 for i, p, size in zip(pixel, place, window, strict=True)]
            inside = all(0 <= i < size for i, size in zip(at, sizes, strict=True))
            nearest = tuple(min(max(i, 0), size - 1) for i, size in zip(at, sizes, strict=True))
            label = int(target[(n, *nearest)])
            if inside or border == "replicate":
                if label == ignore_index or not 0 <= label < classes:
                    continue
            elif border == "inside":
                continue
            else:
                label = 0 if border == "background" else None
            total += weights[place]
            if label is not None:
                counts[label] += weights[place]
        own = int(target[(n, *pixel)])
        if total > 0:
            tau[(n, slice(None), *pixel)] = counts / total
        elif 0 <= own < classes:
            tau[(n, own, *pixel)] = 1
    return tau


def expected(
    logits, target, *, window=None, weights=None, mix_label=False, border="inside", ignore_index=IGNORE, **how
):
    """Loss and gradient in float64, by autograd, from a tau by loops."""
    classes = logits.shape[1]
    labels = target.long()
    ignored, known = labels == ignore_index, (labels >= 0) & (labels < classes)
    usable = known & ~ignored
    y = torch.nn.functional.one_hot(torch.where(usable, labels, 0), classes).movedim(-1, 1).double()
    tau = torch.zeros_like(y)
    if window is not None:
        weights = np.ones(window) if weights is None else weights
        tau = torch.from_numpy(slow_tau(target.numpy(), classes, window, weights, border, ignore_index))
    l = torch.where(usable.unsqueeze(1), logits.double(), 0).requires_grad_()  # noqa: E741
    q = how.get("label_share", 1) * y + how.get("prior_share", 0) * tau + how.get("uniform_share", 0) / classes
    loss = -torch.where(q > 0, q * l.log_softmax(dim=1), 0).sum(dim=1)
    if how.get("penalty"):
        d, delta = l - ((y + tau) / 2 if mix_label else tau), how.get("delta", 1)
        size = {
            "l1": d.abs(),
            "l2": d**2,
            "huber": torch.where(d.abs() <= delta, d**2 / 2, delta * (d.abs() - delta / 2)),
        }[how["penalty"]]
        loss = loss + how["penalty_weight"] * size.mean(dim=1)
    (slope,) = torch.autograd.grad(torch.where(usable, loss, 0).sum(), l)
    blank = torch.where(ignored, 0, torch.nan).double()
    return torch.where(usable, loss, blank).detach(), torch.where(usable.unsqueeze(1), slope, blank.unsqueeze(1))


def case(classes=4, sizes=(6, 20), *, batch=1, dtype=torch.float32, labels=torch.int64, window=None, **options):
    """A row of CASES: `fill` maps (logits, target) to the tensors to use, the rest is for `fused_pixel_loss`."""
    return dict(classes=classes, sizes=sizes, batch=batch, dtype=dtype, labels=labels, window=window, **options)


def ignored_nan(logits, target):
    """A third of the pixels ignored, and a corner in which no pixel counts; their logits are NaN and infinite."""
    ignored = torch.rand(target.shape) < 0.3
    ignored[..., :3, :4] = True
    ignored[..., 1, 1] = False
    target[ignored] = IGNORE
    logits = torch.where(
        ignored.unsqueeze(1), torch.tensor([torch.nan, torch.inf])[torch.randint(2, logits.shape)], logits
    )
    return logits, target


def ignored_255(logits, target):
    target[torch.rand(target.shape) < 0.3] = 255
    return logits, target


def bad_labels(logits, target):
    classes = logits.shape[1]
    for i, bad in enumerate((classes, -1, 127, 2**32 + 1, 2**32, -(2**63), 2**63 - 1, 255, IGNORE)):
        target[0].view(-1)[5 * i] = bad
    return logits, target


def bad_bytes(logits, target):
    target[0].view(-1)[[3, 20, 21]] = torch.tensor([logits.shape[1], 127, 255], dtype=torch.uint8)
    return logits, target


def huge(logits, target):
    return logits * 1e4, target


def infinite(logits, target):
    logits[:, 0] = torch.where(target == 0, logits[:, 0], -torch.inf)  # a class that is ruled out, and not the label
    return logits, target


def infinite_tile(logits, target):
    logits[:, :16] = -torch.inf  # of 33 classes, the kernel takes 16 at a time
    return logits, target.clamp(min=16)


def broken(logits, target):
    logits[0, 1, 2, 3], logits[0, 0, 2, 5], logits[0, :, 4, 1] = torch.nan, torch.inf, -torch.inf
    return logits, target


def last(logits, target):
    return logits.contiguous(memory_format=torch.channels_last if logits.ndim == 4 else torch.channels_last_3d), target


def strided(logits, target):
    return logits.repeat_interleave(2, dim=-1)[..., ::2], target.transpose(-1, -2).contiguous().transpose(-1, -2)


def equal_to_tau(logits, target):
    """Logits 0 where tau is 0: at the kink of the L1 penalty, whose slope there is 0."""
    return torch.zeros_like(logits), torch.ones_like(target)


CASES = [
    *(case(c, sizes=(5, 6)) for c in (2, 3, 4, 5, 33, 133)),
    case(label_share=0.9, uniform_share=0.1),
    case(label_share=0.0, uniform_share=1.0),
    *(case(window=w, weights=gaussian(w), batch=2, **SVLS) for w in ((3, 3), (5, 5))),
    *(
        case(window=w, penalty=p, penalty_weight=0.3, delta=0.7)
        for w in ((3, 3), (3, 5))
        for p in ("l1", "l2", "huber")
    ),
    case(window=(7, 7), sizes=(10, 9), **NACL),
    case(window=(7, 7), sizes=(10, 9), weights=gaussian((7, 7), 2.0), **SVLS),
    case(window=(9, 9), sizes=(4, 5), **NACL),  # wider than the image, and row by row
    case(window=(3, 3), weights=gaussian((3, 3)), mix_label=True, **NACL),
    case(window=(1, 1), **NACL),
    case(window=(1, 1), weights=np.zeros((1, 1)), **SVLS),
    *(case(window=(3, 3), border=b, fill=ignored_nan, batch=2, **ALL) for b in BORDERS),
    *(case(window=(5, 3), weights=gaussian((5, 3)), border=b, fill=ignored_nan, **ALL) for b in BORDERS),
    *(case(3, window=(3, 3), border=b, ignore_index=i, **ALL) for b in BORDERS for i in (0, 2)),
    case(sizes=(3, 4, 11), window=(3, 3, 1), **NACL),
    case(5, sizes=(3, 4, 5), window=(3, 3, 3), border="zero", batch=2, **ALL),
    case(5, sizes=(3, 4, 5), window=(3, 3, 3), weights=gaussian((3, 3, 3)), border="replicate", **SVLS),
    case(2, sizes=(5, 5, 5), window=(5, 5, 5), border="background", **NACL),
    case(3, sizes=(3, 4, 5), window=(1, 3, 3), fill=last, **NACL),
    *(case(c, sizes=(5, 6), window=(3, 3), **ALL) for c in (2, 3, 5, 8, 15, 16, 20, 33)),
    case(33, sizes=(5, 6), window=(3, 3), weights=gaussian((3, 3)), border="zero", fill=infinite, **SVLS),
    case(133, sizes=(5, 6), window=(3, 3), labels=torch.uint8, fill=bad_bytes, **NACL),
    case(3, window=(3, 3), fill=ignored_255, ignore_index=255, labels=torch.uint8, **NACL),
    case(3, window=(3, 3), fill=ignored_255, ignore_index=255, labels=torch.int32, **NACL),
    case(3, window=(3, 3), labels=torch.uint8, fill=bad_bytes, **NACL),
    *(case(3, window=(3, 3), labels=t, **NACL) for t in (torch.int8, torch.int16, torch.int32)),
    *(case(window=(3, 3), fill=bad_labels, border=b, **NACL) for b in BORDERS),
    case(window=(3, 3), weights=gaussian((3, 3)), fill=bad_labels, **SVLS),
    case(fill=bad_labels),
    case(window=(3, 3), dtype=torch.float16, batch=2, **ALL),
    case(window=(3, 3), dtype=torch.bfloat16, batch=2, **ALL),
    case(5, window=(3, 3), dtype=torch.bfloat16, fill=last, **ALL),
    case(fill=huge),
    case(window=(3, 3), fill=huge, **NACL),
    case(33, sizes=(5, 6), fill=huge),
    case(sizes=(5, 6), fill=infinite),
    case(window=(3, 3), fill=infinite, **SVLS),
    case(33, sizes=(5, 6), fill=infinite),
    case(33, sizes=(5, 6), fill=infinite_tile),
    case(window=(3, 3), fill=broken, **ALL),
    case(33, sizes=(5, 6), fill=broken),
    case(window=(3, 3), fill=equal_to_tau, **NACL),
    case(4, window=(3, 3), fill=last, batch=2, **ALL),
    case(5, window=(3, 3), fill=last, **NACL),
    case(33, sizes=(5, 6), window=(3, 3), fill=last, **NACL),
    case(window=(3, 3), fill=strided, batch=2, **ALL),
    case(window=(3, 3), sizes=(1, 1), batch=3, **ALL),
    case(window=(3, 3), sizes=(1, 1), weights=gaussian((3, 3)), **SVLS),
    case(window=(3, 3), sizes=(8, 16), **NACL),  # one block exactly
    case(window=(3, 3), sizes=(8, 33), batch=2, **ALL),  # three blocks, the last of 8 pixels
]


def check(row, device):
    """Compare the kernel with the loops on one row of CASES."""
    options = dict(row)
    classes, sizes, batch, dtype, labels = (options.pop(k) for k in ("classes", "sizes", "batch", "dtype", "labels"))
    torch.manual_seed(classes + sum(sizes))
    logits, target = torch.randn(batch, classes, *sizes), torch.randint(0, classes, (batch, *sizes)).to(labels)
    logits, target = options.pop("fill", lambda *x: x)(2 * logits, target)
    logits = logits.to(dtype)
    wanted_loss, wanted_slope = expected(logits, target, **options)

    if (weights := options.pop("weights", None)) is not None:
        options["weights"] = torch.tensor(weights, dtype=torch.float32, device=device).flatten()
    on_device, label = logits.to(device), target.to(device)
    if row.get("fill") is strided:  # moving to a device would have made it dense
        on_device, label = strided(logits.to(device), target.to(device))
    assert available(on_device)
    run = functools.partial(fused_pixel_loss, on_device, label, **options)
    loss, slope = run(gradient=True)
    if device == "cuda" or batch == 2:  # the interpreter takes its time
        alone, nothing = run(gradient=False)
        assert nothing is None
        torch.testing.assert_close(alone, loss, rtol=1e-6, atol=1e-6, equal_nan=True)
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")  # not earlier: to load a kernel waits
        try:
            run(gradient=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert loss.dtype == torch.float32
    assert slope.dtype == dtype
    assert slope.stride() == on_device.stride() or slope.is_contiguous()
    finite = wanted_loss[wanted_loss.isfinite()]
    scale = max(1.0, finite.abs().max().item()) if finite.numel() else 1.0
    torch.testing.assert_close(loss.cpu().double(), wanted_loss, rtol=1e-5, atol=2e-6 * scale, equal_nan=True)
    eps = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    torch.testing.assert_close(slope.cpu().double(), wanted_slope, rtol=eps, atol=eps, equal_nan=True)
    ignored = (target.long() == options.get("ignore_index", IGNORE)).unsqueeze(1).expand_as(slope)
    assert (slope.cpu()[ignored] == 0).all()


def check_operator():
    """What torch.compile sees: an operator of the right schema and shapes, and no break in the graph."""
    torch.manual_seed(0)
    target, weights = torch.randint(0, 3, (2, 4, 5)), torch.ones(9)
    for fill in (last, lambda *x: x):
        logits, target = fill(torch.randn(2, 3, 4, 5), target)
        for gradient in (True, False):
            args = (logits, target, weights, [3, 3], gradient, 0.5, 0.5, 0.0, "l1", 0.1, 1.0, False, "inside", IGNORE)
            torch.library.opcheck(_triton._operator, args, test_utils=("test_schema", "test_faketensor"))

    def step(logits, target):
        assert available(logits)
        return fused_pixel_loss(logits, target, gradient=True, window=(3, 3), **NACL)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for wanted, got in zip(step(logits, target), compiled(logits, target), strict=True):
        torch.testing.assert_close(got, wanted)


# The losses that the kernel computes, each in 2D and 3D
LOSSES = [
    (nacl.cross_entropy_loss, {}),
    (nacl.label_smoothing_loss, {"smoothing": 0.2}),
    (nacl.svls_loss, {}),
    (nacl.svls_loss, {"kernel_size": 5, "sigma": 0.7, "border": "zero"}),
    (nacl.nacl_loss, {}),
    (nacl.nacl_loss, {"penalty": "l2", "kernel_size": 5, "border": "background"}),
    (nacl.nacl_loss, {"penalty": "huber", "prior": "gaussian", "border": "replicate"}),
]


def check_loss(sizes, loss, options, device):
    """Through the kernel in float32 as by the plain path in float64, with first and second derivatives."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, *sizes, generator=generator).to(device)
    target = torch.randint(0, 4, (2, *sizes), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.2] = -100
    target = target.to(device)
    results = []
    for x in (logits.requires_grad_(), logits.detach().double().requires_grad_()):
        assert available(x) == (x.dtype == torch.float32)
        value = loss(x, target, **options)
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        results.append((value, gradient, torch.autograd.grad(gradient.square().sum(), x)[0]))
        (plain,) = torch.autograd.grad(loss(x, target, **options), x)
        torch.testing.assert_close(plain, gradient.detach())
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused.double(), plain, rtol=1e-5, atol=1e-6)


def check_availability():
    logits = torch.zeros(1, 2, 3, 3)
    assert available(logits)
    assert not available(logits.double())
    assert not available(torch.zeros(1, 2))
    assert not available(torch.zeros(2**16, 2, 1, 1))
    inside_vmap = []
    torch.func.vmap(lambda x: inside_vmap.append(available(x.unsqueeze(0))) or x)(logits)
    assert inside_vmap == [False]
    loss, slope = fused_pixel_loss(torch.zeros(0, 2, 3, 3), torch.zeros(0, 3, 3, dtype=torch.long), gradient=True)
    assert loss.shape == (0, 3, 3)
    assert slope.shape == (0, 2, 3, 3)


def check_that_triton_is_imported_late():
    assert not available(torch.zeros(1, 2, 3, 3))
    assert "triton" not in sys.modules


def check_that_a_broken_triton_is_reported():
    with mock.patch("triton.runtime.driver", None), pytest.warns(RuntimeWarning, match="plain path: Triton does not"):
        assert _triton._kernel.__wrapped__() is None


def check_compilation(accesses, row):
    """Compile for a GPU that need not be there; `accesses` are the loads and stores of a thread, and all it does."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from nacl.losses._triton_kernel import pixel_loss_kernel

    started = {}

    class Recorder:
        def __getitem__(self, grid):
            return lambda *values, **named: started.update(
                zip(pixel_loss_kernel.arg_names, values, strict=False), **named
            )

    _triton._kernel = Recorder
    options = dict(row)
    classes, sizes, dtype, _, _ = (options.pop(k) for k in ("classes", "sizes", "dtype", "labels", "batch"))
    logits = options.pop("fill", lambda *x: x)(torch.zeros(1, classes, *sizes, dtype=dtype), None)[0]
    if "weights" in options:
        options["weights"] = torch.tensor(options["weights"])
    fused_pixel_loss(logits, torch.zeros(1, *sizes, dtype=torch.long), gradient=True, **options)
    types = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int64: "*i64"}
    signature, constants, attributes = {}, {}, {}
    for i, name in enumerate(pixel_loss_kernel.arg_names):
        value = started.pop(name)
        if isinstance(value, torch.Tensor):
            signature[name] = "*fp32" if name == "weights" else types[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        elif name.isupper() or value is None:
            signature[name], constants[name] = "constexpr", value
        else:
            signature[name] = "i32" if isinstance(value, int) else "fp32"
    source = ASTSource(pixel_loss_kernel, signature, constants, attributes)
    ptx = compile(source, target=GPUTarget("cuda", 90, 32), options=started).asm["ptx"]
    assert "local" not in ptx.replace("DW_", "")
    assert "bar.sync" not in ptx
    assert "shared" not in ptx
    assert (ptx.count("ld.global"), ptx.count("st.global")) == accesses


# Loads: the logits, the label, and the labels (and the weights) of the window; stores: the gradient and the loss.
# (Five classes are padded to 8, until the assembler drops what is never done.)
COMPILED = [
    ((4 + 1, 4 + 1), case()),
    ((4 + 1 + 9, 4 + 1), case(window=(3, 3), **NACL)),
    ((4 + 1 + 49, 4 + 1), case(window=(7, 7), border="zero", **ALL)),
    ((8 + 1 + 27, 8 + 1), case(5, sizes=(3, 4, 5), window=(3, 3, 3), border="replicate", dtype=torch.float16, **NACL)),
    ((16 + 1 + 9 + 9, 16 + 1), case(16, window=(3, 3), weights=gaussian((3, 3)), dtype=torch.bfloat16, **SVLS)),
    ((1 + 1 + 9, 1 + 1), case(window=(3, 3), fill=last, **NACL)),  # one load of 16 bytes
    ((16 + 16 + 1 + 7, 16 + 1), case(133, window=(7, 7), border="background", **NACL)),  # 16 classes, a row at a time
]


def main(checks):
    failed = 0
    for function, *arguments in checks:
        try:
            function(*arguments)
        except Exception:
            failed += 1
            print(function.__name__, arguments, traceback.format_exc(), sep="\n")
    print(f"{len(checks) - failed} of {len(checks)} checks passed")
    return failed


def run_as_script(what, **environment):
    command = [sys.executable, __file__, what]
    folders = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": folders, **environment}, capture_output=True, text=True, check=False
    )


needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="there is no Triton for this platform")


@needs_triton
def test_the_interpreted_kernel_equals_the_loops():
    done = run_as_script("interpret", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_triton
def test_the_kernel_compiles_for_a_gpu_and_reads_everything_once(tmp_path):
    environment = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = run_as_script("compile", **environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_the_kernel_and_the_losses_that_take_it_are_right_on_a_gpu(capsys):
    losses = [(check_loss, sizes, *loss, "cuda") for sizes in ((33, 70), (5, 17, 20)) for loss in LOSSES]
    assert main([*losses, *((check, row, "cuda") for row in CASES)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": "l3"}, r"`penalty` to be one of"),
        ({"border": "edge"}, r"`border` to be one of"),
        ({"penalty": "l1"}, r"`window` of 2 odd sizes, got None"),
        ({"prior_share": 0.5, "window": (3, 4)}, r"`window` of 2 odd sizes, got \(3, 4\)"),
        ({"prior_share": 0.5, "window": (3, 3, 3)}, r"`window` of 2 odd sizes"),
        ({"prior_share": 0.5, "window": (3, 3), "weights": torch.ones(3)}, r"`weights` of 9 values, got 3"),
        ({"target": torch.zeros(1, 5, 4, dtype=torch.long)}, r"`target` of shape \(1, 4, 5\), got \(1, 5, 4\)"),
    ],
)
def test_what_it_refuses(options, message):
    target = options.pop("target", torch.zeros(1, 4, 5, dtype=torch.long))
    with pytest.raises(ValueError, match=message):
        fused_pixel_loss(torch.zeros(1, 2, 4, 5), target, gradient=True, **options)


if __name__ == "__main__":
    if sys.argv[1] == "compile":
        sys.exit(
            main(
                [
                    (check_that_triton_is_imported_late,),
                    (check_that_a_broken_triton_is_reported,),
                    *((check_compilation, *row) for row in COMPILED),
                ]
            )
        )
    losses = [(check_loss, sizes, *loss, "cpu") for sizes in ((6, 7), (3, 4, 5)) for loss in LOSSES]
    sys.exit(main([(check_operator,), (check_availability,), *losses, *((check, row, "cpu") for row in CASES)]))
