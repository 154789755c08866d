import pytest
import torch
from lyra_pack.comfyui_lyra.cli.models import is_streamed
from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS, TOKENIZER_PRESETS

RELEASED = TEACHER_PRESETS["gen3c"], TOKENIZER_PRESETS["lyra"]


@pytest.mark.parametrize(
    ("free", "pictures", "step_cache", "streams"),
    [
        (23.5e9, 1, False, False),  # a card of 24 GB holds a picture's run
        (23.5e9, 1, True, True),  # not with the six states of the step cache
        (23.5e9, 121, False, True),  # nor a clip's
        (12 * 2**30, 1, False, True),
        (32e9, 121, True, False),
    ],
)
def test_weights_stream_where_they_do_not_fit_beside_the_work(free, pictures, step_cache, streams):
    given = *RELEASED, pictures, step_cache, torch.bfloat16
    assert is_streamed("auto", int(free), *given) == streams
    assert is_streamed("stream", int(free), *given)


def test_without_a_gpu_weights_stream_if_asked_for_alone():
    given = *RELEASED, 1, False, torch.float32
    assert not is_streamed("auto", None, *given) and is_streamed("stream", None, *given)


def test_weights_in_8_bits_fit_where_exact_ones_do_not():
    given = "auto", 18 * 10**9, *RELEASED, 1, False, torch.bfloat16
    assert is_streamed(*given) and not is_streamed(*given, exact=False)
