"""Videos in and out through PyAV, frame by frame."""

import logging
import math
import struct
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.error import FFmpegError
from torch import Tensor

from ...callbacks import part
from ..atomic import replacing
from ..reading import reading
from .images import to_bytes

log = logging.getLogger("lyra")

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")  # names end so
THREADS = 4  # of one video
# PyAV 17 and later convert a frame by all threads: slower (its issue 2200), and it fails where they are few (2281)
ALONE: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}
# PyAV before 17 reads every matrix as BT.601 unless another is named for the result, where for RGB none counts
TO_RGB: dict[str, Any] = {"format": "rgb24", **(ALONE or {"dst_colorspace": "ITU601"})}
X264 = {
    "crf": "14",  # visually lossless
    "threads": str(THREADS),  # the result depends on the number, so it must not be the machine's
    # equal frames make equal files on all processors; the matrix is named, lest players guess it
    "x264-params": "cpu-independent=1:colorprim=bt709:transfer=bt709:colormatrix=bt709",
}


@part("encode video")
def save_video(path: Path | str, frames: Tensor | Iterable[Tensor], fps: float) -> None:
    """Write frames [F, H, W, 3] in [0, 1] or bytes, or an iterator over such, as H.264 mp4, yuv420p, BT.709.

    Holds a few frames at a time. The pixel format needs even sizes: an odd last row or column is repeated.
    """
    frames = iter(frames)
    first = next(frames, None)
    rate = Fraction(fps).limit_denominator(1001) if 0 < fps < math.inf else 0
    if first is None or not rate:
        raise ValueError(f"{path}: cannot write {'no frames' if first is None else f'{fps} frames a second'}")
    if first.ndim != 3:
        raise ValueError(f"{path}: frame 0 is {tuple(first.shape)}; expected a frame [H W 3]")
    height, width = first.shape[:2]
    try:
        with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options=X264)
            stream.pix_fmt = "yuv420p"
            stream.height, stream.width = height + height % 2, width + width % 2
            for index, frame in enumerate(chain([first], frames)):
                if frame.shape != (height, width, 3):
                    raise ValueError(f"{path}: frame {index} is {tuple(frame.shape)}; expected {(height, width, 3)}")
                even = np.pad(to_bytes(frame), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                picture = av.VideoFrame.from_ndarray(even, format="rgb24")
                picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", **ALONE)
                picture.pts = index
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    except FFmpegError as error:
        raise ValueError(f"{path}: cannot write {width}x{height} pictures as H.264: {error.strerror}") from error


def load_video(path: Path | str, start: int = 0, count: int | None = None) -> tuple[Tensor, float]:
    """Read frames [F, H, W, 3] in [0, 1] and the frame rate; at most ``count`` frames, from frame ``start`` on.

    Frames are upright: turned and mirrored as the file says, which telephones write instead of turning pixels.
    """
    if start < 0 or (count is not None and count < 1):
        raise ValueError(f"{path}: cannot read {count} frames from frame {start} on; expected 1 or more, from 0 on")
    stop = None if count is None else start + count
    with reading(path) as file:
        try:
            with av.open(str(file)) as container:
                stream = pictures_in(container)
                stream.thread_type = "AUTO"
                rate, shape = stream.average_rate or stream.guessed_rate, stream.sample_aspect_ratio
                promised = stream.frames  # 0 where the file does not say
                pictures, total = [], 0
                for total, picture in enumerate(islice(container.decode(stream), stop), 1):
                    if total > start:
                        pictures.append(upright(picture))
        except FFmpegError as error:
            raise ValueError(f"not a video, or a damaged one: {error.strerror}") from error
        if total < min(promised, promised if stop is None else stop):
            log.warning("%s: says that it holds %d frames; %d can be read", path, promised, total)
        if not pictures:
            raise ValueError(f"holds no frame {start}; it has {total}, counted from 0")
        if not rate:
            raise ValueError("names no frame rate")
        if len({picture.shape for picture in pictures}) > 1:
            raise ValueError("its pictures change their size; save it again with one")
        if shape and shape != 1:
            log.warning(
                "%s: its pixels are %s as wide as high; save it with square ones, or all looks squeezed", path, shape
            )
        return torch.from_numpy(np.stack(pictures)).float().div_(255), float(rate)


def pictures_in(container: Any) -> Any:
    """The first video stream of an opened file; ValueError where it has none that can be decoded."""
    if not container.streams.video:
        raise ValueError("holds no video stream")
    stream = container.streams.video[0]
    if not stream.codec_context:  # PyAV 17 would end the process
        raise ValueError("its video has a form that nothing here decodes, or is damaged")
    return stream


def upright(picture: av.VideoFrame) -> np.ndarray:
    """Bytes [H, W, 3] of a frame, turned and mirrored by its display matrix, of quarter turns only."""
    values = picture.to_ndarray(**TO_RGB)
    sides: Any = picture.side_data  # by name: what iterating it gives, PyAV 19 changed
    data = bytes(sides.get("DISPLAYMATRIX") or b"")
    if len(data) < 36:
        return values
    a, b, _, c, d, *_ = (round(number / 65536) for number in struct.unpack("=9i", data[:36]))
    if sorted((abs(a), abs(b))) != [0, 1] or (abs(c), abs(d)) != (abs(b), abs(a)):
        raise ValueError("its frames are turned by no quarter turn; save it upright")
    if a == 0:  # x becomes y
        values = values.swapaxes(0, 1)
    down, right = (d, a) if a else (b, c)  # where the rows and columns that there are now go
    return np.ascontiguousarray(values[::down, ::right])
