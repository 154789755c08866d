import json
from pathlib import Path

import pytest
from lyra_pack.comfyui_lyra.released.table import RELEASES

ROOT = Path(__file__).resolve().parents[3]
ELSEWHERE = {"sd_xl_base_1.0.safetensors"}  # an example of any text-to-image model


def test_our_names_tell_the_released_files_apart():
    sources = {}
    for release in RELEASES.values():
        assert release.licence and release.repo.count("/") == 1
        for file in release.files:
            place = f"{release.folder}/{file.name}"
            assert sources.setdefault(place, (release.repo, file.source)) == (release.repo, file.source)
            assert not place.endswith("/model.pt")
            assert any(unit in file.size for unit in ("kB", "MB", "GB"))


def test_the_table_says_what_the_reference_s_programs_say():
    assert RELEASES["gen3c"].files[0].source == "transformer/model.safetensors"  # bfloat16, no pickle: the one to take
    assert RELEASES["gen3c-float32"].revision.startswith("9bcfdb4f")
    assert all(len(file.md5 or "0" * 32) == 32 for release in RELEASES.values() for file in release.files)
    assert all(file.md5 for name in ("lyra", "tokenizer-jit", "gen3c-float32") for file in RELEASES[name].files)
    assert "66 MB in bfloat16 or 131 MB in float32" in str(RELEASES["lyra"])


def offered() -> list[tuple[str, dict, dict]]:
    """(template, node, file) of every download that a template offers."""
    found = []
    for path in sorted((ROOT / "workflows").glob("*.json")):
        for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]:
            found += [(path.stem, node, model) for model in node["properties"].get("models", ())]
    return found


@pytest.mark.parametrize(("template", "node", "model"), offered(), ids=lambda value: str(value)[:24])
def test_templates_offer_the_files_of_the_table_and_choose_them(template, node, model):
    assert model["name"] in node["widgets_values_named"].values()
    if model["name"] in ELSEWHERE:
        return
    known = {file.name: (release, file) for release in RELEASES.values() for file in release.files}
    release, file = known[model["name"]]
    assert model["url"] == f"https://huggingface.co/{release.repo}/resolve/{release.revision}/{file.source}"
    assert model["directory"] == release.folder
    assert model.get("hash") == file.md5
    assert model.get("hash_type") == ("MD5" if file.md5 else None)


def test_the_readme_s_table_names_every_file_of_the_table():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Models\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    for name, release in RELEASES.items():
        (line,) = [line for line in table if f"| `{name}` |" in line]
        assert release.repo in line
        assert release.folder.partition("/")[0] in line
        assert all(f"{file.source.rpartition('/')[2]}`" in line for file in release.files)
        assert all(file.md5[:8] in line for file in release.files if file.md5)


def test_the_readme_s_commands_name_places_where_fetch_puts_files():
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    places = [word.removeprefix("ComfyUI/models/") for word in words if word.startswith("ComfyUI/models/")]
    assert places
    assert set(places) <= {f"{release.folder}/{file.name}" for release in RELEASES.values() for file in release.files}
