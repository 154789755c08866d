import logging
import math

import pytest
import torch
from lyra_pack.comfyui_lyra.training.run.optimizer import MINI_OPTIM, OptimConfig, Optimizer, moving_average
from torch import nn


def small_model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def pull(model, scale=1.0, seed=0):
    """One backward pass."""
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed))
    (scale * model(x).square().mean()).backward()


def test_the_rate_rises_over_the_warm_up_and_stays():
    config = OptimConfig()
    assert [config.rate(step) for step in (0, 49, 99, 100, 90_000)] == pytest.approx([1e-6, 5e-5, 1e-4, 1e-4, 1e-4])


def test_the_cosine_of_the_mini_stages_ends_at_its_last_rate():
    rates = [MINI_OPTIM.rate(step) for step in range(100, 10_200, 100)]
    assert rates[0] == pytest.approx(8e-4) and all(a > b for a, b in zip(rates, rates[1:], strict=False))
    assert MINI_OPTIM.rate(5150) == pytest.approx(4.2e-4)
    assert MINI_OPTIM.rate(10_200) == MINI_OPTIM.rate(13_000) == pytest.approx(4e-5)
    later = OptimConfig(lr=1.0, final_lr=0.0, begin=50, warmup=10, steps=100)  # goes on from another run's step
    assert [later.rate(step) for step in (50, 59, 60, 80, 100)] == pytest.approx([0.1, 1, 1, 0.5, 0])
    with pytest.raises(ValueError, match="needs steps beyond the warm-up, which ends at 100, got None"):
        OptimConfig(final_lr=1e-5)


def test_a_step_is_adamw_s_with_the_gradient_shortened():
    model, twin = small_model(), small_model()
    optimizer = Optimizer(model, OptimConfig(lr=0.01, warmup=1, clip=0.5))
    adam = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=1e-2)
    for seed in range(3):
        pull(model, 100, seed), pull(twin, 100, seed)
        norm = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm()
        for p in twin.parameters():
            p.grad *= 0.5 / norm
        adam.step(), adam.zero_grad()
        report = optimizer.step()
        assert norm > 0.5 and report == {"lr": 0.01, "grad_norm": pytest.approx(norm.item()), "skipped": 0}
    for found, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(found, expected, atol=1e-6) and found.grad is None


@pytest.mark.parametrize("scale", [math.nan, math.inf, 1e9], ids=str)
def test_a_bad_step_changes_nothing_but_the_counter(scale, caplog):
    model = small_model()
    optimizer = Optimizer(model, OptimConfig())
    pull(model), optimizer.step()
    before = {name: tensor.clone() for name, tensor in {**model.state_dict(), **optimizer.state()}.items()}
    pull(model, scale)
    with caplog.at_level(logging.WARNING, "lyra"):
        assert optimizer.step()["skipped"] == 1
    assert "step 1 skipped: the gradient's length is" in caplog.text
    after = {**model.state_dict(), **optimizer.state()}
    assert all(torch.equal(before[name], after[name]) for name in before) and optimizer.step_count == 2
    pull(model)
    assert optimizer.step()["skipped"] == 0


def test_too_many_bad_steps_in_a_row_end_the_run():
    model = small_model()
    optimizer = Optimizer(model, OptimConfig(patience=3))
    for scale in (math.nan, math.nan, 1.0, math.nan, math.nan):
        pull(model, scale), optimizer.step()
    pull(model, math.nan)
    with pytest.raises(RuntimeError, match="3 steps in a row .* lower learning rate"):
        optimizer.step()


def test_the_state_continues_exactly_and_passes_over_unused_weights():
    model = small_model()
    model.register_parameter("unused", nn.Parameter(torch.ones(3)))
    optimizer = Optimizer(model, OptimConfig())
    for seed in range(3):
        pull(model, seed=seed), optimizer.step()
    twin = small_model(1)
    twin.register_parameter("unused", nn.Parameter(torch.zeros(3)))
    twin.load_state_dict(model.state_dict())
    other = Optimizer(twin, OptimConfig())
    other.restore(optimizer.state(), optimizer.step_count)
    assert not [name for name in optimizer.state() if name.endswith("unused")] and (model.unused == 1).all()
    for seed in range(3, 6):
        for one, its in ((model, optimizer), (twin, other)):
            pull(one, seed=seed), its.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_state_of_another_model_is_refused():
    model = small_model()
    optimizer = Optimizer(model, OptimConfig())
    pull(model), optimizer.step()
    wider = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 2))
    with pytest.raises(ValueError, match=r"another model: 0.weight is \(8, 4\), expected \(9, 4\)"):
        Optimizer(wider, OptimConfig()).restore(optimizer.state(), 1)
    with pytest.raises(ValueError, match="is no weight of this one"):
        Optimizer(nn.Linear(4, 8), OptimConfig()).restore(optimizer.state(), 1)


def test_half_precision_moments_are_half_as_large():
    model = small_model()
    optimizer = Optimizer(model, OptimConfig())
    pull(model), optimizer.step()
    assert {t.dtype for n, t in optimizer.state(torch.bfloat16).items() if "step" not in n} == {torch.bfloat16}


def test_the_average_of_weights_has_no_bias_towards_its_start():
    model = nn.Linear(1, 1, bias=False)
    ema, values = moving_average(model, power=2), []
    for value in (3.0, -1.0, 4.0):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        values.append(value)
    shares = [i**3 - (i - 1) ** 3 for i in (1, 2, 3)]
    expected = sum(s * v for s, v in zip(shares, values, strict=True)) / 3**3
    assert ema.module.weight.item() == pytest.approx(expected)
    twin = moving_average(model, power=2)
    twin.load_state_dict(ema.state_dict())
    for one in (ema, twin):
        one.update_parameters(model)
    assert torch.equal(ema.module.weight, twin.module.weight)
