import math
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory, facing, largest_crop, pinhole_K, relative_to
from lyra_pack.comfyui_lyra.cameras.rays import plucker, plucker_bf16, rays, rays_bf16


def random_cameras(frames: int = 3, height: int = 16, width: int = 24, seed: int = 0) -> CameraTrajectory:
    """Cameras that look anywhere, with unequal focal lengths and an off-centre principal point."""
    g = torch.Generator().manual_seed(seed)
    c2w = torch.eye(4).repeat(frames, 1, 1)
    c2w[:, :3, :3] = torch.linalg.qr(torch.randn(frames, 3, 3, generator=g))[0]
    c2w[:, :3, 2] *= torch.linalg.det(c2w[:, :3, :3])[:, None]
    c2w[:, :3, 3] = torch.randn(frames, 3, generator=g)
    K = torch.tensor([[20.0, 0, 11], [0, 17, 9], [0, 0, 1]]).repeat(frames, 1, 1)
    return CameraTrajectory(c2w=c2w, K=K, height=height, width=width)


def golden_cameras(golden) -> CameraTrajectory:
    fx, fy, cx, cy = golden["intrinsics"][0].unbind(-1)
    K = torch.eye(3).repeat(len(fx), 1, 1)
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = fx, fy, cx, cy
    height, width = golden.meta["img_size"]
    return CameraTrajectory(c2w=golden["c2w"][0], K=K, height=height, width=width)


def project(cameras: CameraTrajectory, points: torch.Tensor) -> torch.Tensor:
    """Textbook projection of world points [F, 3, H, W] into their own cameras, [F, 2, H, W] pixels."""
    local = torch.einsum("fij,fjhw->fihw", cameras.viewmats[:, :3, :3], points)
    pixels = torch.einsum("fij,fjhw->fihw", cameras.K, local + cameras.viewmats[:, :3, 3, None, None])
    return pixels[:, :2] / pixels[:, 2:]


def pixel_centres(height: int, width: int) -> torch.Tensor:
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack((u, v))


@pytest.mark.golden("decoder/plucker_rays*")
def test_rays_and_plucker_equal_the_reference_in_each_dtype(golden):
    cameras, stride = golden_cameras(golden), golden.meta["patch_size_out_factor"][-1]
    casts = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16}
    for key in golden:
        if key in ("c2w", "intrinsics"):
            continue
        dtype, full = casts[key.split("_")[-1]], "fullres" in key
        cast = cameras.to(dtype)
        origins, directions = rays(cast, 1 if full else stride)
        found = {"plucker": plucker(cast), "rays_o": origins, "rays_d": directions}[
            "plucker" if key.startswith("plucker") else key[:6]
        ]
        if dtype is torch.bfloat16:
            assert torch.equal(found.float(), golden[key][0]), key
        else:
            assert torch.allclose(found.float(), golden[key][0], rtol=0, atol=1e-6), key


@pytest.mark.golden("decoder/plucker_rays*")
def test_bf16_functions_equal_the_reference_bit_for_bit(golden):
    cameras, stride = golden_cameras(golden), golden.meta["patch_size_out_factor"][-1]
    origins, directions = rays_bf16(cameras, stride)
    assert torch.equal(plucker_bf16(cameras).float(), golden["plucker_bf16"][0])
    assert torch.equal(origins.float(), golden["rays_o_bf16"][0])
    assert torch.equal(directions.float(), golden["rays_d_bf16"][0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.golden("decoder/plucker_rays*")
def test_bf16_on_a_gpu_rounds_as_on_the_cpu(golden):
    cameras, stride = golden_cameras(golden), golden.meta["patch_size_out_factor"][-1]
    assert torch.equal(plucker_bf16(cameras.to("cuda")).float().cpu(), golden["plucker_bf16"][0])
    assert torch.equal(rays_bf16(cameras.to("cuda"), stride)[1].float().cpu(), golden["rays_d_bf16"][0])


def test_bf16_merges_neighbouring_pixels_as_the_trained_grid_does():
    K = torch.tensor([[900.0, 0, 640], [0, 900, 352], [0, 0, 1]])[None]
    cameras = CameraTrajectory(c2w=torch.eye(4)[None], K=K, height=704, width=1280).to(torch.bfloat16)
    u = torch.linspace(0, 1279, 1280, dtype=torch.bfloat16) + 0.5
    v = torch.linspace(0, 703, 704, dtype=torch.bfloat16) + 0.5
    assert (len(u.unique()), len(v.unique())) == (481, 369)  # decoder.md 2.4
    _, directions = rays(cameras, stride=8)
    assert len(directions[0, 0, 44].unique()) <= 145


def test_a_point_on_a_ray_projects_to_its_pixel():
    cameras = random_cameras()
    origins, directions = rays(cameras)
    found = project(cameras, origins + 2.7 * directions)
    assert torch.allclose(found, pixel_centres(16, 24).expand_as(found), atol=1e-4)


def test_strided_rays_pass_the_centres_of_their_patches():
    cameras = random_cameras()
    origins, directions = rays(cameras, stride=4)
    found = project(cameras, origins + directions)
    assert torch.allclose(found, 4 * pixel_centres(4, 6).expand_as(found), atol=1e-4)


def test_the_ray_of_the_principal_point_is_the_optical_axis():
    cameras = random_cameras()
    cameras.K[:, :2, 2] = torch.tensor([10.5, 7.5])  # the centre of pixel (10, 7)
    origins, directions = rays(cameras)
    assert torch.allclose(directions[:, :, 7, 10], cameras.c2w[:, :3, 2], atol=1e-6)
    assert torch.allclose(origins[:, :, 0, 5], cameras.c2w[:, :3, 3])


def test_plucker_moments_stay_when_the_origin_slides_along_the_ray():
    cameras = random_cameras()
    coordinates = plucker(cameras)
    moment, direction = coordinates[:, :3], coordinates[:, 3:]
    origins, _ = rays(cameras)
    assert torch.allclose(direction.norm(dim=1), torch.ones(3, 16, 24))
    assert torch.allclose(torch.linalg.cross(origins + 5 * direction, direction, dim=1), moment, atol=1e-5)


def test_a_slice_of_a_path_has_the_slice_of_its_plucker_coordinates():
    cameras = random_cameras(5)
    assert torch.equal(plucker(cameras[1:3]), plucker(cameras)[1:3])


@pytest.mark.parametrize(("width", "left"), [(60, 3), (61, 4), (59, 2)])  # an odd rest is cut at a whole column
def test_resizing_projects_into_the_centre_crop(width, left):
    cameras = random_cameras(height=36, width=width)
    resized = cameras.resized(32, 48)  # crops the columns to 54, then shrinks by 9 / 8
    assert (resized.height, resized.width, largest_crop(36, width, 32, 48)) == (32, 48, (36, 54))
    origins, directions = rays(cameras)
    before, after = (project(c, origins + directions) for c in (cameras, resized))
    assert torch.allclose(after[:, 0], (before[:, 0] - left) / 1.125, atol=1e-4)
    assert torch.allclose(after[:, 1], before[:, 1] / 1.125, atol=1e-4)


def test_resizing_to_the_same_size_changes_nothing():
    cameras = random_cameras()
    assert torch.equal(cameras.resized(16, 24).K, cameras.K)


def test_resizing_leaves_the_original_alone():
    cameras = random_cameras()
    K = cameras.K.clone()
    cameras.resized(7, 5)
    assert torch.equal(cameras.K, K)


def test_relative_poses_make_the_origin_the_identity_and_keep_distances():
    first, second = random_cameras(seed=1), random_cameras(seed=2)
    moved = relative_to((first, second), first.c2w[0])
    assert torch.allclose(moved[0].c2w[0], torch.eye(4), atol=1e-6)
    between = first.viewmats[1] @ second.c2w[2]
    assert torch.allclose(moved[0].viewmats[1] @ moved[1].c2w[2], between, atol=1e-5)


def test_pinhole_takes_the_vertical_view_angle():
    K = pinhole_K(200, 100, 90)
    assert torch.allclose(K, torch.tensor([[50.0, 0, 100], [0, 50, 50], [0, 0, 1]]))
    assert math.isclose(2 * math.degrees(math.atan(100 / K[0, 0].item())), 126.8699, abs_tol=1e-3)


def test_facing_is_a_rotation_that_keeps_the_horizon():
    forward = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    rotation = facing(forward)
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(50), atol=1e-5)
    assert torch.allclose(rotation[:, 2], forward / forward.norm(dim=-1, keepdim=True), atol=1e-6)
    assert rotation[:, 0, 1].abs().max() < 1e-6
    assert (rotation[:, 1, 1] > 0).all()


@pytest.mark.parametrize("y", [1.0, -1.0])
def test_facing_straight_up_or_down_puts_right_along_x(y):
    rotation = facing(torch.tensor([0.0, y, 0.0]))
    assert torch.equal(rotation, torch.tensor([[1.0, 0, 0], [0, 0, -y], [0, y, 0]]))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: facing(torch.zeros(3)), "cannot look at the point where it stands"),
        (lambda: rays(random_cameras(), stride=5), "24x16 is not divisible into rays of stride 5"),
        (lambda: relative_to((random_cameras(),), torch.eye(4)[None]), r"\[4 4\], got \(1, 4, 4\)"),
        (lambda: pinhole_K(64, 64, 180), "view angle in 0..180"),
        (lambda: random_cameras().resized(0, 24), "sizes must be positive"),
        (lambda: random_cameras()[3:], "holds no cameras"),
        (lambda: CameraTrajectory(c2w=torch.eye(4)[None], K=torch.eye(3)[None], height=0, width=1), "must be positive"),
        (lambda: replace(random_cameras(), fps=math.inf), "at inf fps; all must be positive and finite"),
        (
            lambda: CameraTrajectory(c2w=torch.eye(4)[None], K=torch.eye(3), height=1, width=1),
            r"CameraTrajectory.K: expected \[F 3 3\], got \(3, 3\)",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(act, message):
    with pytest.raises(ValueError, match=message):
        act()
