"""Each network is trained for a step by the package's own loop."""

import pytest
import torch
from conftest import square_case
from torch import nn

from nacl.losses import NACLLoss
from nacl.models import MODELS, build_model
from nacl.training import fit, predict

SPECIAL = {
    "smp.MAnet": {"filters": 8},
    "smp.PAN": {"patch": (128, 128)},
    "smp.DPT": {"encoder": "tu-vit_tiny_patch16_224"},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_step_changes_the_network_and_a_checkpoint_is_taken_up_again(name, tmp_path):
    keywords = {"filters": 2, "patch": (64, 64), **SPECIAL.get(name, {})}
    case = square_case("one", "train", slices=2, size=keywords["patch"][0])
    options = {"batch_size": 2, "device": "cpu", "checkpoint": tmp_path / "checkpoint.safetensors"}

    def trained(epochs):
        torch.manual_seed(0)
        model = build_model(name, 1, 3, **keywords)
        before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        history = fit(model, NACLLoss(), [case], [case], 3, epochs=epochs, **options)
        assert any(not torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
        return model, history

    _, history = trained(1)
    assert history[0]["loss"] > 0
    model, longer = trained(2)
    assert longer[0] == history[0]  # the first epoch was not trained again
    probs = predict(model, case, device="cpu")
    assert probs.shape == (2, 3, *keywords["patch"])
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(2, *keywords["patch"]))


class Half(nn.Module):
    """Logits of half the image's size, as of a network without its last step up."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3, stride=2, padding=1)

    def forward(self, image):
        return self.convolution(image)


def test_logits_of_another_size_than_the_image_are_refused_when_trained():
    case = square_case("one", "train", slices=2, size=32)
    with pytest.raises(ValueError, match=r"Expected .*\(2, 3, 16, 16\)|Expected .*\(2, 16, 16\)"):
        fit(Half(), NACLLoss(), [case], [case], 3, epochs=1, batch_size=2, device="cpu")
