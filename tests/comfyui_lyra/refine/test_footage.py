from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.cameras.moves import PathSettings, camera_paths, still
from lyra_pack.comfyui_lyra.cameras.path import pinhole_camera
from lyra_pack.comfyui_lyra.geometry.geometry import Geometry
from lyra_pack.comfyui_lyra.latents import MultiViewLatents, VideoLatents
from lyra_pack.comfyui_lyra.recon.inputs import in_splat_world
from lyra_pack.comfyui_lyra.refine.footage import OWN, chunk_of, closeness, targets

FRAMES = 9


def latents(frames: int = FRAMES, chunks: int = 1, dynamic: bool = False) -> MultiViewLatents:
    """Of two paths that begin away from the world's origin."""
    base = pinhole_camera(32, 24, 50)
    base = base.at(base.c2w.clone(), base.K)
    base.c2w[0, :3, 3] = torch.tensor([0.3, -0.2, 0.1])
    paths = camera_paths(base, PathSettings("six_paths", frames))[:2]
    values = torch.randn(2, 16, (frames - 1) // 8 + chunks, 3, 4, generator=torch.Generator().manual_seed(0))
    return MultiViewLatents(latents=VideoLatents(values=values), cameras=paths, family="tiny", dynamic=dynamic)


def films(views: int = 2, frames: int = FRAMES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (views, frames, 24, 32, 3), generator=generator, dtype=torch.uint8)


def geometry(scene: MultiViewLatents, count: int = 1, times: int = 1) -> Geometry:
    """A source at the paths' first camera, its pictures ``times`` as large as the frames."""
    camera = still(scene.cameras[0][:1].resized(24 * times, 32 * times), count)
    shape = (count, 24 * times, 32 * times)
    pictures = torch.rand(*shape, 3, generator=torch.Generator().manual_seed(4))
    return Geometry(frames=pictures, depth=torch.ones(shape), valid=torch.ones(shape, dtype=torch.bool), cameras=camera)


def test_frames_lie_beside_their_cameras_path_after_path():
    scene = latents()
    cameras = in_splat_world(scene.cameras)
    (target,) = targets(films(), cameras, scene)
    assert torch.equal(target.frames[FRAMES + 3], films()[1, 3])
    torch.testing.assert_close(target.cameras.c2w[FRAMES + 3], cameras[1].c2w[3])


def test_the_picture_stands_where_it_was_taken_in_the_world_of_the_splats():
    scene = latents()
    cameras = in_splat_world(scene.cameras)
    source = geometry(scene)
    (target,) = targets(films(), cameras, scene, source)
    torch.testing.assert_close(target.picture.camera.c2w[0], cameras[0].c2w[0])
    assert target.picture.is_source and torch.equal(target.picture.pixels, source.frames[0])


def test_frames_from_the_pictures_own_camera_count_no_more():
    scene = latents()
    (target,) = targets(films(), in_splat_world(scene.cameras), scene, geometry(scene))
    assert (target.weights == 0).nonzero().flatten().tolist() == [0, FRAMES]
    (target,) = targets(films(), in_splat_world(scene.cameras), scene)
    assert target.weights.min() > 0


def test_a_larger_picture_is_brought_to_the_frames_size():
    scene = latents()
    (target,) = targets(films(), in_splat_world(scene.cameras), scene, geometry(scene, times=2))
    assert target.picture.pixels.shape == (24, 32, 3)
    torch.testing.assert_close(target.picture.camera.K, scene.cameras[0].K[:1])


def test_without_a_geometry_the_first_frame_stands_in():
    scene = latents()
    (target,) = targets(films(), in_splat_world(scene.cameras), scene)
    assert not target.picture.is_source
    torch.testing.assert_close(target.picture.pixels, films()[0, 0].float() / 255)


def test_a_moving_scene_looks_at_its_time_and_less_at_its_neighbours():
    weights = closeness(FRAMES, 4)
    assert weights[4] == OWN and weights.sum() == pytest.approx(1)
    assert weights[3] == weights[5] > weights[2] > weights[0]
    assert torch.equal(closeness(FRAMES, None), torch.ones(FRAMES))
    with pytest.raises(ValueError, match="bullet time 9 lies outside of the clips' 9 frames"):
        closeness(FRAMES, 9)


def test_a_clips_own_frame_of_the_time_is_the_picture():
    scene = latents(dynamic=True)
    source = geometry(scene, FRAMES)
    first, middle = targets(films(), in_splat_world(scene.cameras), scene, source, (0, 4))
    assert torch.equal(first.picture.pixels, source.frames[0])
    assert torch.equal(middle.picture.pixels, source.frames[4])
    assert middle.judged(6).tolist() == [4, FRAMES + 4]
    first, middle = targets(films(), in_splat_world(scene.cameras), scene, None, (0, 4))
    assert middle.picture is None and not first.picture.is_source


def test_what_is_measured_is_spread_over_all_paths():
    scene = latents()
    (target,) = targets(films(), in_splat_world(scene.cameras), scene)
    assert target.judged(3).tolist() == [0, 8, 17]
    assert len(target.judged(100)) == 2 * FRAMES


def test_frames_are_drawn_by_weight_and_no_more_often_than_there_are():
    scene = latents()
    (target,) = targets(films(), in_splat_world(scene.cameras), scene)
    target = replace(target, weights=torch.tensor([0.0] * 16 + [1.0, 3.0]))
    order = torch.Generator().manual_seed(0)
    assert sorted(target.draw(5, order).tolist()) == [16, 17]
    drawn = torch.cat([target.draw(1, order) for _ in range(400)])
    assert 60 < int((drawn == 16).sum()) < 140


def test_a_chunk_of_a_long_clip_is_found_by_its_cameras():
    scene = latents(17, chunks=2)
    for index in (0, 1):
        part = scene.chunk(index)
        assert torch.equal(chunk_of(scene, in_splat_world(part.cameras)).latents.values, part.latents.values)


def test_cameras_of_other_latents_are_refused():
    scene = latents()
    with pytest.raises(ValueError, match=r"camera paths of \[9\] frames and latents of \[9, 9\] do not"):
        chunk_of(scene, scene.cameras[:1])
    with pytest.raises(ValueError, match="do not belong together"):
        chunk_of(scene, tuple(path.backwards() for path in scene.cameras))


@pytest.mark.parametrize("moving", [False, True])
def test_what_the_source_shows_of_each_frame_is_known_with_its_depth(moving):
    scene = latents(dynamic=moving)
    cameras, source = in_splat_world(scene.cameras), geometry(scene, FRAMES if moving else 1)
    (target,) = targets(films(), cameras, scene, source, source="cpu")
    assert target.views == 2 and target.known.shape == target.depth.shape == target.frames.shape[:3]
    first, last = target.known[0].float().mean(), target.known[FRAMES - 1].float().mean()
    assert first > 0.99 and 0.2 < last < first  # the path leaves the picture
    torch.testing.assert_close(target.depth[0].float(), torch.ones(24, 32), atol=1e-3, rtol=0)
    assert not target.depth[FRAMES - 1][~target.known[FRAMES - 1]].any()
    assert targets(films(), cameras, scene, source)[0].known is None
    with pytest.raises(ValueError, match="a clip of 5 frames for paths of 9"):
        targets(films(), cameras, scene, geometry(scene, 5), source="cpu")
