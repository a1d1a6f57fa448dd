"""What only a GPU can show; skipped without one."""

import pytest
import torch
from conftest import square_case

from nacl.losses import LOSSES, build_loss
from nacl.models import build_model
from nacl.training import fit, predict

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_waits_for_nothing_and_equals_the_cpu(name):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 32, 32), torch.randint(0, 4, (2, 32, 32))
    loss = build_loss(name, num_classes=4)
    on_gpu, label = logits.cuda().requires_grad_(), target.cuda()
    loss(on_gpu, label).backward()  # kernels are loaded, which waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss(on_gpu, label)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), loss(logits, target))


def test_the_same_seed_gives_the_same_numbers():
    train = [square_case(f"train{i}", "train") for i in range(4)]
    test = square_case("test0", "test")
    probs = []
    for _ in range(2):
        torch.manual_seed(0)
        model = build_model("unet", 1, 3, filters=4)
        fit(model, build_loss("nacl"), train, [test], 3, epochs=2, batch_size=4, device="cuda")
        probs.append(predict(model, test, device="cuda"))
    assert torch.equal(*probs)
