import pytest
from lyra_pack.comfyui_lyra.weights import shipped


def test_a_file_that_is_missing_is_named_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "MINI", tmp_path)
    with pytest.raises(FileNotFoundError, match="mini_teacher.safetensors is not there: this copy of the pack is"):
        shipped.shipped_model("teacher")
    (tmp_path / "mini_teacher.safetensors").touch()
    assert shipped.shipped_model("teacher") == tmp_path / "mini_teacher.safetensors"
