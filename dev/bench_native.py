"""GEN3C as a MODEL on a GPU, inside ComfyUI's Python: ``python dev/bench_native.py COMFYUI_DIR [--mini] [--steps N]``.

Prints a Markdown table for dev/benchmarks.md: a pass of both networks, then KSampler's with all of the memory and with
12 and 8 GiB free, in bfloat16, with a LoRA, and quantised. Weights are random, of the released size. The file takes
14.5 GB below --work, each quantised one half of that. ``--mini`` measures the shipped small model, to see that it runs.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30


def bind() -> None:
    """The pack under its name outside of ComfyUI."""
    spec = importlib.util.spec_from_file_location("lyra_pack", ROOT / "__init__.py")
    pack = sys.modules["lyra_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)


def teacher_file(work: Path, mini: bool) -> Path:
    """A teacher on disk: the shipped one, or random weights of the released size."""
    import torch
    from lyra_pack.comfyui_lyra.bench.teacher import random_teacher
    from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS
    from lyra_pack.comfyui_lyra.gen3c.load import Teacher, save_teacher

    if mini:
        return ROOT / "comfyui_lyra" / "mini" / "mini_teacher.safetensors"
    file, config = work / "random_gen3c.safetensors", TEACHER_PRESETS["gen3c"]
    if not file.is_file():
        network = random_teacher(config, torch.device("cuda"))
        save_teacher(Teacher(network=network, config=config, fingerprint="", dtype=torch.bfloat16), file)
    return file


def measured(call: Callable[[], object], passes: int) -> str:
    """Seconds a pass, and GiB at the peak, of the second of two calls."""
    import torch

    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else float("nan")
    return f"{(time.perf_counter() - start) / passes:.3g} | {peak:.1f}"


def lora_of(model, strength: float):
    """The model with a random LoRA of rank 16 on the queries of every block."""
    import comfy.sd
    import torch

    lora = {}
    for name, module in model.model.diffusion_model.named_modules():
        if name.endswith("to_q.0"):
            lora[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(16, module.in_features) / 16
            lora[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(module.out_features, 16) / 16
    return comfy.sd.load_lora_for_models(model, None, lora, strength, 0)[0]


def sampler(model, steps: int, cfg: float = 2.0) -> Callable[[], object]:
    """Core's KSampler on random conditions."""
    import comfy.sample
    import torch
    from lyra_pack.comfyui_lyra.gen3c.text import zero_text
    from lyra_pack.nodes.native.conditioning import conditioning

    config = model.model.teacher_config
    _, frames, height, width = config.latent_shape
    first, warps = torch.randn(1, 16, 1, height, width), torch.randn(1, 64, frames, height, width)
    positive, negative = conditioning(zero_text(config), first, warps, config)
    latent = torch.zeros(1, *config.latent_shape)
    noise = comfy.sample.prepare_noise(latent, 1)
    return lambda: comfy.sample.sample(
        model, noise, steps, cfg, "euler", "karras", positive, negative, latent, seed=1, disable_pbar=True
    )


def pass_rows(file: Path):
    """One pass of the shell's network, and of core's."""
    import comfy.model_management as management
    import torch
    from lyra_pack.nodes.models.teacher import load, teacher_of

    ours, model = load(file.name, file, torch.bfloat16, "auto", False)
    config, device = ours.config, management.get_torch_device()
    x = torch.randn(1, 81, *config.latent_shape[1:], device=device, dtype=torch.bfloat16)
    text = torch.zeros(1, config.text_rows, config.text_dim, device=device, dtype=torch.bfloat16)
    c_noise = torch.zeros(1, device=device)
    for name, teacher in (("shell's network", ours), ("core's, lean", teacher_of(model))):
        management.load_models_gpu([teacher.patcher])
        network = teacher.teacher.network
        yield f"| pass, {name} | all | {measured(lambda network=network: network(x, c_noise, text), 1)} |"
        management.unload_all_models()


def sampler_rows(files: dict[str, Path], steps: int):
    """KSampler by file and by free memory."""
    import comfy.model_management as management
    import torch
    from lyra_pack.nodes.models.teacher import load

    for free in (None, 12, 8) if torch.cuda.is_available() else (None,):
        filler = None
        if free:
            filler = torch.empty(int(torch.cuda.mem_get_info()[0] - free * GIB), dtype=torch.uint8, device="cuda")
        for name, file in files.items():
            _, model = load(file.name, file, torch.bfloat16, "auto", False)
            for label, given in ((name, model), *([(f"{name}, LoRA", lora_of(model, 1.0))] if name == "bf16" else [])):
                room = f"{free} GiB" if free else "all"
                yield f"| KSampler, {label} | {room} | {measured(sampler(given, steps), 2 * steps)} |"
                management.unload_all_models()
                management.soft_empty_cache()
        del filler
        management.soft_empty_cache()


def main() -> None:
    """Measure, and print each line as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--mini", action="store_true")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--work", type=Path, default=Path("native-bench"))
    given = parser.parse_args()
    sys.argv = sys.argv[:1]  # ComfyUI reads them too
    sys.path.insert(0, str(given.comfyui.resolve()))
    bind()
    import torch
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    from lyra_pack.comfyui_lyra.released.convert import convert_weights
    from lyra_pack.nodes.native.model import register

    register()
    given.work.mkdir(exist_ok=True)
    files = {"bf16": teacher_file(given.work, given.mini)}
    for quant in ("fp8", "int8"):
        files[quant] = given.work / f"{'mini' if given.mini else 'random'}_{quant}.safetensors"
        if not files[quant].is_file():
            convert_weights(files["bf16"], files[quant], quant=quant)
    out = sys.stdout.write
    out("| what | free | s a pass | GiB at the peak |\n|---|---|---|---|\n")
    with torch.inference_mode():
        for line in (*pass_rows(files["bf16"]), *sampler_rows(files, given.steps)):
            out(line + "\n")


if __name__ == "__main__":
    main()
