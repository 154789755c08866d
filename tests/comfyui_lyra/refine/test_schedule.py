import pytest
from lyra_pack.comfyui_lyra.refine import schedule
from lyra_pack.comfyui_lyra.refine.schedule import (
    LAST,
    Clock,
    Rates,
    RefineSettings,
    falling,
    needs_source,
    settings_for,
)


def test_rates_fall_by_an_equal_factor_to_a_share():
    assert falling(0) == 1 and falling(1) == falling(2) == pytest.approx(LAST)
    assert falling(0.5) ** 2 == pytest.approx(LAST)


def test_a_factor_is_on_all_rates():
    assert all(value == 2 * getattr(Rates(), name) for name, value in vars(Rates() * 2).items())


def test_a_run_is_over_when_its_steps_or_its_time_are(monkeypatch):
    monkeypatch.setattr(Clock, "seconds", property(lambda clock: 5.0))
    assert Clock(RefineSettings(steps=10)).share(4) == 0.4
    assert Clock(RefineSettings(steps=10, seconds=20)).share(4) == 0.4
    assert Clock(RefineSettings(steps=100, seconds=20)).share(4) == 0.25


def test_a_device_has_steps_of_its_own_kind(monkeypatch):
    monkeypatch.setattr(schedule.rasterize, "absent", lambda name: None)
    cpu, gpu, large = settings_for("cpu", 160 * 96), settings_for("cuda", 160 * 96), settings_for("cuda", 1280 * 704)
    assert (cpu.batch, cpu.similarity, cpu.picture_every, cpu.shrink) == (1, 0.2, 3, 1)
    assert gpu.batch > large.batch and gpu.picture_every == 1 and large.shrink == 1
    asked = settings_for("cpu", 160 * 96, steps=7, seconds=2.5, seed=9)
    assert (asked.steps, asked.seconds, asked.seed) == (7, 2.5, 9)


def test_without_gsplat_a_gpu_does_as_a_cpu_does_and_large_frames_are_halved(monkeypatch):
    monkeypatch.setattr(schedule.rasterize, "absent", lambda name: f"{name} is not installed")
    for pixels, shrink in ((160 * 96, 1), (1280 * 704, 2)):
        assert settings_for("cuda", pixels) == settings_for("cpu", pixels)
        assert settings_for("cuda", pixels).shrink == shrink


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch": 0}, {"seconds": -1.0}, {"seconds": float("nan")}])
def test_numbers_that_make_no_run_are_refused(wrong):
    with pytest.raises(ValueError, match="refine: .* steps of"):
        RefineSettings(**wrong)


def test_weights_below_nothing_are_refused_and_what_they_need_is_known():
    for name in ("invented", "depth", "needles", "affine", "poses"):
        with pytest.raises(ValueError, match="weights and step sizes are 0 or more"):
            RefineSettings(**{name: -0.1})
    assert not needs_source(RefineSettings(needles=1.0, poses=1.0))
    assert needs_source(RefineSettings(invented=0.5)) and needs_source(RefineSettings(depth=0.1))
