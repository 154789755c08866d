from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths
from lyra_pack.comfyui_lyra.configs import TeacherConfig
from lyra_pack.comfyui_lyra.files.scenes.sdg import load_sdg
from lyra_pack.comfyui_lyra.files.scenes.sdg_writer import PathStore
from lyra_pack.comfyui_lyra.gen3c.eight_bit import to_eight_bits
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings, generate
from lyra_pack.comfyui_lyra.gen3c.requirements import warn_of_other_starts
from lyra_pack.comfyui_lyra.gen3c.sampler import initial_noise
from lyra_pack.comfyui_lyra.gen3c.text import TextEmbeddings, zero_text
from lyra_pack.comfyui_lyra.geometry.fit import condition_frame, fit
from lyra_pack.comfyui_lyra.latents import MultiViewLatents
from lyra_pack.comfyui_lyra.tokenizer.clips import decode, encode_clip

QUICK = GenerateSettings(steps=3)
NO_TEXT = torch.zeros(1, 5, 12)


class Stop(Exception):
    """What a host raises from a callback."""


@pytest.fixture
def make(small_teacher, small_tokenizer):
    """``generate`` with the small family, in 3 steps."""

    def call(geometry, cameras, **options) -> MultiViewLatents:
        return generate(small_teacher, small_tokenizer, geometry, cameras, **{"settings": QUICK} | options)

    return call


def same(a: MultiViewLatents, b: MultiViewLatents) -> bool:
    return torch.equal(a.latents.values, b.latents.values)


def stopping_at(step: int):
    """An on_step that raises once a step is done."""

    def on_step(done: int, _: int) -> None:
        if done == step:
            raise Stop

    return on_step


@pytest.mark.parametrize("cached", [0.0, 0.3])
def test_weights_that_stream_make_the_same(make, small_teacher, small_tokenizer, picture, two_moves, cached):
    settings = GenerateSettings(steps=4, step_cache=cached)
    streaming = replace(small_teacher, network=deepcopy(small_teacher.network)).streamed(torch.device("cpu"))
    found = generate(streaming, small_tokenizer, picture, two_moves, settings=settings)
    assert same(found, make(picture, two_moves, settings=settings))


def test_a_teacher_whose_weights_are_gone_says_so_before_anything_is_made(
    small_teacher, small_tokenizer, picture, two_moves, tmp_path
):
    coarse = replace(small_teacher, network=deepcopy(small_teacher.network))
    to_eight_bits(coarse.network.transformer_blocks, "int8")
    with pytest.raises(ValueError, match="linears exact: this teacher's weights have been made int8; load it again"):
        generate(coarse, small_tokenizer, picture, two_moves, store=PathStore(tmp_path / "out", "clip"))
    assert not list(tmp_path.iterdir())


def test_a_picture_becomes_latents_of_each_path(make, picture, two_moves, small_tokenizer):
    found = make(picture, two_moves)
    assert (found.latents.values.shape, found.latents.space) == ((2, 16, 2, 4, 6), "diffusion")
    assert (found.family, found.dynamic, found.cameras) == ("small", False, two_moves)
    assert (found.provenance["scale"], found.provenance["seed"]) == ("2.5", "1")
    first = encode_clip(small_tokenizer, condition_frame(picture))
    left, right = found.latents.values
    assert not torch.allclose(left[:, 1:], right[:, 1:], atol=1e-3)
    for view in (left, right):  # latent 0 is the picture's own
        torch.testing.assert_close(view[:, :1], first[0], rtol=0, atol=2e-3)


def test_paths_share_their_noise_and_do_not_touch_each_other(make, picture, two_moves):
    together = make(picture, two_moves).latents.values
    alone = torch.cat([make(picture, (path,)).latents.values for path in two_moves])
    assert torch.equal(together, alone)


def test_a_still_clip_is_a_picture_and_a_moving_one_is_not(make, picture, clip, two_moves):
    still = picture[torch.zeros(9, dtype=torch.long)]
    found = make(still, two_moves)
    assert found.dynamic and same(found, make(picture, two_moves))
    assert not same(found, make(clip, two_moves))


def test_everything_that_is_given_counts(make, picture, two_moves, small_teacher):
    base, path = make(picture, two_moves[:1]), two_moves[:1]
    text = zero_text(small_teacher.config)
    noise = initial_noise((1, 16, 2, 4, 6), 1)
    assert same(base, make(picture, path, text=text, noise=noise))
    changed = {
        "noise": {"noise": noise.flip(1)},
        "prompt": {"text": replace(text, prompt=text.prompt + 1)},
        "negative prompt": {"text": replace(text, negative=text.negative + 1)},
        **{
            name: {"settings": replace(QUICK, **{name: value})}
            for name, value in {
                "steps": 4, "guidance": 0.0, "solver": "dpmpp_2m", "seed": 2, "foreground_masking": False,
                "step_cache": 10.0,
            }.items()
        },
    }  # fmt: skip
    for name, options in changed.items():
        assert not same(base, make(picture, path, **options)), name
    nearer = replace(picture, depth=torch.where(picture.depth == 2, 1.7, picture.depth))
    assert not same(base, make(nearer, path))


def test_a_recipe_says_what_older_ones_said_so_that_their_keys_hold(make, picture, two_moves):
    recipe = make(picture, two_moves[:1]).provenance
    assert recipe["reliable"] == "None" and recipe["cache_noise"] == "0.0"


def test_no_guidance_takes_half_of_the_passes_and_a_step_cache_fewer_blocks(make, picture, two_moves):
    def blocks(**settings) -> int:
        seen = []
        make(
            picture, two_moves[:1], settings=replace(QUICK, **settings), on_block=lambda done, total: seen.append(done)
        )
        return len(seen)

    assert blocks() == 3 * 2 * 2 and blocks(guidance=0.0) == 3 * 2


def test_progress_counts_steps_over_all_paths_and_shows_each_clip(make, picture, two_moves):
    steps, previews = [], []
    make(
        picture, two_moves,
        on_step=lambda *step: steps.append(step), on_preview=lambda path, x0: previews.append((path, tuple(x0.shape))),
    )  # fmt: skip
    assert steps == [(i + 1, 6) for i in range(6)]
    assert previews == [(path, (16, 2, 4, 6)) for path in (0, 0, 0, 1, 1, 1)]


def test_a_run_stops_within_one_block(make, picture, two_moves):
    seen = []

    def on_block(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 5:
            raise Stop

    with pytest.raises(Stop):
        make(picture, two_moves, on_block=on_block, settings=replace(QUICK, step_cache=1e-9))
    assert len(seen) == 5
    assert len(make(picture, two_moves).cameras) == 2  # and leaves the network as it was


@pytest.mark.parametrize("flow", ["picture", "clip"])
def test_a_resumed_run_equals_an_uninterrupted_one(make, request, flow, two_moves, tmp_path):
    geometry = request.getfixturevalue(flow)
    whole = make(geometry, two_moves, store=PathStore(tmp_path / "whole", "scene"))
    with pytest.raises(Stop):
        make(geometry, two_moves, store=PathStore(tmp_path / "twice", "scene"), on_step=stopping_at(5))
    with pytest.raises(ValueError, match="1 of the 2 paths of 'scene' are finished; generate it once more"):
        load_sdg(tmp_path / "twice")
    steps = []
    resumed = make(
        geometry, two_moves, store=PathStore(tmp_path / "twice", "scene"), on_step=lambda *step: steps.append(step)
    )
    assert steps == [(3, 6), (4, 6), (5, 6), (6, 6)]  # path 0 was there
    assert same(resumed, whole)
    assert resumed.provenance == whole.provenance
    folders = [
        {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (tmp_path / "whole", tmp_path / "twice")
    ]
    assert len(folders[0]) == 2 * 4 and folders[0].keys() == folders[1].keys()
    assert all(folders[0][name] == folders[1][name] for name in folders[0] if name.endswith(".mp4"))
    stored = load_sdg(tmp_path / "twice")
    assert same(stored, whole)
    for name in ("family", "dynamic", "provenance"):
        assert getattr(stored, name) == getattr(whole, name)
    for path, expected in zip(stored.cameras, two_moves, strict=True):
        assert torch.equal(path.c2w, expected.c2w) and torch.equal(path.K, expected.K)
        assert (path.name, path.fps, path.height, path.width) == (expected.name, expected.fps, 32, 48)


def test_a_finished_run_needs_no_teacher(make, picture, two_moves, tmp_path):
    store = PathStore(tmp_path / "out", "scene", rgb=False)
    first, blocks = make(picture, two_moves, store=store), []
    again = make(picture, two_moves, store=store, on_block=lambda *block: blocks.append(block))
    assert same(first, again) and not blocks


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda g, c: (g, c, {"settings": replace(QUICK, steps=4, solver="dpmpp_2m")}), "solver and steps"),
        (lambda g, c: (g, c, {"settings": replace(QUICK, seed=2)}), "noise and seed"),
        (lambda g, c: (replace(g, frames=g.frames * 0.5), c, {}), "geometry"),
        (lambda g, c: (g, c, {"text": TextEmbeddings(prompt=torch.ones(1, 5, 12), negative=NO_TEXT)}), "text"),
        (lambda g, c: (g, c[::-1], {}), "camera paths"),
        (lambda g, c: (g, (c[0], replace(c[1], K=c[0].K * c[0].K.new_tensor([[1.1], [1], [1]]))), {}), "camera paths"),
    ],
)  # fmt: skip
def test_a_folder_made_from_something_else_is_refused(make, picture, two_moves, tmp_path, change, named):
    make(picture, two_moves, store=PathStore(tmp_path / "out", "scene", rgb=False))
    geometry, cameras, options = change(picture, two_moves)
    with pytest.raises(ValueError, match=f"made with other {named}; choose another name .such as 'scene_2'."):
        make(geometry, cameras, store=PathStore(tmp_path / "out", "scene", rgb=False), **options)
    make(geometry, cameras, store=PathStore(tmp_path / "out", "scene_2", rgb=False), **options)


def test_a_weight_or_precision_makes_another_folder(make, picture, two_moves, tmp_path, small_teacher, small_tokenizer):
    make(picture, two_moves, store=PathStore(tmp_path / "out", "scene", rgb=False))
    for teacher in (replace(small_teacher, fingerprint="other"), replace(small_teacher, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="made with other teacher;"):
            generate(
                teacher, small_tokenizer, picture, two_moves, settings=QUICK, store=PathStore(tmp_path / "out", "scene")
            )


def test_frames_pass_the_check_before_they_are_stored(make, picture, two_moves, tmp_path):
    seen = []

    def check(frames):
        seen.append(frames.shape)
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        make(picture, two_moves, store=PathStore(tmp_path / "out", "scene"), check_frames=check)
    assert seen == [(9, 32, 48, 3)]
    assert not list((tmp_path / "out").rglob("*.mp4"))


@pytest.fixture
def long_clip(clip):
    """17 frames: two chunks that share a frame."""
    return clip[torch.arange(17) % 9]


def test_a_long_video_keeps_the_latents_of_all_chunks(make, long_clip, small_tokenizer):
    paths = camera_paths(long_clip.cameras, PathSettings("left", 17))
    found = make(long_clip, paths)
    assert (found.latents.values.shape, found.chunks) == ((1, 16, 4, 4, 6), 2)
    first, second = found.chunk(0), found.chunk(1)
    assert (first.chunks, len(first.cameras[0]), len(second.cameras[0])) == (1, 9, 9)
    assert torch.equal(first.cameras[0].c2w[-1], second.cameras[0].c2w[0])
    alone = make(long_clip[:9], (paths[0][:9],))  # the same noise, whatever follows
    assert same(alone, first)
    frames = decode(small_tokenizer, found, 0)
    parts = [decode(small_tokenizer, chunk, 0) for chunk in (first, second)]
    assert torch.equal(frames, torch.cat([parts[0], parts[1][1:]]))
    shared = (parts[0][-1:] * 255).floor() / 255  # the second chunk starts from the first one's last frame
    latent = encode_clip(small_tokenizer, shared.permute(0, 3, 1, 2)[:, :, None] * 2 - 1)
    torch.testing.assert_close(second.latents.values[:, :, :1], latent, rtol=0, atol=5e-3)


def test_a_long_video_of_a_picture_remembers_what_it_has_made(make, picture):
    paths, seen, depth = camera_paths(picture.cameras, PathSettings("left", 17)), [], picture.depth[0]

    def estimate(frame: torch.Tensor) -> torch.Tensor:
        seen.append(frame)
        return depth

    found = make(picture, paths, estimate_depth=estimate)
    assert found.chunks == 2 and [tuple(frame.shape) for frame in seen] == [(32, 48, 3)]
    assert seen[0].min() >= 0 and seen[0].max() <= 1
    other = make(picture, paths, estimate_depth=lambda frame: depth.flip(1))
    assert same(other.chunk(0), found.chunk(0)) and not same(other, found)
    with pytest.raises(ValueError, match="17 frames from one picture need a depth estimator .* use 9 frames"):
        make(picture, paths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, c: (g, ()), "no camera path to generate along"),
        (lambda g, c: (g, (c[0], replace(c[1], width=64))), "'right' is of 64x32 .*, the teacher makes 48x32; fit"),
        (lambda g, c: (fit(g, 16, 24), c), "the geometry is of 24x16 pictures, the teacher makes 48x32; fit"),
        (lambda g, c: (g, (c[0], c[1][:5])), "'left' has 9 frames, 'right' has 5"),
        (lambda g, c: (g, tuple(p[:5] for p in c)), r"5 frames cannot be .*; use 9 \(one chunk\) or 17$"),
        (lambda g, c: (g[torch.zeros(4, dtype=torch.long)], c), "clip of 4 frames for camera paths of 9; load as many"),
        (lambda g, c: (replace(g, valid=g.valid & False), c), "frame 0 has no pixel with a valid depth .*; check"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_its_remedy(make, picture, two_moves, change, message):
    with pytest.raises(ValueError, match=message):
        make(*change(picture, two_moves))


def test_models_that_do_not_belong_together_are_refused(make, picture, two_moves, small_teacher, small_tokenizer):
    other = replace(small_teacher, config=replace(small_teacher.config, family="lyra"))
    with pytest.raises(ValueError, match="tokenizer of family 'small' and teacher of family 'lyra' do not belong"):
        generate(other, small_tokenizer, picture, two_moves)
    longer = replace(small_teacher, config=replace(small_teacher.config, trained_frames=17))
    paths = camera_paths(picture.cameras, PathSettings("left", 17))
    with pytest.raises(ValueError, match="statistics of 2 latent frames; the teacher needs 16 and 3"):
        generate(longer, small_tokenizer, picture, paths)
    with pytest.raises(ValueError, match=r"text embeddings \(1, 512, 1024\), expected \[1 5 12\]; encode the prompt"):
        make(picture, two_moves, text=zero_text(TeacherConfig()))
    with pytest.raises(ValueError, match=r"noise: expected \[chunks 16 T h w\] = \(1, 16, 2, 4, 6\), got \(2, "):
        make(picture, two_moves, noise=torch.zeros(2, 16, 2, 4, 6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: replace(c, c2w=c.c2w @ pitched(0.0, 0.5)), "25 % of the scene's depth away, 0 deg"),
        (lambda c: replace(c, c2w=c.c2w @ pitched(30.0, 0.0)), "0 % of the scene's depth away, 30 degrees turned"),
        (lambda c: replace(c, K=c.K * torch.tensor([[1.5, 1, 1], [1, 1.5, 1], [1, 1, 1]])), "focal length 1.50 times"),
    ],
)  # fmt: skip
def test_a_path_that_starts_elsewhere_than_the_picture_is_warned_of(picture, two_moves, caplog, change, message):
    warn_of_other_starts(picture, two_moves)
    assert not caplog.messages
    warn_of_other_starts(picture, (two_moves[0], change(two_moves[1])))
    assert len(caplog.messages) == 1 and "camera path 'right' does not begin at" in caplog.text
    assert message in caplog.text


def pitched(degrees: float, up: float) -> torch.Tensor:
    """A camera that looks down by some degrees and stands some way up."""
    angle, matrix = torch.tensor(degrees).deg2rad(), torch.eye(4)
    matrix[1, 1] = matrix[2, 2] = angle.cos()
    matrix[1, 2], matrix[2, 1], matrix[1, 3] = -angle.sin(), angle.sin(), up
    return matrix


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 1}, "steps 1 must be 2 or more"),
        ({"seed": 2**32}, "seed 4294967296 lie in 0"),
        ({"solver": "heun"}, "'heun' is neither"),
        ({"attention": "xformers"}, "attention 'xformers': use one of auto, torch"),
        ({"step_cache": -1.0}, "must not be negative"),
        ({"guidance": float("nan")}, "must not be negative"),
        ({"linears": "fp4"}, "linears 'fp4': use one of exact, fp8, int8"),
        ({"late_attention": "sage"}, "late_attention 'sage': use one of auto, torch"),
        ({"guidance_range": (2.0, 1.0)}, "the lower noise level first"),
    ],
)
def test_settings_are_checked_before_anything_runs(settings, message):
    with pytest.raises(ValueError, match=message):
        GenerateSettings(**settings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("flow", ["picture", "clip"])
def test_cuda_makes_what_the_cpu_makes(make, request, flow, two_moves, small_teacher, small_tokenizer, tmp_path):
    geometry = request.getfixturevalue(flow)
    here = make(geometry, two_moves)
    teacher = replace(small_teacher, network=deepcopy(small_teacher.network).cuda())
    tokenizer = deepcopy(small_tokenizer).cuda()
    store = PathStore(tmp_path / "out", "scene")
    there = generate(teacher, tokenizer, geometry, two_moves, settings=QUICK, store=store)
    assert there.latents.values.device.type == "cpu" and there.provenance == here.provenance
    assert (here.latents.values - there.latents.values).abs().median() < 1e-3  # single splats may land elsewhere
    assert same(there, load_sdg(tmp_path / "out"))
