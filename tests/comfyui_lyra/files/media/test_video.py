import logging
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from lyra_pack.comfyui_lyra.files.media import video
from lyra_pack.comfyui_lyra.files.media.video import load_video, save_video
from lyra_pack.comfyui_lyra.training.data.sdg_scene import load_frames, probe

FAST = {"movflags": "faststart"}  # the index before the pictures


def moving_ramp(frames: int, height: int, width: int) -> torch.Tensor:
    """Smooth colours that differ between channels and shift from frame to frame."""
    x = torch.linspace(0, 1, width)[None, None, :].expand(frames, height, width)
    y = torch.linspace(0, 1, height)[None, :, None].expand(frames, height, width)
    t = torch.linspace(0, 1, frames)[:, None, None].expand(frames, height, width)
    return torch.stack((x, y, t), dim=-1)


def test_frames_survive_within_a_few_levels_in_order(tmp_path):
    frames = moving_ramp(9, 48, 64)
    save_video(tmp_path / "a.mp4", frames, fps=24)
    found, fps = load_video(tmp_path / "a.mp4")
    assert (found.shape, fps, found.dtype) == (frames.shape, 24, torch.float32)
    assert (found - frames).abs().mean() < 2.5 / 255
    assert (found - frames).abs().max() < 16 / 255  # colour is stored at half size


def test_flat_colours_keep_their_values(tmp_path):
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0], [0.5, 0.25, 0.75]])
    save_video(tmp_path / "a.mp4", colors[:, None, None].expand(-1, 32, 32, 3), fps=10)
    assert (load_video(tmp_path / "a.mp4")[0][:, 16, 16] - colors).abs().max() < 3 / 255


def test_equal_frames_make_equal_files_whatever_a_processor_can_do(tmp_path, monkeypatch):
    noise = torch.rand(17, 96, 160, 3, generator=torch.Generator().manual_seed(0))
    frames = 0.8 * moving_ramp(17, 96, 160) + 0.2 * noise
    save_video(tmp_path / "fast.mp4", frames, fps=24)
    plain = video.X264 | {"x264-params": f"{video.X264['x264-params']}:asm=0"}  # x264 in C
    monkeypatch.setattr(video, "X264", plain)
    save_video(tmp_path / "plain.mp4", frames, fps=24)
    assert (tmp_path / "fast.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_bytes_and_numbers_make_the_same_video(tmp_path):
    frames = moving_ramp(9, 32, 48)
    save_video(tmp_path / "numbers.mp4", frames, fps=24)
    save_video(tmp_path / "bytes.mp4", (frames * 255).round().byte(), fps=24)
    assert (tmp_path / "numbers.mp4").read_bytes() == (tmp_path / "bytes.mp4").read_bytes()


def test_the_file_is_h264_in_yuv420p_and_names_its_colours(tmp_path):
    save_video(tmp_path / "a.mp4", moving_ramp(3, 32, 32), fps=30000 / 1001)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == (
            "h264",
            "yuv420p",
            Fraction(30000, 1001),
        )
        assert next(container.decode(stream)).colorspace == 1  # BT.709


def test_the_same_frames_give_the_same_bytes_as_tensor_and_iterator(tmp_path):
    frames = moving_ramp(5, 34, 36)
    save_video(tmp_path / "a.mp4", frames, fps=24)
    save_video(tmp_path / "b.mp4", (frame for frame in frames.double()), fps=24)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_iterator_is_consumed_frame_by_frame(tmp_path):
    alive = []

    def frames():
        for i in range(40):
            alive.append((tmp_path / "a.mp4").exists())
            yield torch.full((16, 16, 3), i / 40)

    save_video(tmp_path / "a.mp4", frames(), fps=24)
    assert alive == [False] * 40
    assert len(load_video(tmp_path / "a.mp4")[0]) == 40


def test_odd_sizes_repeat_their_last_row_and_column(tmp_path):
    frames = moving_ramp(3, 31, 47)
    save_video(tmp_path / "a.mp4", frames, fps=24)
    found, _ = load_video(tmp_path / "a.mp4")
    assert found.shape == (3, 32, 48, 3)
    assert (found[:, :31, :47] - frames).abs().max() < 16 / 255
    assert (found[:, 31] - found[:, 30]).abs().max() < 6 / 255
    assert (found[:, :, 47] - found[:, :, 46]).abs().max() < 6 / 255


def test_a_part_is_the_same_as_in_the_whole(tmp_path):
    save_video(tmp_path / "a.mp4", moving_ramp(30, 32, 32), fps=24)
    whole, _ = load_video(tmp_path / "a.mp4")
    assert torch.equal(load_video(tmp_path / "a.mp4", start=7, count=5)[0], whole[7:12])
    assert torch.equal(load_video(tmp_path / "a.mp4", start=28, count=5)[0], whole[28:])


def test_an_interrupted_write_leaves_the_old_video_whole(tmp_path):
    def frames():
        yield torch.zeros(16, 16, 3)
        raise KeyboardInterrupt

    save_video(tmp_path / "a.mp4", torch.ones(2, 16, 16, 3), fps=24)
    before = (tmp_path / "a.mp4").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        save_video(tmp_path / "a.mp4", frames(), fps=24)
    assert (tmp_path / "a.mp4").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        ([], 24, "a.mp4: cannot write no frames"),
        (torch.zeros(0, 16, 16, 3), 24, "cannot write no frames"),
        (torch.zeros(1, 16, 16, 3), 0, "cannot write 0 frames a second"),
        (torch.zeros(1, 16, 16, 3), float("inf"), "cannot write inf frames a second"),
        (torch.zeros(1, 16, 16, 3), 1e-9, "cannot write 1e-09 frames a second"),
        (torch.zeros(3, 16), 24, r"frame 0 is \(16,\); expected a frame \[H W 3\]"),
        (torch.zeros(1, 2, 20000, 3), 24, "a.mp4: cannot write 20000x2 pictures as H.264: .*"),
        ([torch.zeros(16, 16, 3), torch.zeros(16, 18, 3)], 24, r"frame 1 is \(16, 18, 3\); expected \(16, 16, 3\)"),
        (torch.zeros(1, 16, 16, 4), 24, r"frame 0 is \(16, 16, 4\)"),
    ],
)
def test_unfit_frames_are_one_sentence(tmp_path, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        save_video(tmp_path / "a.mp4", frames, fps=fps)
    assert not list(tmp_path.iterdir())


def test_what_is_no_video_is_one_sentence(tmp_path):
    path = tmp_path / "a.mp4"
    with pytest.raises(FileNotFoundError, match="a.mp4: no such file"):
        load_video(path)
    for data in (b"", b"nonsense" * 100):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="a.mp4: not a video, or a damaged one"):
            load_video(path)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="a.mp4: holds no video stream"):
        load_video(path)
    save_video(path, torch.zeros(3, 16, 16, 3), fps=24)
    with pytest.raises(ValueError, match="a.mp4: holds no frame 3"):
        load_video(path, start=3)
    with pytest.raises(ValueError, match="cannot read 0 frames from frame 0 on"):
        load_video(path, count=0)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="a.mp4: not a video, or a damaged one"):
        load_video(path)


def with_matrix(path, a: int, b: int, c: int, d: int) -> None:
    """Write the display matrix of a telephone into an mp4's track."""
    data = bytearray(path.read_bytes())
    one, quarter = 1 << 16, 1 << 30
    at = data.index(b"tkhd") + 4 + 40
    assert data[at : at + 36] == struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, quarter)
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, quarter)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "turns", "mirror"),
    [
        ((1, 0, 0, 1), 0, False),
        ((0, 1, -1, 0), -1, False),  # held upright: shown a quarter turn clockwise
        ((-1, 0, 0, -1), 2, False),
        ((0, -1, 1, 0), 1, False),
        ((-1, 0, 0, 1), 0, True),  # the camera of selfies
    ],
)
def test_frames_are_upright_as_the_file_says(tmp_path, matrix, turns, mirror):
    save_video(tmp_path / "a.mp4", moving_ramp(3, 32, 48), fps=24)
    stored, _ = load_video(tmp_path / "a.mp4")
    with_matrix(tmp_path / "a.mp4", *matrix)
    found, _ = load_video(tmp_path / "a.mp4")
    assert torch.equal(found, stored.rot90(turns, (1, 2)).flip(2) if mirror else stored.rot90(turns, (1, 2)))


def test_frames_on_a_slant_are_refused(tmp_path):
    save_video(tmp_path / "a.mp4", moving_ramp(1, 32, 48), fps=24)
    with_matrix(tmp_path / "a.mp4", 1, 1, -1, 1)
    with pytest.raises(ValueError, match="a.mp4: its frames are turned by no quarter turn; save it upright"):
        load_video(tmp_path / "a.mp4")


def test_a_video_that_is_cut_short_says_so(tmp_path, caplog):
    save_video(tmp_path / "a.mp4", moving_ramp(9, 32, 48), fps=24)
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mp4"), "w", options=FAST) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    with av.open(str(tmp_path / "b.mp4")) as copy:
        begins = sorted(packet.pos for packet in copy.demux(video=0) if packet.size)
    data = (tmp_path / "b.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    (tmp_path / "b.mp4").write_bytes(data[: begins[6]])
    with caplog.at_level(logging.WARNING, "lyra"):
        found, _ = load_video(tmp_path / "b.mp4")
    assert 0 < len(found) < 9
    assert f"b.mp4: says that it holds 9 frames; {len(found)} can be read" in caplog.text
    caplog.clear()
    load_video(tmp_path / "a.mp4")
    load_video(tmp_path / "a.mp4", start=2, count=3)
    assert not caplog.text


@pytest.mark.parametrize("read", [load_video, probe, lambda path: load_frames(path, [0])])
def test_a_form_without_a_decoder_is_told_and_does_not_end_the_process(tmp_path, read):
    save_video(tmp_path / "a.mp4", torch.full((3, 32, 48, 3), 0.5), 24)
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes().replace(b"avc1", b"xyzw"))
    with pytest.raises(ValueError, match="a form that nothing here decodes, or is damaged"):
        read(tmp_path / "b.mp4")
