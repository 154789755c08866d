"""Each form of splats: written, read back within what its row of the table says, and read by others."""

import importlib
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.files.splats.formats import (
    BY_SUFFIX,
    READ,
    TABLE,
    UPS,
    WRITTEN,
    form_of,
    table,
    to_write,
)
from lyra_pack.comfyui_lyra.files.splats.glb import NAME
from lyra_pack.comfyui_lyra.files.splats.load import load_splats, metres_of
from lyra_pack.comfyui_lyra.files.splats.ply import load_ply
from lyra_pack.comfyui_lyra.files.splats.save import Placing, save_moving, save_splats
from lyra_pack.comfyui_lyra.splats.gaussians import Gaussians, GaussianSequence
from lyra_pack.comfyui_lyra.splats.placing import rotation
from scipy.spatial.transform import Rotation

LIBRARIES = {"gaussforge": "gaussforge", "usd-core": "pxr"}


def needs(name: str) -> None:
    """Skip where the library that writes a form is not there."""
    if library := WRITTEN[name].needs:
        pytest.importorskip(LIBRARIES[library])


def random_splats(bands: int, count: int = 200, seed: int = 0) -> Gaussians:
    """Splats in the order of their x."""
    gen = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=gen).sort(0).values,
        scales=torch.rand(count, 3, generator=gen) * 0.3 + 0.01,
        quats=torch.nn.functional.normalize(torch.randn(count, 4, generator=gen), dim=1),
        opacities=torch.rand(count, generator=gen) * 0.96 + 0.02,
        colors=torch.rand(count, 3, generator=gen),
        sh_rest=(0.3 * torch.randn(count, bands, 3, generator=gen)).clamp(-0.9, 0.9) if bands else None,
    )


def in_order(splats: Gaussians) -> Gaussians:
    return splats[splats.means[:, 0].argsort(stable=True)]


def degrees(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest angle between turns of quaternions [N, 4]."""
    apart = torch.minimum((a - b).norm(dim=1), (a + b).norm(dim=1)).double().max()
    return float(torch.rad2deg(4 * torch.asin(apart / 2)))


LIMITS = {  # of a round trip: positions, ratio of sizes, degrees, opacity, colour, harmonics
    "ply": (1e-7, 1e-5, 1e-3, 1e-6, 1e-6, 1e-6),
    "spz": (1 / 4096, 0.032, 0.2, 0.002, 1 / 255, 1 / 14),
    "sog": (6e-4, 0.02, 0.72, 0.002, 1 / 255, 0.02),
}


@pytest.mark.parametrize("bands", [0, 3, 15])
@pytest.mark.parametrize("name", LIMITS)
def test_a_round_trip_loses_no_more_than_the_table_says(tmp_path, name, bands):
    needs(name)
    given = random_splats(bands)
    assert save_splats(tmp_path / f"a.{name}", given) == 200
    found = load_splats(tmp_path / f"a.{name}")
    found = in_order(found) if name == "sog" else found
    place, size, turn, opacity, color, rest = LIMITS[name]
    assert (found.means - given.means).abs().max() <= place
    assert (found.scales / given.scales).log().abs().max() <= size
    assert degrees(found.quats, given.quats) <= turn
    assert (found.opacities - given.opacities).abs().max() <= opacity
    assert (found.colors - given.colors).abs().max() <= color
    assert (found.sh_rest is None) == (bands == 0)
    if bands:
        assert found.sh_rest.shape == given.sh_rest.shape
        assert (found.sh_rest - given.sh_rest).abs().max() <= rest


@pytest.mark.parametrize("version", [2, 3, 4])
def test_every_version_of_spz_is_written_and_read(tmp_path, version):
    needs("spz")
    given = random_splats(8)
    save_splats(tmp_path / "a.spz", given, Placing(spz_version=version))
    found = load_splats(tmp_path / "a.spz")
    torch.testing.assert_close(found.means, given.means, atol=1 / 4096, rtol=0)
    assert degrees(found.quats, given.quats) < (12 if version == 2 else 0.2)
    torch.testing.assert_close(found.sh_rest, given.sh_rest, atol=1 / 14, rtol=0)
    with pytest.raises(ValueError, match="SPZ of version 5; expected one of 2, 3, 4"):
        save_splats(tmp_path / "a.spz", given, Placing(spz_version=5))


def test_what_spz_cannot_hold_is_refused(tmp_path):
    far = replace(random_splats(0), means=torch.full((200, 3), 3000.0))
    with pytest.raises(ValueError, match="a.spz: SPZ holds positions below 2048, got 3000; scale the scene down"):
        save_splats(tmp_path / "a.spz", far)


def spikes(means: np.ndarray, quats_wxyz: np.ndarray, scales: np.ndarray, up: str, signpost: Gaussians) -> None:
    """Check where another reader sees the letter and the spikes, in axes with ``up``."""
    turn = rotation(up).numpy()
    np.testing.assert_allclose(means, signpost.means.numpy() @ turn.T, atol=1e-3)
    long = np.take_along_axis(
        Rotation.from_quat(quats_wxyz[:, [1, 2, 3, 0]]).as_matrix(), scales.argmax(1)[:, None, None], 2
    )[:, :, 0]
    outward = means[-6:] / np.linalg.norm(means[-6:], axis=1, keepdims=True)
    assert (np.abs((long[-6:] * outward).sum(1)) > 0.999).all(), "a spike points along the side"


@pytest.mark.parametrize(("name", "up"), [("ply", "y_down"), ("ply", "z_up"), ("spz", "y_up"), ("sog", "y_down")])
def test_gaussforge_sees_letter_spikes_and_colours_where_they_are(tmp_path, signpost, name, up):
    gaussforge = pytest.importorskip("gaussforge")
    save_splats(tmp_path / f"a.{name}", signpost, Placing(up=up))
    found = gaussforge.GaussForge().read((tmp_path / f"a.{name}").read_bytes(), name)["data"]
    arrays = {key: np.frombuffer(found[key], "<f4") for key in ("positions", "rotations", "scales", "colors", "sh")}
    means, quats, scales, colors = (
        arrays[key].reshape(-1, size)
        for key, size in (("positions", 3), ("rotations", 4), ("scales", 3), ("colors", 3))
    )
    if name == "sog":  # which orders splats by itself
        wanted = signpost.means.numpy() @ rotation(up).numpy().T
        order = ((means[None] - wanted[:, None]) ** 2).sum(-1).argmin(1)
        means, quats, scales, colors = means[order], quats[order], scales[order], colors[order]
    spikes(means, quats, scales, up, signpost)
    np.testing.assert_allclose(colors * 0.28209479 + 0.5, signpost.colors.numpy(), atol=0.005)
    rest = arrays["sh"].reshape(len(signpost), -1, 3)[0]  # along a side of the file's axes, red to blue is ours
    seen = np.stack([rest[2] * -0.4886, rest[0] * -0.4886, rest[1] * 0.4886])  # [direction x y z, colour]
    np.testing.assert_allclose(seen.T @ rotation(up).numpy(), 0.2 * np.eye(3), atol=0.02)


@pytest.mark.parametrize("name", ["usda", "usdc"])
@pytest.mark.parametrize("up", ["y_up", "z_up"])
def test_usd_core_sees_them_where_they_are(tmp_path, signpost, name, up):
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdVol

    save_splats(tmp_path / f"a.{name}", signpost, Placing(up=up, metres=2.5))
    stage = Usd.Stage.Open(str(tmp_path / f"a.{name}"))
    assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage)) == (up[0].upper(), 2.5)
    prim = UsdVol.ParticleField3DGaussianSplat(stage.GetDefaultPrim())
    assert prim.GetPrim().GetTypeName() == "ParticleField3DGaussianSplat"
    quats = [(q.GetReal(), *q.GetImaginary()) for q in prim.GetOrientationsAttr().Get()]
    means = np.array(prim.GetPositionsAttr().Get())
    spikes(means, np.array(quats), np.array(prim.GetScalesAttr().Get()), up, signpost)
    np.testing.assert_allclose(np.array(prim.GetOpacitiesAttr().Get()), 0.8, rtol=1e-6)
    assert prim.GetRadianceSphericalHarmonicsDegreeAttr().Get() == 1
    rest = np.array(prim.GetRadianceSphericalHarmonicsCoefficientsAttr().Get()).reshape(len(signpost), 4, 3)
    np.testing.assert_allclose(rest[:, 0] * 0.28209479 + 0.5, signpost.colors.numpy(), atol=1e-5)
    seen = np.stack([rest[0, 3] * -0.4886, rest[0, 1] * -0.4886, rest[0, 2] * 0.4886])
    np.testing.assert_allclose(seen.T @ rotation(up).numpy(), 0.2 * np.eye(3), atol=1e-3)
    low, high = np.array(prim.GetExtentAttr().Get())
    assert (low <= means.min(0)).all() and (high >= means.max(0)).all()


@pytest.mark.parametrize("name", ["usda", "usdc"])
def test_moments_of_usd_stay_until_the_next(tmp_path, name):
    """Splats of neighbours have nothing to do with each other, so nothing may lie between them."""
    pytest.importorskip("pxr")
    from pxr import Usd, UsdVol

    frames = tuple(random_splats(0, 20, seed) for seed in range(3))
    save_moving(tmp_path / f"a.{name}", GaussianSequence(frames=frames, times=(0, 8, 16)), fps=12.0)
    stage = Usd.Stage.Open(str(tmp_path / f"a.{name}"))
    times = stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()
    assert times == (0, 16, 12)
    prim = UsdVol.ParticleField3DGaussianSplat(stage.GetDefaultPrim())
    for frame, moment in zip(frames, (0, 8, 16), strict=True):
        for time in (moment, moment + 3.5):
            found = np.array(prim.GetPositionsAttr().Get(time))[: len(frame)]
            np.testing.assert_allclose(found, frame.means.numpy() * [1, -1, -1], atol=1e-6)
    added = prim.GetOpacitiesAttr().Get(8)
    assert len(added) == 21 and added[20] == 0


def test_glb_holds_what_the_extension_asks_for(tmp_path, signpost):
    save_splats(tmp_path / "a.glb", signpost, Placing(metres=2.5))
    data = (tmp_path / "a.glb").read_bytes()
    mark, version, total, length, kind = struct.unpack_from("<4sIIII", data)
    assert (mark, version, total, kind) == (b"glTF", 2, len(data), 0x4E4F534A)
    document = json.loads(data[20 : 20 + length])
    binary = data[20 + length + 8 :]
    assert len(binary) == document["buffers"][0]["byteLength"]
    primitive = document["meshes"][0]["primitives"][0]
    assert document["extensionsUsed"] == [NAME] and document["nodes"][0]["scale"] == [2.5] * 3
    assert primitive["mode"] == 0
    assert primitive["extensions"][NAME]["kernel"] == "ellipse"
    assert primitive["extensions"][NAME]["colorSpace"] == "srgb_rec709_display"

    def values(name: str) -> np.ndarray:
        accessor = document["accessors"][primitive["attributes"][name]]
        view = document["bufferViews"][accessor["bufferView"]]
        size = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        dtype = {5126: "<f4", 5121: "u1"}[accessor["componentType"]]
        found = np.frombuffer(binary, dtype, accessor["count"] * size, view["byteOffset"]).reshape(-1, size)
        assert view["byteLength"] == found.nbytes and view["byteOffset"] % 4 == 0
        if name == "POSITION":
            assert (found.min(0) == accessor["min"]).all() and (found.max(0) == accessor["max"]).all()
        return found

    quats = values(f"{NAME}:ROTATION")[:, [3, 0, 1, 2]]
    spikes(values("POSITION"), quats, values(f"{NAME}:SCALE"), "y_up", signpost)
    np.testing.assert_allclose(np.linalg.norm(quats, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(values(f"{NAME}:OPACITY"), 0.8, rtol=1e-6)
    band0 = values(f"{NAME}:SH_DEGREE_0_COEF_0")
    np.testing.assert_allclose(band0 * 0.2820947917738781 + 0.5, signpost.colors.numpy(), atol=1e-6)
    rest = [values(f"{NAME}:SH_DEGREE_1_COEF_{i}")[0] for i in range(3)]
    seen = np.stack([rest[2] * -0.4886, rest[0] * -0.4886, rest[1] * 0.4886])
    np.testing.assert_allclose(seen.T @ rotation("y_up").numpy(), 0.2 * np.eye(3), atol=1e-3)
    red, alpha = values("COLOR_0")[-6, [0, 3]]
    assert (int(red), int(alpha)) == (round(255 * ((0.9 + 0.055) / 1.055) ** 2.4), 204)
    with pytest.raises(ValueError, match="glTF with KHR_gaussian_splatting is y_up, not z_up; ply, usda, usdc can be"):
        save_splats(tmp_path / "a.glb", signpost, Placing(up="z_up"))


@pytest.mark.parametrize("up", UPS)
def test_ply_says_its_axes_and_unit_and_comes_back(tmp_path, signpost, up):
    save_splats(tmp_path / "a.ply", signpost, Placing(up=up, metres=2.5))
    assert f"comment lyra: up={up} metres_per_unit=2.5\n".encode() in (tmp_path / "a.ply").read_bytes()[:200]
    found = load_splats(tmp_path / "a.ply")
    torch.testing.assert_close(found.means, signpost.means)
    torch.testing.assert_close(found.sh_rest, signpost.sh_rest, atol=1e-5, rtol=0)
    assert degrees(found.quats, signpost.quats) < 0.1
    assert metres_of(tmp_path / "a.ply") == 2.5
    save_splats(tmp_path / "plain.ply", signpost)
    assert b"comment" not in (tmp_path / "plain.ply").read_bytes()[:200] and metres_of(tmp_path / "plain.ply") is None


def test_antimatter_s_splats_are_read(tmp_path, signpost):
    record = np.zeros(len(signpost), [("m", "<f4", 3), ("s", "<f4", 3), ("c", "u1", 4), ("q", "u1", 4)])
    record["m"], record["s"] = signpost.means, signpost.scales
    record["c"] = (torch.cat((signpost.colors, signpost.opacities[:, None]), 1) * 255).round()
    record["q"] = (signpost.quats * 127 + 128).round()
    (tmp_path / "a.splat").write_bytes(record.tobytes())
    found = load_splats(tmp_path / "a.splat")
    torch.testing.assert_close(found.means, signpost.means)
    torch.testing.assert_close(found.colors, signpost.colors, atol=0.003, rtol=0)
    spikes(found.means.numpy(), found.quats.numpy(), found.scales.numpy(), "y_down", signpost)
    record["q"][0], record["s"][1, 0] = 128, -1
    (tmp_path / "a.splat").write_bytes(record.tobytes())
    assert len(load_splats(tmp_path / "a.splat")) == len(signpost) - 2
    (tmp_path / "a.splat").write_bytes(record.tobytes()[:-1])
    with pytest.raises(ValueError, match="a.splat: no .splat: .* bytes are not a number of splats of 32 bytes"):
        load_splats(tmp_path / "a.splat")


def test_a_file_is_what_it_holds_and_not_what_it_is_called(tmp_path, signpost):
    needs("spz")
    for name in ("ply", "spz", "sog"):
        save_splats(tmp_path / "a.bin", signpost, kind=name)
        assert len(load_splats(tmp_path / "a.bin")) == len(signpost)
        assert len(load_splats((tmp_path / "a.bin").read_bytes(), ".bin")) == len(signpost)
    with pytest.raises(ValueError, match="a.bin: splats as PlayCanvas|a.bin: not a PLY|no PLY"):
        load_ply(tmp_path / "a.bin")
    (tmp_path / "a.ksplat").write_bytes(b"\0\1" * 4000)
    with pytest.raises(ValueError, match="a.ksplat: splats as mkkellogg's .ksplat; .ply, .spz, .* are read"):
        load_splats(tmp_path / "a.ksplat")


@pytest.mark.parametrize(("name", "module"), [("spz", "gaussforge"), ("sog", "gaussforge"), ("usdc", "pxr.Sdf")])
def test_a_missing_library_is_named_with_the_command(tmp_path, signpost, name, module, monkeypatch):
    real = importlib.import_module

    def gone(wanted: str, *rest):
        if wanted == module:
            raise ImportError(wanted)
        return real(wanted, *rest)

    monkeypatch.setattr("lyra_pack.comfyui_lyra.files.splats.forge.import_module", gone)
    with pytest.raises(ValueError, match=f"writing .{name} needs .* run: pip install {WRITTEN[name].needs}"):
        save_splats(tmp_path / f"a.{name}", signpost)
    assert not list(tmp_path.iterdir())


def test_the_table_is_whole():
    assert len(BY_SUFFIX) == len(TABLE) and set(READ) == {".ply", ".spz", ".sog", ".splat", ".sogs"}
    assert list(WRITTEN) == ["ply", "spz", "sog", "glb", "usda", "usdc", "html"]
    for form in WRITTEN.values():
        assert form.ups and form.lost and to_write(f"a{form.suffix}") == form
    assert len(table()) == 2 + sum(form.reads or form.writes for form in TABLE)
    with pytest.raises(ValueError, match="a.splat: splats are written as .ply, .spz, .sog, .glb, .usda, .usdc"):
        to_write("a.splat")
    assert form_of("a.txt", b"words") is None
