import pytest
from lyra_pack.comfyui_lyra.training.train_mini import SHARES, train_mini


def test_a_part_without_what_it_builds_on_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="teacher: .*mini_tokenizer.safetensors .* train the part"):
        train_mini(tmp_path, ("teacher",), max_seconds=1)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "mini_tokenizer.safetensors").touch()
    with pytest.raises(FileNotFoundError, match="dynamic: .*mini_teacher"):
        train_mini(tmp_path, ("dynamic",), max_seconds=1)


def test_unknown_parts_are_refused(tmp_path):
    with pytest.raises(ValueError, match=f"'decoder'; use some of {', '.join(SHARES)}"):
        train_mini(tmp_path, ("decoder",), max_seconds=1)
