import pytest
import torch
from lyra_pack.comfyui_lyra.bench.warp import benchmark_geometry, rows
from lyra_pack.comfyui_lyra.gen3c.cache.cache3d import Cache3D


def test_the_scene_has_depth_edges_like_a_photograph():
    edges = Cache3D.of(benchmark_geometry(1, 176, 320)).buffers[0].boundary
    assert 0.01 < edges.float().mean() < 0.2


@pytest.mark.slow
def test_the_table_times_each_case():
    lines = list(rows(torch.device("cpu"), frames=3, height=32, width=64, repeats=1))
    assert lines[0].startswith("3 frames of 64x32")
    assert [float(line.split("|")[2]) > 0 for line in lines[4:]] == [True] * 5
