import pytest
import torch
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians, concatenate, turned
from lyra_pack.comfyui_lyra.splats.pruning import most_opaque


def random_gaussians(n: int, seed: int = 0, bands: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    quats = torch.randn(n, 4, generator=g)
    return Gaussians(
        means=torch.randn(n, 3, generator=g),
        scales=torch.rand(n, 3, generator=g) + 0.1,
        quats=quats / quats.norm(dim=-1, keepdim=True),
        opacities=torch.rand(n, generator=g),
        colors=torch.rand(n, 3, generator=g),
        sh_rest=torch.randn(n, bands, 3, generator=g) if bands else None,
    )


def rotation(w: float, x: float, y: float, z: float) -> torch.Tensor:
    """Textbook rotation matrix of a quaternion."""
    w, x, y, z = (torch.tensor([w, x, y, z]) / (w * w + x * x + y * y + z * z) ** 0.5).tolist()
    return torch.tensor([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


@pytest.mark.parametrize("quat", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0.3, -0.5, 0.7, 0.1)])
def test_a_quaternion_survives_its_matrix(quat):
    unit = torch.tensor(quat, dtype=torch.float32) / torch.tensor(quat, dtype=torch.float32).norm()
    (found,) = turned(torch.tensor([[1.0, 0, 0, 0]]), rotation(*quat))
    assert torch.allclose(found, unit, atol=1e-6) or torch.allclose(found, -unit, atol=1e-6)


def test_turning_quaternions_multiplies_their_rotations():
    first, then = torch.tensor([[-0.2, 0.4, 0.1, 0.9], [1.0, 0.2, 0.0, -0.5]]), rotation(0.3, -0.5, 0.7, 0.1)
    for given, found in zip(first, turned(first, then), strict=True):
        assert found.norm() == pytest.approx(1)
        assert torch.allclose(rotation(*found.tolist()), then @ rotation(*given.tolist()), atol=1e-6)
    assert turned(first[:0], then).shape == (0, 4)


def test_transforming_moves_each_covariance():
    splats = random_gaussians(20)
    matrix = torch.eye(4)
    matrix[:3, :3] = 2.5 * rotation(0.3, -0.5, 0.7, 0.1)
    matrix[:3, 3] = torch.tensor([1.0, -2.0, 3.0])
    moved = splats.transformed(matrix)
    for i in range(20):
        frame, after = rotation(*splats.quats[i].tolist()), rotation(*moved.quats[i].tolist())
        before = matrix[:3, :3] @ frame @ splats.scales[i].square().diag() @ frame.T @ matrix[:3, :3].T
        assert torch.allclose(after @ moved.scales[i].square().diag() @ after.T, before, atol=1e-4)
    assert torch.allclose(moved.means, splats.means @ matrix[:3, :3].T + matrix[:3, 3])


def test_mirrors_are_refused_and_harmonics_turn_along():
    with pytest.raises(ValueError, match="mirrors or shears"):
        random_gaussians(3).transformed(torch.diag(torch.tensor([-1.0, 1, 1, 1])))
    turn = torch.eye(4)
    turn[:3, :3] = rotation(0.3, -0.5, 0.7, 0.1)
    with pytest.raises(ValueError, match=r"expected \[4 4\], got \(3, 3\)"):
        random_gaussians(3).transformed(turn[:3, :3])
    splats = random_gaussians(3, bands=3)
    assert (splats.transformed(turn).sh_rest - splats.sh_rest).abs().max() > 0.1
    assert random_gaussians(3, bands=3).transformed(torch.diag(torch.tensor([2.0, 2, 2, 1]))).sh_rest is not None


@pytest.mark.golden("decoder/pruning")
def test_pruning_keeps_the_reference_rows(golden):
    for key in golden:
        if not key.startswith("pruned_"):
            continue
        keep = 1 - float(key.removeprefix("pruned_"))
        for batch, expected in zip(golden["gaussians"], golden[key], strict=True):
            assert torch.equal(batch[most_opaque(batch[:, 3], keep)], expected)
    for case, kept in golden.meta["kept_counts"].items():
        count, ratio = case.split("@")
        assert len(most_opaque(torch.zeros(()).expand(int(count)), 1 - float(ratio))) == kept


def test_concatenating_pads_harmonics_with_zeros():
    joined = concatenate([random_gaussians(2, bands=3), random_gaussians(3), random_gaussians(1, bands=8)])
    assert joined.sh_rest.shape == (6, 8, 3)
    assert joined.sh_rest[:2, 3:].abs().sum() == 0
    assert joined.sh_rest[2:5].abs().sum() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.zeros(3, 2)}, r"Gaussians.means: expected \[N 3\], got \(3, 2\)"),
        ({"opacities": torch.zeros(4)}, r"Gaussians.opacities: expected \[N\], got \(4,\) \(so far \{'N': 3\}\)"),
        ({"sh_rest": torch.zeros(3, 5, 3)}, "bands 1..3 have 3, 8 or 15"),
    ],
)
def test_wrong_shapes_name_the_field(change, message):
    whole = {n: getattr(random_gaussians(3), n) for n in ("means", "scales", "quats", "opacities", "colors")}
    with pytest.raises(ValueError, match=message):
        Gaussians(**whole | change)


def test_nan_and_zero_quaternions_and_negative_scales_are_named():
    splats = random_gaussians(3)
    splats.quats[1] = float("nan")
    with pytest.raises(ValueError, match="quats: 1 of 3 splats hold NaN"):
        splats.check_finite()
    splats.quats[1] = 0
    with pytest.raises(ValueError, match="length zero"):
        splats.check_finite()
    splats = random_gaussians(3)
    splats.scales[2, 1] = -0.1
    with pytest.raises(ValueError, match="scales: a negative standard deviation"):
        splats.check_finite()
