import math
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians
from lyra_pack.comfyui_lyra.splats.render import RenderSettings, depth_view, render, sh_colors


def one_splat(mean=(0.0, 0.0, 2.0), rest: torch.Tensor | None = None) -> Gaussians:
    return Gaussians(
        means=torch.tensor([mean]),
        scales=torch.full((1, 3), 0.1),
        quats=torch.tensor([[1.0, 0, 0, 0]]),
        opacities=torch.tensor([0.9]),
        colors=torch.tensor([[0.2, 0.5, 0.8]]),
        sh_rest=rest,
    )


def three_cameras() -> CameraTrajectory:
    """A camera that steps to the right: the scene steps to the left."""
    c2w = torch.eye(4).repeat(3, 1, 1)
    c2w[:, 0, 3] = torch.tensor([0.0, 0.2, 0.4])
    K = torch.tensor([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]).repeat(3, 1, 1)
    return CameraTrajectory(c2w=c2w, K=K, height=32, width=48)


@pytest.mark.parametrize("mode", ["ut_eval3d", "ewa"])
def test_a_splat_appears_where_its_center_projects(mode):
    frames = render(one_splat(), three_cameras(), RenderSettings(mode=mode))
    columns = torch.arange(48) + 0.5
    for frame, column in zip(frames.alpha, (24.0, 20.0, 16.0), strict=True):
        mass = frame.sum(0)
        assert (mass * columns).sum() / mass.sum() == pytest.approx(
            column, abs=0.15
        )  # 3DGUT draws the true perspective, whose mass leans outward
    middle = frames.depth[0, 15:17, 23:25]
    assert middle.mean() == pytest.approx(2.0, rel=1e-3)
    assert torch.equal(frames.rgb[:, 0, 0], torch.ones(3, 3))  # white where nothing is
    assert (frames.depth[:, 0, 0] == 0).all()


def test_frames_are_drawn_in_order_with_progress():
    steps = []
    render(one_splat(), three_cameras(), on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_harmonics_are_real_orthonormal_spherical_harmonics():
    special = pytest.importorskip("scipy.special")
    count = 15
    theta, phi = 0.7, -2.1  # from the z axis, around it
    mean = (math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta))
    for k, (degree, order) in enumerate((d, m) for d in (1, 2, 3) for m in range(-d, d + 1)):
        rest = torch.zeros(1, count, 3)
        rest[0, k] = 1
        value = special.sph_harm_y(degree, abs(order), theta, phi)
        expected = value.real if order == 0 else math.sqrt(2) * (value.real if order > 0 else value.imag)
        colors = sh_colors(one_splat(mean, rest), torch.zeros(3)) - one_splat().colors
        visible = max(float(expected), -0.2)  # colours stop at 0
        assert colors[0, 0] == pytest.approx(visible, abs=1e-5), (degree, order)


def test_harmonics_are_seen_from_each_camera_anew():
    rest = torch.zeros(1, 3, 3)
    rest[0, 2] = 0.5
    splat, cameras = one_splat(rest=rest), three_cameras()
    drawn = render(splat, cameras).rgb
    painted = [replace(splat, colors=sh_colors(splat, center), sh_rest=None) for center in cameras.c2w[:, :3, 3]]
    assert not torch.allclose(painted[0].colors, painted[2].colors, atol=0.01)
    for i, one in enumerate(painted):
        assert torch.equal(drawn[i], render(one, cameras).rgb[i])


def test_nan_splats_and_cameras_are_refused_before_drawing():
    broken = one_splat()
    broken.quats[0, 1] = float("nan")
    with pytest.raises(ValueError, match="Gaussians.quats"):
        render(broken, three_cameras())
    lost = three_cameras()
    lost.c2w[1, 0, 3] = float("nan")
    with pytest.raises(ValueError, match="camera path 'path': frame 1 of 3 holds NaN or infinity"):
        render(one_splat(), lost)


def test_the_depth_view_shows_near_bright_and_nothing_black():
    view = depth_view(torch.tensor([[[0.0, 1.0], [2.0, 4.0]]]))
    assert view.shape == (1, 2, 2, 3)
    nothing, near, middle, far = view[..., 0].flatten().tolist()
    assert nothing == 0 < far < middle < near <= 1
    assert depth_view(torch.zeros(1, 2, 2)).abs().sum() == 0


@pytest.mark.golden("decoder/render_call")
def test_the_rasteriser_is_called_as_the_reference_calls_it(golden, monkeypatch):
    """The golden holds what the reference handed to gsplat for each camera."""
    from lyra_pack.comfyui_lyra.splats import render as module

    calls = []
    kwargs = golden.meta["kwargs"]

    def record(means, quats, scales, opacities, colors, viewmats, Ks, *, width, height, **others):
        calls.append((
            {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors,
             "viewmats": viewmats, "Ks": Ks, "backgrounds": others["background"][None]},
            {"width": width, "height": height, "near_plane": others["near"], "far_plane": others["far"],
             "with_ut": others["mode"] == "ut_eval3d", "with_eval3d": others["mode"] == "ut_eval3d"},
        ))  # fmt: skip
        return torch.zeros(1, height, width, 3), torch.zeros(1, height, width), torch.zeros(1, height, width)

    monkeypatch.setattr(module, "rasterize", record)
    packed = golden["gaussians"].flatten(0, -2).to(torch.bfloat16).float()
    gaussians = Gaussians(
        means=packed[:, :3], opacities=packed[:, 3], scales=packed[:, 4:7], quats=packed[:, 7:11], colors=packed[:, 11:]
    )
    fx, fy, cx, cy = golden["intrinsics"].flatten(0, -2).unbind(-1)
    K = torch.zeros(len(fx), 3, 3)
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = fx, fy, cx, cy, 1
    c2w = golden["c2w"].flatten(0, -3)
    assert torch.allclose(golden["cam_view"].flatten(0, -3).mT, torch.linalg.inv(c2w), atol=1e-6)
    render(gaussians, CameraTrajectory(c2w=c2w, K=K, height=kwargs["height"], width=kwargs["width"]))
    prefixes = sorted({key.split(".")[0] for key in golden if key.startswith("call")})
    assert len(prefixes) == len(calls)
    for i, (tensors, others) in enumerate(calls):
        assert all(others[name] == kwargs[name] for name in others)
        for name, tensor in tensors.items():
            assert torch.allclose(tensor, golden[f"call{i}.{name}"], atol=1e-6), (i, name)
