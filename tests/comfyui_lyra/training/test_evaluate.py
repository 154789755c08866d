"""The evaluation's rows at a size for tests, and the yardsticks it measures by."""

import json
import math
from dataclasses import replace

import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings
from lyra_pack.comfyui_lyra.quality.scores import psnr
from lyra_pack.comfyui_lyra.recon.inputs import EncodeCache
from lyra_pack.comfyui_lyra.splats.render import render
from lyra_pack.comfyui_lyra.training.data.claims import Claim, dynamic_claims, markdown_claims
from lyra_pack.comfyui_lyra.training.data.sdg_memory import draw_sources, make_scenes
from lyra_pack.comfyui_lyra.training.evaluate import Evaluation, decode_views, depth_splats, evaluate, markdown, summary
from lyra_pack.comfyui_lyra.training.train_recon import initial_recon

SETTINGS = GenerateSettings(steps=2, solver="dpmpp_2m", guidance=0)


@pytest.mark.slow
def test_scenes_make_all_rows(tmp_path, nano_tokenizer, nano_teacher, nano_recon, long):
    seeds = (900_000, 900_001) if long else (900_000,)
    static, dynamic = (initial_recon(replace(nano_recon, dynamic=moves), 0).eval() for moves in (False, True))
    tables = evaluate(
        tmp_path, nano_tokenizer, nano_teacher, static, dynamic,
        Evaluation(seeds=seeds, lengths=("large",), stride=8, settings=SETTINGS),
    )  # fmt: skip
    still, moving = (tables[f"{kind}, large paths"] for kind in ("static", "dynamic"))
    rows = {name.split(" ")[0] for name in still}
    assert rows == {"a", "b", "c", "d", "d'", "e", "f", "g"}
    for what in ("psnr", "psnr_visible", "psnr_hole", "ssim", "tpips", "sharpness"):
        assert f"e student {what}" in still
    assert still["d depth splats psnr"][0] > still["e student psnr"][0]  # untrained splats are grey
    assert still["d depth splats psnr_visible"][0] > 15
    assert not long or still["d depth splats psnr"][1] > 0
    assert still["g 1 views, unseen paths psnr"] != still["e student, unseen by 1 psnr"]
    assert still["g clockwise alone, unseen paths psnr"] == pytest.approx(still["g 1 views, unseen paths psnr"])
    assert still["g left alone, unseen paths psnr"] != still["e student, unseen by left psnr"]
    assert {f"student_teacher, flipped, time {t} psnr" for t in (0, 4, 8)} <= moving.keys()
    assert 0 < moving["far cameras, early alpha"][0] < 1
    assert 0 <= moving["far cameras, early flicker"][0] < 100  # levels of 255
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert stored["tables"]["static, large paths"]["b teacher psnr"] == list(still["b teacher psnr"])
    page = (tmp_path / "evaluation.md").read_text()
    assert "| e student |" in page and "| pruning costs, dB |" in page
    claims = {claim["what"]: claim for claim in stored["claims"]["static, large paths"]}
    assert not claims["student above depth splats, dB"]["holds"]
    paths = ("left", "right", "up", "zoom_out", "zoom_in", "clockwise")
    gains = [still[f"e student, unseen by {p} psnr"][0] - still[f"g {p} alone, unseen paths psnr"][0] for p in paths]
    gain = claims["six views above one, whichever it is, on its unseen paths, dB"]["value"]
    assert gain == pytest.approx(sum(gains) / 6)
    assert len(stored["claims"]["dynamic, large paths"]) == 2


def test_a_claim_holds_on_its_side_of_the_target():
    table = {"far cameras, early over last alpha": (0.95, 0.1), "student_teacher, forward, time 0 psnr": (22.0, 1.0)}
    alone = dynamic_claims(table, None)
    assert [claim.holds for claim in alone] == [True]
    gap, ratio = dynamic_claims(table, {"f student_teacher psnr": (25.0, 1.0)})
    assert (gap.value, gap.holds, ratio.value) == (3.0, False, 0.95)
    assert not Claim(what="none", value=float("nan"), target=1).holds
    assert markdown_claims([gap])[2] == "| student against teacher, below scenes at rest, dB | 3.00 | <= 2 | **no** |"


def test_depth_splats_show_the_picture_they_come_from(nano_size):
    (source,) = draw_sources([900_000], size=nano_size, frames=9)
    splats = depth_splats(source)
    assert len(splats) == nano_size[0] * nano_size[1]
    frames = render(splats, source.paths[0][:1]).rgb
    assert psnr(frames, source.geometry.frames).item() > 24


def test_views_are_read_in_the_order_asked_for(nano_tokenizer, nano_teacher, nano_recon):
    ((scene,),) = make_scenes(nano_teacher, nano_tokenizer, [10_000], settings=SETTINGS)
    model, cache = initial_recon(nano_recon, 0).eval(), EncodeCache()
    arguments = {"keep": 1.0, "fusion": True, "cache": cache}
    joined = decode_views(model, nano_tokenizer, scene, [5, 0, 1], **arguments)
    each = len(joined) // 3
    far = joined.means[:each].reshape(9, -1, 3)  # of view 5, whose camera circles and comes back
    assert torch.allclose(far[0].mean(0), far[8].mean(0), atol=0.02)
    apart = decode_views(model, nano_tokenizer, scene, [5, 0, 1], **(arguments | {"fusion": False}))
    alone = decode_views(model, nano_tokenizer, scene, [0], **arguments)
    assert torch.equal(apart.means[each : 2 * each], alone.means)


def test_a_summary_leaves_out_frames_without_a_number():
    scenes = [{"x psnr": torch.tensor([20.0, torch.nan])}, {"x psnr": torch.tensor([30.0, 40.0])}]
    mean, spread = summary(scenes)["x psnr"]
    assert mean == pytest.approx(27.5) and spread == pytest.approx(10.6066, abs=1e-3)
    pooled = -10 * math.log10((1e-3 + 1e-4) / 2)
    assert summary(scenes)["x psnr_pooled"][0] == pytest.approx((20 + pooled) / 2)
    assert markdown("t", {"row one psnr": (1.0, 0.5), "row two ssim": (0.5, 0.0)})[2:] == [
        "| row | psnr | ssim |",
        "|---|---|---|",
        "| row one | 1.000 ± 0.500 |  |",
        "| row two |  | 0.500 ± 0.000 |",
        "",
    ]
