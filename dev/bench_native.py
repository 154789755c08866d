"""GEN3C as a MODEL on a GPU, inside ComfyUI's Python: ``python dev/bench_native.py COMFYUI_DIR [--mini] [--steps N]``.

Writes a Markdown table for dev/benchmarks.md, each row as soon as it is known, to the terminal and to native.md below
--work: a pass, KSampler, the loop of Generate Latents, a LoRA, quantised weights, and the same with 12 and 8 GiB free.
Begins no row after --seconds. Weights are random, of the released size. The file takes 14.5 GB below --work, each
quantised one half of that. ``--mini`` measures the shipped small model, to see that it runs.
ComfyUI's paging of weights, which its main.py switches on, is off here: what does not fit streams layer by layer.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30
HEAD = "| what | free | s a pass | GiB at the peak | batch | off KSampler |\n|---|---|---|---|---|---|"


def bind() -> None:
    """The pack under its name outside of ComfyUI."""
    spec = importlib.util.spec_from_file_location("lyra_pack", ROOT / "__init__.py")
    pack = sys.modules["lyra_pack"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)


@dataclass
class Teachers:
    """A teacher on disk and in RAM, plain and quantised; each is made and read once, when a row wants it."""

    work: Path
    mini: bool
    read: dict[str, tuple] = field(default_factory=dict)

    def file(self, kind: str) -> Path:
        """The shipped one, or random weights of the released size; of kind bf16, fp8 or int8."""
        import torch
        from lyra_pack.comfyui_lyra.bench.teacher import random_teacher
        from lyra_pack.comfyui_lyra.configs import TEACHER_PRESETS
        from lyra_pack.comfyui_lyra.gen3c.load import Teacher, save_teacher
        from lyra_pack.comfyui_lyra.released.convert import convert_weights

        if kind == "bf16" and self.mini:
            return ROOT / "comfyui_lyra" / "mini" / "mini_teacher.safetensors"
        file = self.work / f"{'mini' if self.mini else 'random'}_{kind}.safetensors"
        if file.is_file():
            return file
        part = file.with_suffix(".part")  # a run that is killed leaves no half a file behind
        if kind == "bf16":
            config = TEACHER_PRESETS["gen3c"]
            network = random_teacher(config, torch.device("cuda"))
            save_teacher(Teacher(network=network, config=config, fingerprint="", dtype=torch.bfloat16), part)
        else:
            convert_weights(self.file("bf16"), part, quant=kind)
        return part.rename(file)

    def __call__(self, kind: str) -> tuple:
        """Load Teacher's two outputs."""
        import torch
        from lyra_pack.nodes.models.teacher import load

        if kind not in self.read:
            file = self.file(kind)
            self.read[kind] = load(file.name, file, torch.bfloat16, "auto", False)
        return self.read[kind]

    @cached_property
    def shown(self) -> tuple:
        """Random latents of a picture and of what is known along a path, of the teacher's size."""
        import torch

        shape, generator = self("bf16")[0].config.latent_shape[1:], torch.Generator().manual_seed(0)
        first = torch.randn(1, 16, 1, *shape[1:], generator=generator)
        return first, torch.randn(1, 64, *shape, generator=generator)


def with_lora(model):
    """The model with a random LoRA of rank 16 on the queries of every block."""
    import comfy.sd
    import torch

    lora, generator = {}, torch.Generator().manual_seed(0)
    for name, module in model.model.diffusion_model.named_modules():
        if name.endswith("to_q.0"):
            layer = f"diffusion_model.{name}"
            lora[f"{layer}.lora_A.weight"] = torch.randn(16, module.in_features, generator=generator) / 16
            lora[f"{layer}.lora_B.weight"] = torch.randn(module.out_features, 16, generator=generator) / 16
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]


def ksampler(teachers: Teachers, model, steps: int, guidance: float = 1.0):
    """Clip [1, 16, T, h, w] of core's KSampler: two passes a step with guidance, else one."""
    import comfy.sample
    import torch
    from lyra_pack.comfyui_lyra.gen3c.text import zero_text
    from lyra_pack.nodes.native.conditioning import conditioning

    config = model.model.teacher_config
    positive, negative = conditioning(zero_text(config), *teachers.shown, config)
    latent = torch.zeros(1, *config.latent_shape)
    noise = comfy.sample.prepare_noise(latent, 1)
    return comfy.sample.sample(
        model, noise, steps, 1 + guidance, "euler", "karras", positive, negative, latent, seed=1, disable_pbar=True
    )


def generate(teachers: Teachers, teacher, steps: int, guidance: float = 1.0):
    """The same clip by the loop of Generate Latents, with the room that the node asks for."""
    from lyra_pack.comfyui_lyra.configs import TokenizerConfig
    from lyra_pack.comfyui_lyra.cost.report import generate_bytes
    from lyra_pack.comfyui_lyra.gen3c import sampler
    from lyra_pack.comfyui_lyra.gen3c.text import zero_text
    from lyra_pack.nodes.comfy import devices

    config, device = teacher.config, devices.compute_device()
    devices.load(teacher, size=teacher.room(generate_bytes(config, TokenizerConfig(), 1, False, teacher.dtype)))
    text, shape = zero_text(config), (1, *config.latent_shape)
    conditions = sampler.Conditions(
        **{name: given.to(device) for name, given in zip(("first", "warps"), teachers.shown, strict=True)},
        text=text.prompt.to(device), negative=text.negative.to(device),
    )  # fmt: skip
    noise, on_first = sampler.initial_noise(shape, 1).to(device), sampler.condition_noise(shape, 1).to(device)
    made = sampler.sample(
        teacher.teacher.network, conditions, noise, on_first, steps=steps, guidance=guidance,
        dtype=teacher.teacher.dtype,
    )  # fmt: skip
    return made.cpu()


def one_pass(teachers: Teachers, teacher, _steps: int, **_guidance: float) -> None:
    """The network once."""
    import comfy.model_management as management
    import torch

    management.load_models_gpu([teacher.patcher])
    config, device = teacher.config, management.get_torch_device()
    x = torch.zeros(1, 81, *config.latent_shape[1:], device=device, dtype=torch.bfloat16)
    text = torch.zeros(1, config.text_rows, config.text_dim, device=device, dtype=torch.bfloat16)
    teacher.teacher.network(x, torch.zeros(1, device=device), text)


Row = tuple[str, int | None, int, Callable[[], tuple]]  # what, GiB free, passes a step, what makes (a call, a module)


def rows(teachers: Teachers) -> Iterator[Row]:
    """What is measured, the most wanted first."""
    import torch

    def ours(work):
        teacher = teachers("bf16")[0]
        return partial(work, teachers, teacher), teacher.patcher.model.diffusion_model

    def sampled(kind, lora=False):
        model = teachers(kind)[1]
        return partial(ksampler, teachers, with_lora(model) if lora else model), model.model.diffusion_model

    yield "pass", None, 0, partial(ours, one_pass)
    yield "KSampler, bf16", None, 2, partial(sampled, "bf16")
    yield "Generate Latents' loop", None, 2, partial(ours, generate)
    for free in (None, 12, 8) if torch.cuda.is_available() else (None,):
        if free:
            yield "KSampler, bf16", free, 2, partial(sampled, "bf16")
            yield "Generate Latents' loop", free, 2, partial(ours, generate)
        yield "KSampler, LoRA", free, 2, partial(sampled, "bf16", lora=True)
        yield "KSampler, fp8", free, 2, partial(sampled, "fp8")
        yield "KSampler, int8", free, 2, partial(sampled, "int8")


def measured(row: Row, steps: int, reference: list) -> str:
    """The row's figures: the second of two calls. ``reference`` holds KSampler's clip, to compare with."""
    import comfy.model_management as management
    import torch

    what, free, passes, make = row
    call, network = make()
    management.unload_all_models()
    management.soft_empty_cache()
    gpu, filler, batches = torch.cuda.is_available(), None, []
    if free and gpu:
        filler = torch.empty(max(0, torch.cuda.mem_get_info()[0] - free * GIB), dtype=torch.uint8, device="cuda")
    handle = network.register_forward_pre_hook(lambda _, given: batches.append(len(given[0])))
    try:
        call(2, guidance=0.0)  # brings the weights, compiles and proves kernels
        if gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        clip = call(steps)
        if gpu:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / (passes * steps or 1)
    finally:
        handle.remove()
    beside = 0 if filler is None else filler.numel()
    peak = f"{(torch.cuda.max_memory_allocated() - beside) / GIB:.1f}" if gpu else "-"
    if what == "KSampler, bf16" and not reference:
        reference.append(clip)
    off = "-"
    if clip is not None and reference:
        off = f"{((clip - reference[0])[:, :, 1:].norm() / reference[0][:, :, 1:].norm()):.2g}"
    return f"| {what} | {f'{free} GiB' if free else 'all'} | {seconds:.3g} | {peak} | {max(batches)} | {off} |"


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--mini", action="store_true", help="the shipped small teacher")
    parser.add_argument("--steps", type=int, default=2, help="of a measured clip, two at least; two more warm up")
    parser.add_argument("--work", type=Path, default=Path("native-bench"), help="where files and native.md lie")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="WORD", help="rows that name one of these, as fp8 or 12"
    )
    parser.add_argument("--seconds", type=float, default=480, help="begin no row after these")
    given = parser.parse_args()
    begin = time.perf_counter()
    sys.argv = sys.argv[:1]  # ComfyUI reads them too
    sys.path.insert(0, str(given.comfyui.resolve()))
    importlib.import_module("cuda_malloc")  # as main.py does before torch: the allocator decides how full a card gets
    bind()
    import torch
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    from lyra_pack.nodes.native.model import register

    register()
    given.work.mkdir(exist_ok=True, parents=True)
    reference: list = []
    with (given.work / "native.md").open("a", encoding="utf-8") as table, torch.inference_mode():

        def tell(line: str) -> None:
            for out in (sys.stdout, table):
                out.write(line + "\n")
                out.flush()  # a run that is killed has told what it knew

        tell(HEAD)
        for row in rows(Teachers(given.work, given.mini)):
            what, free, *_ = row
            if given.only and not any(word in f"{what} {free or 'all'}" for word in given.only):
                continue
            if time.perf_counter() - begin > given.seconds:
                tell(f"| {what} | {free or 'all'} | not begun after {given.seconds:g} s | | | |")
                continue
            try:
                tell(measured(row, given.steps, reference))
            except Exception as error:  # of one row: the others are wanted all the same
                tell(
                    f"| {what} | {free or 'all'} | {type(error).__name__}: {' '.join(str(error).split())[:200]} | | | |"
                )


if __name__ == "__main__":
    main()
