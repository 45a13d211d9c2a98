"""Hand-written backward passes equal autograd's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from echovec.model import adapted, gradients, kernels

peft = pytest.importorskip("peft")


def doubles(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_norm_has_the_gradient_of_its_twin():
    """Checked numerically, and against rms_norm under autograd."""
    torch.manual_seed(0)
    x, gain = doubles(5, 8), torch.rand(8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: gradients.norm(x, gain, 1e-5), x)
    assert torch.equal(gradients.norm(x, gain, 1e-5), functional.rms_norm(x, (8,), gain, 1e-5))


def test_turn_has_the_gradient_of_its_twin():
    """A rotation's gradient is the rotation back."""
    torch.manual_seed(0)
    x = doubles(4, 3, 6)
    angle = torch.rand(4, 1, 3, dtype=torch.float64)
    cos, sin = angle.cos(), angle.sin()
    assert torch.autograd.gradcheck(lambda x: gradients.turn(x, cos, sin), x)
    assert torch.allclose(gradients.turn(x, cos, sin), kernels.turn_plain(x, cos, sin))


def test_gate_has_the_gradient_of_its_twin():
    """silu(left) * right."""
    torch.manual_seed(0)
    x = doubles(4, 10)
    assert torch.autograd.gradcheck(gradients.gate, x)
    assert torch.allclose(gradients.gate(x), functional.silu(x[:, :5]) * x[:, 5:])


def lora_modules(*, bias: bool, dropout: float = 0.0, **options: object) -> list[nn.Module]:
    """Three linear modules of different width; all but the last one adapted by PEFT."""
    torch.manual_seed(1)
    model = nn.ModuleDict(
        {n: nn.Linear(6, w, bias=bias) for n, w in (("a", 8), ("b", 4), ("c", 4))}
    )
    config = peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=["a", "b"], lora_dropout=dropout, **options
    )
    model = peft.inject_adapter_in_model(config, model).double()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    for name in "abc":
        base = getattr(model[name], "base_layer", model[name])
        base.requires_grad_(False)
    return [model[name] for name in "abc"]


@pytest.mark.parametrize("bias", [False, True])
def test_adapted_modules_equal_peft(bias):
    """Outputs, the input's gradient and the adapters' gradients."""
    modules = lora_modules(bias=bias)
    x = doubles(7, 6)
    weight = torch.randn(7, 16, dtype=torch.float64)
    found = []
    for outputs in (
        adapted.product(modules, x),
        torch.cat([module(x) for module in modules], dim=-1),
    ):
        parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        assert len(parameters) == 4
        found.append([outputs, *torch.autograd.grad((outputs * weight).sum(), [x, *parameters])])
    for ours, peft_s in zip(*found, strict=True):
        assert torch.allclose(ours, peft_s, atol=1e-12)
    assert not torch.allclose(found[0][0][:, :8], modules[0].base_layer(x)), "the control"


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}])
def test_other_adapters_run_as_peft_has_them(options):
    """They are not fused: the caller calls the modules."""
    modules = lora_modules(bias=options.get("lora_bias", False), **options)
    assert adapted.product(modules, doubles(2, 6)) is None


def test_switched_off_adapters_do_nothing():
    """As PEFT's disable_adapters has it."""
    modules = lora_modules(bias=False)
    for module in modules[:2]:
        module.enable_adapters(False)
    x = doubles(2, 6)
    assert adapted.product(modules, x) is None
    plain = [getattr(m, "base_layer", m)(x) for m in modules]
    assert torch.allclose(torch.cat([m(x) for m in modules], -1), torch.cat(plain, -1))


def test_plain_modules_are_not_fused():
    """Without an adapter there is nothing to fuse."""
    assert adapted.product([nn.Linear(3, 2)], torch.zeros(1, 3)) is None
