import os

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.path import CameraTrajectory
from lyra_pack.comfyui_lyra.cameras.rays import plucker, plucker_bf16, rays, rays_bf16
from lyra_pack.comfyui_lyra.latents import VideoLatents
from lyra_pack.comfyui_lyra.recon.inputs import (
    EncodeCache,
    encode_plucker,
    in_splat_world,
    relative_times,
    splat_rays,
    static_inputs,
    time_embedding,
    time_video,
    view_order,
)


def test_the_last_path_comes_first():
    assert [view_order(n) for n in (1, 2, 3)] == [[0], [1, 0], [2, 0, 1]]


@pytest.mark.golden("decoder/preprocess_*")
def test_golden_preparation(golden):
    meta, views = golden.meta, [int(view) for view in golden.meta["static_view_indices_fixed"]]
    order, (height, width), frames = view_order(len(views)), meta["img_size"], meta["num_input_views"]
    assert order == views

    def path(view):
        fx, fy, cx, cy = golden[f"in.intrinsics.{view}"].unbind(-1)
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        K = torch.stack((fx, zero, cx, zero, fy, cy, zero, zero, one), -1).unflatten(-1, (3, 3))
        size = dict(zip(("height", "width"), meta["in_img_size"], strict=True))
        return CameraTrajectory(c2w=golden[f"in.c2w.{view}"], K=K, **size).resized(height, width)

    paths = in_splat_world([path(view) for view in sorted(views)])
    near = dict(rtol=1e-6, atol=1e-6)
    c2w = torch.cat([paths[view].c2w for view in order])
    torch.testing.assert_close(c2w, golden["out.c2ws_input"], **near)
    torch.testing.assert_close(pinhole(paths, order), golden["out.intrinsics_input"], **near)

    targets = torch.arange(0, frames, meta["target_index_subsample"])
    seen = [path[targets] for path in paths]
    torch.testing.assert_close(torch.cat([seen[v].viewmats for v in order]).mT, golden["out.cam_view"], **near)
    torch.testing.assert_close(pinhole(seen, order), golden["out.intrinsics"], **near)
    asked = meta["dataset_calls"][-1]
    assert asked["frames"] == targets.tolist() and asked["views"] == order
    read = [view for call in meta["dataset_calls"][:-1] for view in call["views"]]
    assert read == order

    latents = VideoLatents(values=torch.stack([golden[f"in.latent.{view}"] for view in order]))
    raw = latents.to_tokenizer(golden["in.latent_mean"], golden["in.latent_std"]).values
    torch.testing.assert_close(raw.transpose(1, 2).flatten(0, 1), golden["out.rgb_latents"], **near)

    bullet, clock = meta["target_index_manual"], relative_times(frames)
    index = golden["out.target_index"]  # the reference's own bookkeeping: bullet time of each target, or its frame
    assert index[-len(targets) :].tolist() == (targets.tolist() if bullet is None else [bullet] * len(targets))
    target = clock[bullet or 0 :][:1]
    torch.testing.assert_close(time_embedding(clock), golden["out.time_embeddings"], **near)
    torch.testing.assert_close(time_embedding(target), golden["out.time_embeddings_target"], **near)
    for times, key in ((clock, "out.time_video_source"), (target, "out.time_video_target")):
        video = time_video(times, *golden[key].shape[3:], dtype=torch.float32)
        torch.testing.assert_close(video.transpose(1, 2), golden[key], **near)


def pinhole(paths, order) -> torch.Tensor:
    """fx, fy, cx, cy of every camera, in the order of the views."""
    K = torch.cat([paths[view].K for view in order])
    return torch.stack((K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]), -1)


@pytest.mark.golden("decoder/time_embedding_*")
def test_golden_time_embedding(golden):
    times = relative_times(len(golden["t"]))
    torch.testing.assert_close(times, golden["t"], rtol=0, atol=1e-7)
    embedding = time_embedding(times)
    torch.testing.assert_close(embedding, golden["emb_fp32"], rtol=0, atol=1e-6)
    assert torch.equal(embedding.to(torch.bfloat16).float(), golden["emb_bf16"])
    video = time_video(times, 1, 1, torch.bfloat16)[0, :, :, 0, 0].T
    assert torch.equal(video.float(), golden["video_values_bf16"])


def test_a_clip_of_one_frame_has_time_zero():
    assert relative_times(1).tolist() == [0]


def test_cameras_are_relative_to_the_first_of_the_last_path(two_paths):
    first, last = in_splat_world(two_paths)
    torch.testing.assert_close(last.c2w[0], torch.eye(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(two_paths[1].c2w[0] @ first.c2w, two_paths[0].c2w, rtol=0, atol=1e-5)
    assert [path.name for path in (first, last)] == [path.name for path in two_paths]


def test_moments_are_encoded_before_directions(two_paths, pool):
    path = two_paths[0]
    for bf16, coordinates in ((False, plucker(path)), (True, plucker_bf16(path).float())):
        found = encode_plucker(path, pool, bf16, torch.float32)
        halves = coordinates.transpose(0, 1)[None].split(3, 1)
        assert torch.equal(found, torch.cat([pool.encode(half)[0] for half in halves]))
        assert found.abs().max() > 1  # moments are not squeezed into -1..1


def test_reference_rays_are_rounded_to_bfloat16(two_paths):
    path = two_paths[0]
    for bf16, traced in ((False, rays(path, 8)), (True, rays_bf16(path, 8))):
        origins, directions = splat_rays(path, 8, bf16)
        assert torch.equal(origins[:, :, None, None].expand_as(directions), traced[0])
        assert torch.equal(directions, traced[1])


def test_views_come_in_the_decoders_order(tiny, two_paths, pool):
    latents = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 4, 2, 4, 6)
    inputs = static_inputs(tiny, pool, latents, two_paths, EncodeCache())
    assert inputs.latents[0, :, 0, 0, 0, 0].tolist() == [1, 0]
    for i, path in enumerate(reversed(two_paths)):
        assert torch.equal(inputs.plucker[0, i], encode_plucker(path, pool, True, torch.float32))
        assert torch.equal(inputs.directions[0, i], splat_rays(path, 8, True)[1])


def test_the_cache_knows_cameras_and_forgets_the_oldest():
    cache, made = EncodeCache(max_bytes=100), []

    def get(*key):
        return cache.get(key, lambda: made.append(key) or torch.full((10,), float(len(made))))

    a, b, c = torch.eye(4), torch.eye(4) * 2, torch.eye(4) * 3
    assert torch.equal(get("x", a), get("x", a.clone())) and len(made) == 1
    get("x", b), get("y", a)  # 40 bytes each: the third pushes the first out
    assert len(made) == 3
    get("x", b)
    assert len(made) == 3
    get("x", a)
    assert len(made) == 4
    assert torch.equal(get("z", c), get("z", c))
    never = EncodeCache(max_bytes=0)
    assert torch.equal(never.get(("x",), lambda: a), a) and torch.equal(never.get(("x",), lambda: b), b)


def test_a_later_process_reads_what_was_encoded_and_the_folder_stays_small(tmp_path):
    made = []

    def get(key: str) -> torch.Tensor:
        cache = EncodeCache(max_bytes=0, folder=tmp_path / "encoded", max_stored=10_000)  # as of a new process
        return cache.get((key,), lambda: made.append(key) or torch.full((1000,), float(len(made))))

    assert torch.equal(get("a"), get("a")) and made == ["a"]
    (file,) = (tmp_path / "encoded").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert float(get("a")[0]) == 2 and made == ["a", "a"]  # damaged: made again
    get("b")
    for file in (tmp_path / "encoded").iterdir():
        os.utime(file, ns=(0, 0))
    get("a"), get("c")  # a was looked at last, so b goes
    assert len(list((tmp_path / "encoded").iterdir())) == 2
    seen = len(made)
    get("a"), get("c")
    assert len(made) == seen
    get("b")
    assert len(made) == seen + 1


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = EncodeCache(folder=tmp_path / "file" / "below")
    assert torch.equal(cache.get(("x",), lambda: torch.ones(2)), torch.ones(2))
