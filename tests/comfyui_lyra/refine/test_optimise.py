from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.refine import optimise as room
from lyra_pack.comfyui_lyra.refine.leaves import Leaves, pixel_size
from lyra_pack.comfyui_lyra.refine.losses import needles
from lyra_pack.comfyui_lyra.refine.optimise import optimise
from lyra_pack.comfyui_lyra.refine.report import measure
from lyra_pack.comfyui_lyra.refine.schedule import RefineSettings, falling
from lyra_pack.comfyui_lyra.splats.render import draw_colors, draw_view, render

SHORT = RefineSettings(steps=12, batch=2)


def test_refined_splats_show_frames_and_picture_better(blurred_splats, target):
    refined, run = optimise(blurred_splats, target, SHORT)
    before, after = measure(blurred_splats, target), measure(refined, target)
    assert after.frames > before.frames + 1 and after.picture > before.picture + 1
    assert run.steps == 12 and len(refined) == len(blurred_splats)
    assert not any(tensor.requires_grad for tensor in vars(refined.check_finite()).values() if tensor is not None)
    torch.testing.assert_close(refined.quats.norm(dim=-1), torch.ones(90))


def test_splats_that_are_right_stay_right(true_splats, target):
    refined, _ = optimise(true_splats, target, SHORT)
    assert measure(refined, target).frames > 35


def test_a_seed_gives_one_result(blurred_splats, target):
    first, second, other = (optimise(blurred_splats, target, replace(SHORT, seed=s))[0] for s in (3, 3, 4))
    assert torch.equal(first.means, second.means) and torch.equal(first.colors, second.colors)
    assert not torch.equal(first.means, other.means)


def test_the_given_splats_are_not_changed(blurred_splats, target):
    before = {name: tensor.clone() for name, tensor in vars(blurred_splats).items() if tensor is not None}
    optimise(blurred_splats, target, SHORT)
    assert all(torch.equal(before[name], getattr(blurred_splats, name)) for name in before)


def test_a_larger_world_is_refined_alike(blurred_splats, target):
    def grown(target):
        picture = replace(target.picture, camera=target.picture.camera.scaled(4.0))
        return replace(target, cameras=target.cameras.scaled(4.0), picture=picture)

    small, _ = optimise(blurred_splats, target, SHORT)
    large, _ = optimise(blurred_splats.scaled(4.0), grown(target), SHORT)
    shown = (render(s, t.cameras).rgb for s, t in ((small, target), (large, grown(target))))
    torch.testing.assert_close(*shown, atol=2e-2, rtol=0)


def test_the_picture_is_held_more_exactly_than_the_frames(blurred_splats, target):
    other = replace(target, frames=255 - target.frames)  # frames that contradict it
    refined, _ = optimise(blurred_splats, other, replace(SHORT, steps=25))
    scores = measure(refined, other)
    assert scores.picture > measure(blurred_splats, other).picture > scores.frames


def test_a_step_of_the_picture_alone_comes_every_so_often(target):
    settings, order = replace(SHORT, picture_every=3), torch.Generator().manual_seed(0)
    shots = [room.choose(target, settings, step, order, torch.device("cpu")) for step in range(4)]
    assert [len(shot.weights) for shot in shots] == [1, 2, 2, 1]
    torch.testing.assert_close(shots[0].wanted[0], target.picture.pixels)


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_the_picture_weighs_four_times_the_frames_of_a_step_however_many(target, batch):
    shot = room.choose(target, RefineSettings(batch=batch), 0, torch.Generator().manual_seed(0), torch.device("cpu"))
    *frames, picture = shot.weights.tolist()
    assert len(frames) == batch and picture == pytest.approx(4 * sum(frames))


def test_it_ends_when_told_with_what_there_is(blurred_splats, target):
    seen = []
    refined, run = optimise(
        blurred_splats, target, SHORT, on_step=lambda *step: seen.append(step), enough=lambda: len(seen) == 5
    )
    assert run.steps == 5 and seen == [(n, 12) for n in range(1, 6)]
    assert measure(refined, target).frames > measure(blurred_splats, target).frames


def test_it_ends_when_its_time_is_over_and_has_slowed_down_by_then(blurred_splats, target, monkeypatch):
    seen, shares = [], []
    monkeypatch.setattr(room.Clock, "seconds", property(lambda clock: 2.0 * len(seen)))
    monkeypatch.setattr(room, "falling", lambda share: shares.append(share) or falling(share))
    limited = replace(SHORT, steps=500, seconds=20)
    _, run = optimise(blurred_splats, target, limited, on_step=lambda *step: seen.append(step))
    assert run.steps == 10 and seen[-1][1] == 500
    assert shares == sorted(shares) and shares[-1] == 0.9


def test_less_is_drawn_at_once_where_memory_runs_out(blurred_splats, target, monkeypatch):
    def draw(splats, cameras):
        if len(cameras) > 1:
            raise torch.cuda.OutOfMemoryError("too much")
        return draw_colors(splats, cameras)

    whole, _ = optimise(blurred_splats, target, SHORT)
    monkeypatch.setattr(room, "draw_colors", draw)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    parts, run = optimise(blurred_splats, target, SHORT)
    assert run.at_once == 1
    torch.testing.assert_close(parts.colors, whole.colors, atol=2e-2, rtol=0)
    monkeypatch.setattr(room, "draw_colors", lambda *_: draw(None, "several"))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        optimise(blurred_splats, target, SHORT)


def test_it_shows_a_frame_beside_what_it_should_be(blurred_splats, target):
    pictures = []
    optimise(blurred_splats, target, replace(SHORT, steps=1), on_picture=pictures.append)
    assert pictures[0].shape == (24, 64, 3)
    torch.testing.assert_close(pictures[0][:, 32:], target.picture.pixels)


def test_it_works_where_inference_mode_is_on(blurred_splats, target):
    with torch.inference_mode():
        made = blurred_splats.scaled(1.0)
        refined, _ = optimise(made, target, SHORT)
        assert measure(refined, target).frames > measure(made, target).frames


def test_leaves_stand_for_the_splats_they_are_made_of(blurred_splats):
    again = Leaves.of(blurred_splats).splats()
    for name in ("means", "scales", "quats", "opacities", "colors"):
        torch.testing.assert_close(getattr(again, name), getattr(blurred_splats, name))


def test_harmonics_stay_and_are_drawn(blurred_splats, target):
    rest = 0.1 * torch.randn(90, 3, 3, generator=torch.Generator().manual_seed(5))
    refined, _ = optimise(replace(blurred_splats, sh_rest=rest), target, SHORT)
    assert torch.equal(refined.sh_rest, rest)
    plain, _ = optimise(blurred_splats, target, SHORT)
    assert not torch.allclose(refined.colors, plain.colors, atol=1e-2)


def test_each_option_changes_what_it_is_for(blurred_splats, target):
    known = torch.zeros(10, 24, 32, dtype=torch.bool)
    depth = torch.full((10, 24, 32), 1.0).half()  # too near: the splats lie about 2 away
    given = replace(target, known=known, depth=depth, views=2)
    plain = refined(blurred_splats, given)
    assert (
        draw_view(refined(blurred_splats, given, depth=1.0), target.cameras).depth.mean()
        < draw_view(plain, target.cameras).depth.mean()
    )
    wrong = replace(given, frames=255 - target.frames)  # which the source does not show at all
    without, with_them = (refined(blurred_splats, wrong, invented=weight) for weight in (0.0, 1.0))
    assert measure(without, target).frames > measure(with_them, target).frames + 1
    long = replace(blurred_splats, scales=blurred_splats.scales * torch.tensor([4.0, 1, 1]))
    assert needles(refined(long, given, needles=1.0).scales.log()) < needles(refined(long, given).scales.log())


def refined(splats, target, **options):
    return optimise(splats, target, replace(SHORT, steps=6, picture_weight=0.05, **options))[0]


def test_a_dark_view_does_not_darken_the_splats(true_splats, target):
    frames = torch.cat((target.frames[:5], (target.frames[5:] * 0.6).byte()))
    dark = replace(target, frames=frames, views=2)
    settings = replace(SHORT, picture_weight=0.5)
    plain, freed = (optimise(true_splats, dark, replace(settings, affine=rate))[0] for rate in (0.0, 0.1))
    assert measure(freed, target).frames > measure(plain, target).frames
    assert measure(freed, target).picture > measure(plain, target).picture + 1


def test_splats_of_another_world_are_refused(blurred_splats, target):
    turned = blurred_splats.transformed(torch.diag(torch.tensor([-1.0, 1, -1, 1])))
    with pytest.raises(ValueError, match="no splat lies before camera 'left'; splats and cameras must be of one world"):
        optimise(turned, target, SHORT)
    assert pixel_size(blurred_splats, target.cameras[:1]) == pytest.approx(
        2 / float(target.cameras.K[0, 0, 0]), rel=0.1
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_refines_as_well(blurred_splats, target):
    refined, _ = optimise(blurred_splats.to("cuda"), target, SHORT)
    assert refined.means.is_cuda
    assert measure(refined, target).frames > measure(blurred_splats, target).frames + 1
