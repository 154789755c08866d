import pytest
from lyra_pack.comfyui_lyra.shapes import plural


@pytest.mark.parametrize(("count", "told"), [(0, "0 frames"), (1, "1 frame"), (6, "6 frames")])
def test_a_count_has_its_noun_in_the_right_form(count, told):
    assert plural(count, "frame") == told
