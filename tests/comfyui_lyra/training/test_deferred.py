import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import move, still
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, pinhole_camera
from lyra_pack.comfyui_lyra.files.cameras.pinhole import pinhole_matrix
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians
from lyra_pack.comfyui_lyra.splats.render import Frames, draw_view
from lyra_pack.comfyui_lyra.training.deferred import FIELDS, render_deferred

PARTS = ("images", "alphas", "depths")


def blobs(gaussians: Gaussians, camera: CameraTrajectory) -> Frames:
    """The stand-in renderer of deferred_bp.json, for one camera."""
    w2c, K = camera.viewmats[0], camera.K[0]
    x, y, z = (gaussians.means @ w2c[:3, :3].T + w2c[:3, 3]).unbind(1)
    u, v = K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]
    lean = 1 + 0.1 * gaussians.quats[:, 0] / gaussians.quats.norm(dim=1)
    radius = gaussians.scales.mean(1) * lean * K[0, 0] / z + 0.5
    rows, columns = torch.meshgrid(torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij")
    distance = (columns[..., None] - u).square() + (rows[..., None] - v).square()  # [H, W, N]
    alpha = (gaussians.opacities * torch.exp(-distance / (2 * radius.square()))).clamp_max(0.99)
    alpha = torch.where((z > 0.1) & (z < 500), alpha, 0)
    order = z.argsort()
    alpha = alpha[..., order]
    left = torch.cat((torch.ones_like(alpha[..., :1]), (1 - alpha).cumprod(-1)[..., :-1]), -1)
    weight = alpha * left
    total = weight.sum(-1)
    rgb = weight @ gaussians.colors[order] + (1 - total)[..., None]
    depth = (weight * z[order]).sum(-1) / total.clamp_min(1e-10)
    return Frames(rgb=rgb[None], alpha=total[None], depth=depth[None])


def direct(gaussians, cameras, renderer):
    each = [renderer(gaussians, cameras[i : i + 1]) for i in range(len(cameras))]
    return Frames(**{name: torch.cat([getattr(frames, name) for frames in each]) for name in ("rgb", "alpha", "depth")})


def outputs(frames: Frames):
    """Pictures, alpha and depth [V, C, H, W] as the golden has them."""
    return frames.rgb.movedim(-1, 1), frames.alpha[:, None], frames.depth[:, None]


def unpacked(packed) -> Gaussians:
    xyz, opacities, scales, quats, colors = packed.split([3, 1, 3, 4, 3], 1)
    return Gaussians(means=xyz, opacities=opacities[:, 0], scales=scales, quats=quats, colors=colors)


@pytest.mark.golden("training/deferred_bp")
def test_pictures_and_gradients_of_the_stand_in_renderer(golden):
    weights = [golden[f"grad_{part}"] for part in PARTS]
    expected = {part: golden[f"direct.{part}"] for part in PARTS}
    height, width = expected["images"].shape[-2:]
    for name in ("direct", "deferred"):
        leaf = golden["gaussians"].requires_grad_()
        pictures = {part: [] for part in PARTS}
        for scene, views, numbers in zip(leaf, golden["cam_view"], golden["intrinsics"], strict=True):
            c2w = torch.linalg.inv(views.mT)
            cameras = CameraTrajectory(c2w=c2w, K=pinhole_matrix(numbers), height=height, width=width)
            if name == "direct":
                frames = direct(unpacked(scene), cameras, blobs)
            else:
                frames = render_deferred(unpacked(scene), cameras, blobs)
            for part, picture in zip(PARTS, outputs(frames), strict=True):
                pictures[part].append(picture)
        loss = 0
        for part, weight in zip(PARTS, weights, strict=True):
            found = torch.stack(pictures[part])
            loss = loss + (found * weight).sum()
            for key in {f"{name}.{part}", f"direct.{part}"} & set(golden):
                assert torch.allclose(found, golden[key], rtol=1e-5, atol=1e-6)
        loss.backward()
        reference = golden[f"{name}.grad_gaussians"]
        assert (leaf.grad - reference).abs().max() < 1e-5 * reference.abs().max()


def some_scene(seed=0, count=60) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "means": torch.randn(count, 3, generator=g) * 0.5 + torch.tensor([0, 0, 2.5]),
        "scales": torch.rand(count, 3, generator=g) * 0.2 + 0.03,
        "quats": torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        "opacities": torch.rand(count, generator=g) * 0.9 + 0.05,
        "colors": torch.rand(count, 3, generator=g),
    }


def three_cameras(away=False) -> CameraTrajectory:
    """Two cameras that see the scene, and between them one that may look the other way."""
    cameras = move(still(pinhole_camera(32, 24, 60), 3), "left", 0.4)
    c2w = cameras.c2w.clone()
    if away:
        c2w[1] = torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    return CameraTrajectory(c2w=c2w, K=cameras.K, height=24, width=32)


def gradients(tensors, cameras, make, needed=FIELDS):
    leaves = {name: tensor.clone().requires_grad_(name in needed) for name, tensor in tensors.items()}
    frames = make(Gaussians(**leaves), cameras)
    g = torch.Generator().manual_seed(9)
    parts = (frames.rgb, frames.alpha, frames.depth)
    sum((part * torch.randn(part.shape, generator=g)).sum() for part in parts).backward()
    return frames, {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("away", [False, True], ids=["all see it", "one sees nothing"])
def test_deferred_gradients_equal_direct_ones_of_our_rasteriser(away):
    cameras = three_cameras(away)
    for seed in (0, 1):  # scene after scene, as in a batch
        expected, grads = gradients(some_scene(seed), cameras, lambda g, c: direct(g, c, draw_view))
        found, ours = gradients(some_scene(seed), cameras, render_deferred)
        assert torch.equal(found.rgb, expected.rgb) and torch.equal(found.depth, expected.depth)
        assert torch.equal(found.alpha, expected.alpha) and (found.alpha[1].max() == 0) == away
        for name in FIELDS:
            assert grads[name].abs().max() > 0
            assert (ours[name] - grads[name]).abs().max() < 1e-4 * grads[name].abs().max(), name


@pytest.mark.parametrize("at_once", [2, 5])
def test_a_graph_over_several_cameras_changes_nothing(at_once):
    expected, grads = gradients(some_scene(), three_cameras(), render_deferred)
    found, ours = gradients(some_scene(), three_cameras(), lambda g, c: render_deferred(g, c, at_once=at_once))
    assert torch.equal(found.rgb, expected.rgb) and torch.equal(found.depth, expected.depth)
    for name in FIELDS:
        assert (ours[name] - grads[name]).abs().max() < 1e-5 * grads[name].abs().max(), name


def test_only_what_needs_a_gradient_gets_one():
    _, grads = gradients(some_scene(), three_cameras(), render_deferred, needed=("colors", "opacities"))
    assert {name for name, grad in grads.items() if grad is not None} == {"colors", "opacities"}
    with torch.no_grad():
        assert not render_deferred(Gaussians(**some_scene()), three_cameras()).rgb.requires_grad


def test_a_scene_that_nobody_sees_has_gradients_of_zero():
    away = three_cameras(True)[1:2]
    frames, grads = gradients(some_scene(), away, render_deferred)
    assert (frames.rgb == 1).all() and all((grad == 0).all() for grad in grads.values())


def test_outputs_that_the_loss_ignores_cost_nothing():
    leaves = {name: tensor.requires_grad_() for name, tensor in some_scene().items()}
    render_deferred(Gaussians(**leaves), three_cameras()).alpha.sum().backward()
    assert leaves["colors"].grad.abs().max() == 0 < leaves["opacities"].grad.abs().max()


def test_bf16_splats_are_drawn_in_float32_and_get_bf16_gradients():
    leaves = {name: tensor.bfloat16().requires_grad_() for name, tensor in some_scene().items()}
    frames = render_deferred(Gaussians(**leaves), three_cameras())
    frames.rgb.sum().backward()
    assert frames.rgb.dtype == torch.float32 and leaves["means"].grad.dtype == torch.bfloat16


def test_spherical_harmonics_are_refused():
    splats = Gaussians(**some_scene(), sh_rest=torch.zeros(60, 3, 3))
    with pytest.raises(ValueError, match="get no gradient here"):
        render_deferred(splats, three_cameras())
