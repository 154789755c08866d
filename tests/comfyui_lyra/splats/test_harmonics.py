import pytest
import torch
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians
from lyra_pack.comfyui_lyra.splats.harmonics import harmonics, turned_rest
from lyra_pack.comfyui_lyra.splats.placing import prepared, rotation, turned
from lyra_pack.comfyui_lyra.splats.render import sh_colors
from scipy.spatial.transform import Rotation


@pytest.mark.parametrize("count", [3, 8, 15])
def test_the_functions_are_orthonormal(count):
    z = torch.linspace(-1, 1, 801, dtype=torch.float64)[:, None]
    angle = torch.arange(16, dtype=torch.float64) * torch.pi / 8
    flat = (1 - z * z).sqrt()
    directions = torch.stack((flat * angle.cos(), flat * angle.sin(), z.expand(-1, 16)), -1)
    basis = harmonics(directions.reshape(-1, 3), count)
    weight = torch.ones(801, dtype=torch.float64)
    weight[0] = weight[-1] = 0.5
    weight = (weight / 800 / 16)[:, None].expand(-1, 16).reshape(-1)
    gram = 4 * torch.pi * torch.einsum("in,jn,n->ij", basis, basis, weight)
    torch.testing.assert_close(gram, torch.eye(count, dtype=torch.float64), atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [3, 8, 15])
def test_what_was_seen_along_d_is_seen_along_r_d(count):
    matrix = torch.from_numpy(Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()).float()
    gen = torch.Generator().manual_seed(0)
    rest = torch.randn(5, count, 3, generator=gen)
    directions = torch.nn.functional.normalize(torch.randn(20, 3, generator=gen), dim=1)
    before = torch.einsum("kd,nkc->ndc", harmonics(directions, count), rest)
    after = torch.einsum("kd,nkc->ndc", harmonics(directions @ matrix.T, count), turned_rest(rest, matrix))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_turned_splats_look_the_same_from_where_the_eye_has_turned_to():
    gen = torch.Generator().manual_seed(1)
    splats = Gaussians(
        means=torch.randn(6, 3, generator=gen), scales=torch.ones(6, 3), quats=torch.tensor([[1.0, 0, 0, 0]] * 6),
        opacities=torch.ones(6), colors=torch.rand(6, 3, generator=gen), sh_rest=torch.randn(6, 15, 3, generator=gen),
    )  # fmt: skip
    eye = torch.tensor([0.5, -2.0, 1.0])
    for up in ("y_up", "z_up"):
        found = sh_colors(turned(splats, up), rotation(up) @ eye)
        torch.testing.assert_close(found, sh_colors(splats, eye), atol=1e-5, rtol=0)
        back = turned(turned(splats, up), up, back=True)
        torch.testing.assert_close(back.sh_rest, splats.sh_rest, atol=1e-5, rtol=0)


def test_up_is_where_it_is_said_to_be():
    above, ahead = torch.tensor([0.0, -1, 0]), torch.tensor([0.0, 0, 1])  # ours: y down, z ahead
    assert (rotation("y_up") @ above).tolist() == [0, 1, 0] and (rotation("y_up") @ ahead).tolist() == [0, 0, -1]
    assert (rotation("z_up") @ above).tolist() == [0, 0, 1] and (rotation("z_up") @ ahead).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="up 'x_up' is none of y_down, y_up, z_up"):
        rotation("x_up")


def test_splats_are_chosen_and_scaled_before_they_are_written():
    splats = Gaussians(
        means=torch.ones(2, 3), scales=torch.ones(2, 3), quats=torch.tensor([[1.0, 0, 0, 0]] * 2),
        opacities=torch.tensor([0.1, 0.9]), colors=torch.ones(2, 3),
    )  # fmt: skip
    (mean,) = prepared(splats, scale=2, min_opacity=0.5, up="y_up").means
    assert mean.tolist() == [2, -2, -2]
    with pytest.raises(ValueError, match="no splats to save: of 2, none has an opacity of 0.95 or more"):
        prepared(splats, min_opacity=0.95)
