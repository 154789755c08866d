import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.cache.cache3d import reliability
from lyra_pack.comfyui_lyra.gen3c.cache.occlusion import boundary_mesh, mesh_depth
from lyra_pack.comfyui_lyra.gen3c.cache.warp import PAIR, depth_weight, forward_warp, project, splat
from lyra_pack.comfyui_lyra.geometry.geometry import pixel_rays, transform, unproject


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """The goldens' tolerance, an element."""
    return found.shape == expected.shape and bool(
        ((found - expected).abs() <= 2e-5 * expected.abs().clamp(min=1)).all()
    )


def check(golden, name: str, warped) -> None:
    """Compare a warp with the golden's; another ray kernel may decide otherwise on 0.5 % of the pixels it removes."""
    image, mask, depth = (golden[f"{name}.{key}"] for key in ("image", "mask", "depth"))
    same = (warped.mask == mask)[:, 0]
    assert (~same).float().mean() <= (0.005 if ".fg" in name else 0), name
    assert close(warped.depth * same, depth * same), name
    assert close(warped.image * same[:, None], image * same[:, None]), name


def source_mask(golden) -> str:
    """Key of the weights of the points; what it leaves out is the boundary."""
    return golden.meta["note"].split("mask1 = ")[1].split(";")[0]


def repeated(tensor: torch.Tensor, count: int) -> torch.Tensor:
    return tensor.expand(count, *tensor.shape[1:])


@pytest.mark.golden("teacher/forward_warp")
def test_warps_agree_with_the_reference(golden):
    image, depth, K, targets = golden["image"], golden["depth"], golden["K"][None], golden["target_w2c"]
    points = unproject(depth[:, 0], K, torch.eye(4)[None])
    assert torch.allclose(points, golden["world_points"], rtol=1e-6, atol=1e-6)
    for key in golden:
        if key.startswith("reliable_mask_thr"):
            found = reliability(depth[:, 0], float(key.removeprefix("reliable_mask_thr")))
            assert torch.equal(found[:, None].float(), golden[key])
    mask = golden[source_mask(golden)]
    mesh = boundary_mesh(points[0], mask[0, 0] == 0)
    everything = torch.ones_like(mask)
    for name in sorted({key.rsplit(".", 1)[0] for key in golden if key.startswith("cam") and key.count(".") == 2}):
        camera, kind = name.split(".")
        w2c = targets[int(camera.removeprefix("cam")), None]
        weights = everything if kind == "nomask" else mask
        check(golden, name, forward_warp(image, points, weights, w2c, K, [mesh] if kind == "fg" else None))
    check(golden, "identity", forward_warp(image, points, everything, torch.eye(4)[None], K))
    pair = [repeated(t, 2) for t in (image, points, mask)]
    check(golden, "batch01", forward_warp(*pair, targets[:2], repeated(K, 2)))


@pytest.mark.golden("teacher/forward_warp")
def test_flows_and_rays_agree_with_the_reference(golden):
    K, points = golden["K"][None], golden["world_points"]
    height, width = points.shape[1:3]
    rays = pixel_rays(K, height, width)[0]
    lengths = rays.norm(dim=-1)
    assert close(rays / lengths[..., None], golden["rays"])
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    boundary = golden[source_mask(golden)][0, 0] == 0
    for key in golden:
        if key.endswith(".flow"):
            x, y, _ = project(points, golden["target_w2c"][int(key[3 : key.index(".")]), None], K)
            assert close(torch.stack([x - u, y - v], 1), golden[key])
        if key.endswith(".mesh_ray_t"):
            camera = key[: key.index(".")]
            w2c = golden["target_w2c"][int(camera[3:]), None]
            mesh = boundary_mesh(points[0], boundary)
            vertices = torch.stack(transform(w2c, mesh.vertices[None].unbind(-1)), -1)[0]
            assert close(vertices, golden[f"{camera}.mesh_vertices"])
            assert torch.equal(mesh.faces, golden[f"{camera}.mesh_faces"])
            found, expected = mesh_depth([mesh], w2c, K, height, width)[0] * lengths, golden[key]
            same = (found > 0) == (expected > 0)
            assert (~same).float().mean() <= 0.005
            assert torch.allclose(found[same], expected[same], atol=1e-4)


def flat_picture(
    height: int, width: int, depth: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A random picture on a wall, its points, a full mask and K of focal length 8."""
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    K = torch.tensor([[[8.0, 0, width // 2], [0, 8.0, height // 2], [0, 0, 1]]])
    points = unproject(torch.full((1, height, width), depth), K, torch.eye(4)[None])
    return image, points, torch.ones(1, 1, height, width), K


def test_moving_the_camera_by_a_pixel_moves_the_picture_by_one():
    image, points, mask, K = flat_picture(6, 9, depth=1.0)
    w2c = torch.eye(4)[None].clone()
    w2c[:, 0, 3] = -1 / 8  # the camera goes right
    warped = forward_warp(image, points, mask, w2c, K)
    assert torch.allclose(warped.image[..., :-1], image[..., 1:], atol=1e-4)
    assert (warped.image[..., -1] == -1).all()
    assert warped.mask[..., :-1].all()
    assert not warped.mask[..., -1].any()
    assert torch.allclose(warped.depth[..., :-1], torch.tensor(1.0))


def test_points_behind_the_camera_and_masked_points_are_not_drawn():
    image, points, mask, K = flat_picture(6, 9, depth=1.0)
    behind = torch.eye(4)[None].clone()
    behind[:, 2, 3] = -2
    assert not forward_warp(image, points, mask, behind, K).mask.any()
    mask[..., 1:5, :] = 0
    seen = forward_warp(image, points, mask, torch.eye(4)[None], K).mask[0, 0]
    assert not seen[2:4].any()  # rounding lets rows 1 and 4 catch a trace of their neighbours
    assert seen[[0, 5]].all()


def two_points(x: float, depth: float) -> torch.Tensor:
    """Colour of the pixel on which a white point at depth 1 lands exactly, and a black one ``x`` to its left."""
    image, columns = torch.tensor([1.0, -1.0]).expand(1, 3, 1, 2), torch.tensor([[[0.0, -x]]])
    z = torch.tensor([[[1.0, depth]]])
    return splat(image, torch.ones_like(z), columns, torch.zeros_like(z), z).image[0, 0, 0, 0]


def test_a_point_on_an_integer_weighs_four_times():
    # white: 2 x 2 corners of weight 1; black: exact in its row only, half its weight in each column
    assert torch.isclose(two_points(0.5, 1.0), torch.tensor((4 - 2 * 0.5) / (4 + 2 * 0.5)))


def test_the_nearer_point_wins():
    assert two_points(0.0, 10.0) > 0.999
    assert two_points(0.0, 0.1) < -0.999


def test_pairs_share_their_depth_maximum():
    z = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(0)) + 1
    assert PAIR == 2
    deeper = z.clone()
    deeper[1, 0, 0] = 100
    before, after = depth_weight(z), depth_weight(deeper)
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[2:], after[2:])
    assert torch.equal(depth_weight(z[4:])[0], before[4])
    assert torch.allclose(before.view(5, -1).amax(1)[:4].view(2, 2).amax(1), torch.tensor(50.0).exp(), rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_bits_every_time_and_those_of_the_cpu_but_for_rounding():
    generator = torch.Generator().manual_seed(0)
    image, mask = torch.rand(2, 3, 96, 160, generator=generator) * 2 - 1, torch.ones(2, 96, 160)
    x = torch.rand(2, 96, 160, generator=generator) * 40  # about 60 points a pixel
    y, z = torch.rand(2, 96, 160, generator=generator) * 25, 1 + torch.rand(2, 96, 160, generator=generator)
    call = image, mask, x, y, z
    found = [splat(*(t.cuda() for t in call)) for _ in range(4)]
    for name in ("image", "mask", "depth"):
        first, *others = (getattr(warped, name) for warped in found)
        assert all(torch.equal(first, other) for other in others)
        assert close(first.cpu(), getattr(splat(*call), name))
