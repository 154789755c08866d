import pytest
from lyra_pack.comfyui_lyra.files.names import check_name, check_prefix, fault, fit_name

BAD = [
    "", " ", ".", "..", ".hidden", "a.", "a ", " a", "a. ", "a:b", "a/b", "a\\b", "a*", "a?", 'a"b', "<a>", "a|b",
    "a\x00b", "a\nb", "CON", "con", "nul", "NUL.txt", "aux.tar.gz", "Com1", "LPT9.ply", "COM¹", "conin$", "con .ply",
    "a.lyra", "A.TMP", "b.unfinished", "a" * 201, "ä" * 101, "\ud800",
]  # fmt: skip
GOOD = [
    "a",
    "scene 1",
    "my.scene",
    "console",
    "com10",
    "nul_1",
    "Größe",
    "a-b_c",
    "a(1)",
    "com",
    "1",
    "'quoted'",
    "日本",
]


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_names_that_some_system_does_not_take_are_refused_on_all(name):
    with pytest.raises(ValueError, match="cannot be the name of a scene: .*; use letters, digits, - and _"):
        check_name(name, "a scene")
    fitted = fit_name(name, "clip")
    assert fault(fitted) is None


@pytest.mark.parametrize("name", GOOD)
def test_other_names_stay_as_they_are(name):
    assert check_name(name) == name


def test_names_that_mean_something_else_in_a_place_are_refused_there():
    assert check_name("decoders") == "decoders"
    with pytest.raises(
        ValueError, match="'Decoders' cannot be the name of a scene: this pack keeps other things there"
    ):
        check_name("Decoders", "a scene", taken=("decoders",))


def test_prefixes_are_checked_part_by_part():
    assert check_prefix("3d\\lyra/scene") == "3d/lyra/scene"
    for prefix in ("3d/con/a", "3d/a:b", "a./b", "../a"):
        with pytest.raises(ValueError, match="cannot be the name of a folder or file"):
            check_prefix(prefix)
