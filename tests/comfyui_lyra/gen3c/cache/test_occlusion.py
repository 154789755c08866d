import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.cache import occlusion
from lyra_pack.comfyui_lyra.gen3c.cache.cache3d import remember
from lyra_pack.comfyui_lyra.gen3c.cache.occlusion import boundary_mesh, mesh_depth, rasterize_triangles
from lyra_pack.comfyui_lyra.gen3c.cache.warp import forward_warp

HEIGHT, WIDTH = 20, 28


def camera(seed: int) -> torch.Tensor:
    focal, shift = torch.rand(2, generator=torch.Generator().manual_seed(seed)) * 10
    return torch.tensor([[20 + focal, 0, WIDTH / 2 + shift], [0, 22 - focal, HEIGHT / 2], [0, 0, 1]])


def nearest_hits(triangles: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Every ray against every triangle by Cramer's rule in float64: depth of the nearest hit, or 0."""
    v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    rays = torch.stack([u, v, torch.ones_like(u)], -1).double() @ torch.linalg.inv(K.double()).T
    v0, v1, v2 = triangles.double().unbind(1)
    # o + t d = v0 + a (v1 - v0) + b (v2 - v0)
    system = torch.stack([(v1 - v0).expand(HEIGHT, WIDTH, -1, 3), (v2 - v0).expand(HEIGHT, WIDTH, -1, 3)], -1)
    system = torch.cat([system, -rays[:, :, None, :, None].expand(-1, -1, len(v0), -1, -1)], -1)
    a, b, t = torch.linalg.solve(system, -v0.expand(HEIGHT, WIDTH, -1, 3)[..., None])[..., 0].unbind(-1)
    hit = (a >= 0) & (b >= 0) & (a + b <= 1) & (t > 1e-8)
    nearest = torch.where(hit, t, torch.inf).amin(-1)
    return torch.where(nearest.isinf(), 0, nearest).float()


@pytest.mark.parametrize("seed", range(4))
def test_rasterising_finds_what_tracing_every_ray_finds(seed, monkeypatch):
    g = torch.Generator().manual_seed(seed)
    triangles = torch.randn(60, 3, 3, generator=g) * torch.tensor([1.5, 1.0, 1.5]) + torch.tensor([0.0, 0, 0.7])
    triangles[20:] = triangles[20:, :1] + 0.1 * torch.randn(40, 3, 3, generator=g)  # small ones
    straddling = (triangles[..., 2] > 0).any(1) & (triangles[..., 2] < 0).any(1)
    assert straddling.sum() > 3
    owner = torch.arange(60) % 2
    K = torch.stack([camera(seed), camera(seed + 10)])
    found = rasterize_triangles(triangles, owner, K, HEIGHT, WIDTH)
    for i in range(2):
        expected = nearest_hits(triangles[owner == i], K[i])
        same = torch.isclose(found[i], expected, rtol=1e-3, atol=1e-4)
        assert (expected > 0).any()
        assert (~same).float().mean() < 0.003  # rays along an edge
    monkeypatch.setattr(occlusion, "PAIRS", 50)
    assert torch.equal(rasterize_triangles(triangles, owner, K, HEIGHT, WIDTH), found)


def test_nothing_to_hide_behind_is_no_depth():
    mesh = boundary_mesh(torch.rand(8, 12, 3), torch.zeros(8, 12, dtype=torch.bool))
    assert mesh.faces.shape == (0, 3)
    assert not mesh_depth([mesh, mesh], torch.eye(4).repeat(2, 1, 1), camera(0).repeat(2, 1, 1), 8, 12).any()


def test_a_cell_that_touches_the_boundary_makes_two_triangles():
    boundary = torch.zeros(16, 16, dtype=torch.bool)
    boundary[4, 4] = True  # vertex 1, 1 of a grid of 4 x 4
    mesh = boundary_mesh(torch.rand(16, 16, 3), boundary)
    assert mesh.faces.shape == (2 * 4, 3)
    assert len(mesh.vertices) == 9


def test_a_hole_in_the_depth_hides_nothing():
    """A wall of which nothing is known on the right: no surface leads from its edge to where the camera stood."""
    height = width = 64
    K = torch.tensor([[[64.0, 0, 32], [0, 64.0, 32], [0, 0, 1]]])
    depth = torch.full((1, height, width), 3.0)
    depth[:, :, 34:] = 0  # vertex 8 mixes columns 33 and 34
    depth[:, 1, 1] = 0  # a lone pixel pulls its vertex, as in the reference
    buffer = remember(torch.ones(1, 3, height, width), depth, K, torch.eye(4)[None])
    assert buffer.boundary[0, :, 33].all()
    mesh = boundary_mesh(buffer.points[0], buffer.boundary[0])
    assert sorted(set(mesh.vertices[:, 2].tolist())) == [2.25, 3.0]
    w2c = torch.eye(4)[None].clone()
    w2c[:, 0, 3] = 0.5
    inputs = (buffer.image, buffer.points, buffer.mask, w2c, K)
    open_, masked = (forward_warp(*inputs, m) for m in (None, [mesh]))
    assert torch.equal(open_.mask, masked.mask) and masked.mask.sum() > 1000


def test_background_is_not_seen_through_the_foreground():
    """A near square before a wall: seen from close by, wall points fall into the gaps of the magnified square."""
    height = width = 64
    K = torch.tensor([[[64.0, 0, 32], [0, 64.0, 32], [0, 0, 1]]])
    depth = torch.full((1, height, width), 3.0)
    depth[:, 26:38, 26:38] = 1.0
    image = torch.where(depth == 1, 1.0, 0.0)[:, None].repeat(1, 3, 1, 1)
    buffer = remember(image, depth, K, torch.eye(4)[None])
    w2c = torch.eye(4)[None].clone()
    w2c[:, 2, 3] = -0.5
    w2c[:, 0, 3] = 0.1
    inputs = (buffer.image, buffer.points, buffer.mask, w2c, K)
    open_, masked = (forward_warp(*inputs, m) for m in (None, [boundary_mesh(buffer.points[0], buffer.boundary[0])]))
    hidden = (open_.mask > masked.mask)[0, 0]
    assert 20 < hidden.sum() < 400
    assert (open_.depth[0][hidden] > 2).all()
    assert (masked.image[0][:, hidden] == -1).all()
    assert (masked.depth[0][hidden] == 0).all()
    assert torch.equal(masked.image[0][:, ~hidden], open_.image[0][:, ~hidden])
