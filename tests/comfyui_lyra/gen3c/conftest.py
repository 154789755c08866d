import pytest
from lyra_pack.comfyui_lyra.configs import TeacherConfig


@pytest.fixture
def tiny() -> TeacherConfig:
    return TeacherConfig(
        heads=2, head_dim=24, blocks=3, adaln_rank=8, text_dim=12, text_rows=5, max_grid=(8, 16, 16), bf16_angles=False
    )
