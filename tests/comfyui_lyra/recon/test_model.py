import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory
from lyra_pack.comfyui_lyra.configs import COMPRESSION, PATCH, RECON_PRESETS, ReconConfig
from lyra_pack.comfyui_lyra.recon.inputs import ReconInputs, splat_rays
from lyra_pack.comfyui_lyra.recon.keys import RULES
from lyra_pack.comfyui_lyra.recon.model import Recon
from lyra_pack.comfyui_lyra.recon.schedule import Schedule
from lyra_pack.comfyui_lyra.weights.load import rename

MANIFESTS = Path(__file__).parents[2] / "data" / "manifests"


@pytest.mark.parametrize("preset", [path.stem for path in sorted(MANIFESTS.glob("lyra_*.json"))])
def test_released_keys_and_shapes_are_the_models(preset):
    manifest = json.loads((MANIFESTS / f"{preset}.json").read_text())
    with torch.device("meta"):
        state = Recon(RECON_PRESETS[preset]).state_dict()
    released = rename({name: tuple(shape) for name, (shape, _) in manifest.items()}, RULES)
    assert released == {name: tuple(tensor.shape) for name, tensor in state.items()}


def golden_config(golden) -> ReconConfig:
    """The configuration a golden was made with; what its JSON leaves out is read off its weights."""
    meta, weights = golden.meta["config"], {key for key in golden if key.startswith("w.enc_blocks.")}
    assert meta["patch_size"] == PATCH and meta["latent_time_compression"] == COMPRESSION
    assert meta["patch_size_out_factor"][0] == 1 and meta["output_dims"] == 12
    sizes = {}
    if scan := sorted(key.removesuffix("D") for key in weights if key.endswith("mamba_scans.0.D")):
        inner, heads = len(golden[scan[0] + "norm.weight"]), len(golden[scan[0] + "D"])
        state = (len(golden[scan[0] + "conv1d.bias"]) - inner) // 2
        sizes = {"expand": inner // meta["enc_embed_dim"], "head_size": inner // heads, "state": state}
    return ReconConfig(
        dynamic=meta["use_time_embedding"], trained_size=tuple(meta["img_size"]),
        trained_frames=meta["num_input_views"], width=meta["enc_embed_dim"], blocks=meta["enc_depth"],
        attention_every=meta["llrm_7m1t_index"], heads=meta["enc_num_heads"], mlp_ratio=meta["mlp_ratio"],
        qk_norm=meta["use_qk_norm"], latent_channels=meta["num_latent_c"],
        pixels_per_splat=meta["patch_size_out_factor"][1], near=meta["dnear"], far=meta["dfar"],
        distance_shift=meta["pre_sigmoid_distance_shift"], scale_cap=meta["gaussian_scale_cap"],
        keep=1 - golden.meta["prune_ratio_of_gaussians_pruned"], **sizes,
    )  # fmt: skip


def golden_inputs(golden) -> dict[str, ReconInputs]:
    """Inputs by the suffix of their outputs: one run, or one a target time ('.t0')."""
    views, frames = golden.meta["num_views"], golden.meta["config"]["num_input_views"]

    def of_views(tensor, count):
        return tensor.unflatten(1, (views, count))

    steps = (frames - 1) // COMPRESSION + 1
    origins = of_views(golden["rays_os"], frames)
    assert torch.equal(origins, origins[..., :1, :1].expand_as(origins))  # one origin a camera
    inputs = ReconInputs(
        latents=of_views(golden["latents"], steps).transpose(2, 3),
        plucker=of_views(golden["plucker_latents"], steps).transpose(2, 3),
        origins=origins[..., 0, 0],
        directions=of_views(golden["rays_ds"], frames),
    )
    times = {key.removeprefix("time_latents"): golden[key] for key in golden if key.startswith("time_latents")}
    if not golden.meta["config"]["use_time_embedding"]:
        (unused,) = times.values()  # must have no influence: the static model is given it all the same
        times = {"": unused}
    return {
        run: replace(inputs, time_source=time[:, :-1].transpose(1, 2), time_target=time[:, -1:].transpose(1, 2))
        for run, time in times.items()
    }


@pytest.mark.golden("decoder/forward_*")
def test_golden_rays(golden):
    """Cameras of the golden to its rays, in float32."""
    meta, (height, width) = golden.meta["config"], golden.meta["config"]["img_size"]
    fx, fy, cx, cy = golden["intrinsics"][0].unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    K = torch.stack((fx, zero, cx, zero, fy, cy, zero, zero, one), -1).unflatten(-1, (3, 3))
    cameras = CameraTrajectory(c2w=golden["c2w"][0], K=K, height=height, width=width)
    origins, directions = splat_rays(cameras, meta["patch_size_out_factor"][1], bf16=False)
    torch.testing.assert_close(origins, golden["rays_os"][0, ..., 0, 0], rtol=0, atol=1e-6)
    torch.testing.assert_close(directions, golden["rays_ds"][0], rtol=0, atol=1e-6)


@pytest.mark.golden("decoder/forward_*")
@pytest.mark.parametrize("segment", [17, 2**15])
def test_golden_forward(golden, segment, load, columns):
    model, schedule = load(lambda: Recon(golden_config(golden)), golden), Schedule(segment=segment)
    near = dict(rtol=0, atol=1e-4)
    for i, (run, inputs) in enumerate(golden_inputs(golden).items()):
        if i == 0:  # the intermediate values are those of the first run
            x = model.embed(inputs)
            torch.testing.assert_close(x, golden["mid.trunk_in"], **near)
            for n, block in enumerate(model.enc_blocks):
                x = block(x, schedule)
                torch.testing.assert_close(x, golden[f"mid.block{n}"], **near)
            torch.testing.assert_close(model.enc_norm(x), golden["mid.enc_norm"], **near)
            _, views, _, steps, height, width = inputs.latents.shape
            raw = model.raw(x[0].unflatten(0, (views, steps, height // PATCH, width // PATCH)), slice(None))
            torch.testing.assert_close(raw.movedim(-1, 1), golden["mid.deconv"], **near)
        assert golden.meta["num_gaussians"] == golden["gaussians" + run].shape[1]
        (found,) = model(inputs, keep=1, schedule=schedule)
        compare(columns(found), golden["gaussians" + run][0])
        (found,) = model(inputs, schedule=schedule)
        found, truth = columns(found), golden["gaussians_pruned" + run][0]
        assert found.shape == truth.shape
        assert bool((found[:-1, 3] >= found[1:, 3]).all())  # most opaque first
        # equal opacities to within rounding may change places, and those at the cut come or go
        nearest = torch.cdist(truth.double(), found.double()).argmin(1)
        inside = truth[:, 3] > truth[-1, 3] + 1e-6
        assert len(nearest[inside].unique()) == int(inside.sum()) >= len(truth) - 3
        compare(found[nearest[inside]], truth[inside])


def compare(found: torch.Tensor, truth: torch.Tensor):
    torch.testing.assert_close(found[:, :3], truth[:, :3], rtol=0, atol=1e-3)
    torch.testing.assert_close(found[:, 3:], truth[:, 3:], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("views", "segment"), [(1, 1), (2, 13), (3, 12)])
def test_any_segment_size_gives_the_same_splats(views, segment, tiny, tiny_model, random_inputs, columns):
    inputs = random_inputs(tiny, views)
    with torch.no_grad():
        (whole,), (parts,) = (
            tiny_model(inputs, keep=1, schedule=schedule) for schedule in (Schedule(), Schedule(segment=segment))
        )
        (few,) = tiny_model(inputs, schedule=Schedule(segment=segment))
    torch.testing.assert_close(columns(parts), columns(whole), rtol=1e-5, atol=1e-5)
    # opacity decided first, the rest for the kept only: the same as pruning the whole
    assert len(few) == int(len(whole) * tiny.keep)
    torch.testing.assert_close(columns(few), columns(parts.most_opaque(tiny.keep)), rtol=1e-5, atol=1e-5)


def test_scenes_of_a_batch_do_not_meet(tiny, tiny_model, random_inputs, columns):
    both = random_inputs(tiny, views=2, batch=2)
    with torch.no_grad():
        together = tiny_model(both, keep=1)
        for i, scene in enumerate(together):
            alone = replace(
                both, **{f: getattr(both, f)[i : i + 1] for f in ("latents", "plucker", "origins", "directions")},
                time_target=both.time_target[i : i + 1],
            )  # fmt: skip
            torch.testing.assert_close(columns(*tiny_model(alone, keep=1)), columns(scene), rtol=1e-5, atol=1e-5)


def test_views_meet_and_their_order_matters(tiny, tiny_model, random_inputs, columns):
    inputs = random_inputs(tiny, views=2)
    changed = replace(inputs, latents=inputs.latents.clone())
    changed.latents[:, 1] += 1
    with torch.no_grad():
        (before,), (after,) = tiny_model(inputs, keep=1), tiny_model(changed, keep=1)
    half = len(before) // 2
    assert (columns(before) - columns(after))[:half, 3:].abs().max() > 1e-3


def test_only_a_dynamic_decoder_looks_at_times(tiny, tiny_model, random_inputs, random_model, columns):
    inputs = random_inputs(tiny, views=1)
    later = replace(inputs, time_target=inputs.time_target + 1)
    with torch.no_grad():
        assert not torch.equal(columns(*tiny_model(inputs, keep=1)), columns(*tiny_model(later, keep=1)))
        static = random_model(replace(tiny, dynamic=False))
        assert torch.equal(columns(*static(inputs, keep=1)), columns(*static(later, keep=1)))
        none = replace(inputs, time_source=None, time_target=None)
        assert torch.equal(columns(*static(inputs, keep=1)), columns(*static(none, keep=1)))
    with pytest.raises(ValueError, match="dynamic splat decoder needs time_source and time_target"):
        tiny_model(none)


def test_checkpointed_gradients_are_the_same(tiny, tiny_model, random_inputs, columns):
    inputs, found = random_inputs(tiny, views=1), []
    for schedule in (Schedule(), Schedule(checkpoint=True, segment=8)):
        tiny_model.zero_grad()
        (kept,) = tiny_model(inputs, schedule=schedule)
        columns(kept)[:, 3:].square().sum().backward()
        found.append({name: p.grad.clone() for name, p in tiny_model.named_parameters()})
    assert all(grad.abs().max() > 0 for grad in found[0].values())
    for name, grad in found[0].items():
        scale = grad.abs().max().item()
        torch.testing.assert_close(
            found[1][name], grad, rtol=1e-3, atol=1e-4 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_bfloat16_weights_run_and_agree_roughly(tiny, tiny_model, random_inputs, columns):
    """Eight bits a step through three blocks: opacity within a few per cent, sizes and colours alike."""
    inputs = random_inputs(tiny, views=1)
    half = {f: getattr(inputs, f).to(torch.bfloat16) for f in vars(inputs)}
    with torch.no_grad():
        (exact,) = tiny_model(inputs, keep=1)
        (rough,) = tiny_model.to(torch.bfloat16)(ReconInputs(**half), keep=1)
    assert rough.means.dtype == torch.bfloat16
    assert (columns(rough).float() - columns(exact))[:, 3:].abs().mean() < 0.02


def test_float32_rays_keep_positions_out_of_bfloat16(tiny, random_model, random_inputs):
    inputs = random_inputs(tiny, views=1)
    half = {f: getattr(inputs, f) for f in vars(inputs)}
    half |= {f: half[f].to(torch.bfloat16) for f in ("latents", "plucker", "time_source", "time_target")}
    model = random_model(replace(tiny, bf16_rays=False)).to(torch.bfloat16)
    with torch.no_grad():
        (found,) = model(ReconInputs(**half), keep=1)
    assert found.means.dtype == torch.float32
    on_ray = (found.means - inputs.origins[0, 0, 0])[:24] / inputs.directions[0, 0, 0].flatten(1).T
    torch.testing.assert_close(on_ray[:, :2], on_ray[:, 1:], rtol=1e-3, atol=1e-3)  # no grid of 8 bits


def test_progress_counts_blocks(tiny, tiny_model, random_inputs):
    seen = []
    with torch.no_grad():
        tiny_model(random_inputs(tiny, views=1), on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, tiny.blocks) for i in range(tiny.blocks)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "width 512 must be divisible by heads 3"),
        ({"head_size": 48}, "by head_size 48"),
        ({"pixels_per_splat": 5}, "pixels_per_splat 5 does not divide a 16 pixel token"),
        ({"near": 5, "far": 2}, "near 5 and far 2"),
    ],
)
def test_impossible_configurations_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        ReconConfig(**change)
