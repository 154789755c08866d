"""What the shell command takes to make and measure the mini models. What the verbs do is in ``training``."""

import argparse
from pathlib import Path

from ..files.places import Place
from ..gen3c.generate import GenerateSettings
from ..training.evaluate import Evaluation
from ..training.stages import MINI_STAGES
from ..training.train_mini import SHARES
from ..training.train_recon import ReconTraining
from ..training.train_teacher import TeacherTraining
from ..training.train_tokenizer import TokenizerTraining
from ..training.world.draw_scenes import LENGTHS, SPLITS
from .fields import add_fields, numbers
from .scale_verbs import add_spreading
from .verbs import add_device, add_mode


def add_training_verbs(verbs: argparse._SubParsersAction) -> None:
    """Verbs in the order in which the mini models are made."""
    verb = verbs.add_parser("draw-scene", help="a procedural scene's picture or clip, with its depth")
    verb.add_argument("seed", type=int, help="of the scene; the models never saw 900000 to 900063")
    verb.add_argument("out", type=Path, help="folder for picture.png or clip.mp4, and the depth beside it")
    verb.add_argument("--moving", action="store_true", help="a clip of the scene in motion")
    verb.set_defaults(run="training.run_draw_scene")

    verb = verbs.add_parser("train-tokenizer", help="the mini tokenizer, on procedural scenes")
    add_run(verb, TokenizerTraining)
    add_beginning(verb, "tokenizer", TokenizerTraining)
    verb.set_defaults(run="training.run_train_tokenizer")

    verb = verbs.add_parser("train-teacher", help="the mini teacher, on procedural scenes")
    add_run(verb, TeacherTraining)
    add_mini(verb, "tokenizer")
    add_beginning(verb, "teacher", TeacherTraining)
    verb.set_defaults(run="training.run_train_teacher")

    verb = verbs.add_parser("sdg", help="scenes as the teacher makes them, as a folder to train from")
    verb.add_argument(
        "out",
        type=Place.of,
        help="folder or URL (s3://, gs://) in the SDG layout, with depth; whole scenes are kept",
    )
    verb.add_argument("--seeds", type=seeds, required=True, help=SEEDS)
    verb.add_argument("--moving", action="store_true", help="moving scenes, with time-flipped twins")
    verb.add_argument("--lengths", choices=LENGTHS, help="of the paths; by default they take turns")
    add_mini(verb, "tokenizer", "teacher")
    add_sampling(verb)
    add_mode(verb)
    add_device(verb)
    add_spreading(verb, "seeds")
    verb.set_defaults(run="scale.run_sdg")

    verb = verbs.add_parser("train-recon", help="the mini splat decoder, on what the teacher makes of scenes")
    add_run(verb, ReconTraining)
    add_mini(verb, "tokenizer", "teacher")
    verb.add_argument(
        "--stages", type=stages, default="m1,m2,m3,m4,m5",
        help=f"some of {','.join(MINI_STAGES)}, in order; static by default. m6,m7 are dynamic and go on from m4. "
        "m4:900,m5:1200 end at these steps, counted from the first stage",
    )  # fmt: skip
    verb.add_argument("--after", type=Path, help="folder of the run that ended with the stage before")
    verb.add_argument("--roots", nargs="+", default=[], help="scenes of 'lyra sdg': folders, tars, and URLs of both")
    verb.add_argument(
        "--pace", type=pace, default=ReconTraining.pace,
        help="factor on the stages' numbers of steps; 'time': they share the time",
    )  # fmt: skip
    add_fields(verb, ReconTraining, "batch")
    ablation = verb.add_argument_group("ablations")
    add_fields(ablation, ReconTraining, "fusion", "perceptual", "depth", "pruning", "data", "flipped", unset=True)
    ablation.add_argument("--all-attention", action="store_true", help="no Mamba-2 blocks")
    verb.set_defaults(run="training.run_train_recon")

    verb = verbs.add_parser("train-mini", help="all mini models one after another, as the shipped ones")
    verb.add_argument("out", type=Path, help="folder for a folder each")
    verb.add_argument("--parts", type=words, default=list(SHARES), help=f"some of {','.join(SHARES)}, in this order")
    verb.add_argument("--max-seconds", type=float, required=True, help="that the parts share")
    add_device(verb)
    verb.set_defaults(run="training.run_train_mini")

    verb = verbs.add_parser("evaluate", help="what the models are worth on scenes that none of them saw")
    verb.add_argument("out", type=Path, help="folder for evaluation.json and evaluation.md")
    add_mini(verb, "tokenizer", "teacher", "static", "dynamic")
    verb.add_argument("--only", choices=["static", "dynamic"], help="leave out the other splat decoder")
    verb.add_argument("--seeds", type=seeds, default=tuple(SPLITS["test"]), help=f"{SEEDS}; by default test")
    verb.add_argument("--lengths", choices=LENGTHS, help="of the paths; by default a table each")
    add_fields(verb, Evaluation, "stride", "views", "fusion", unset=True)
    add_sampling(verb)
    add_device(verb)
    verb.set_defaults(run="training.run_evaluate")


SEEDS = f"of scenes: numbers and stretches such as 10000-10063, or {', '.join(SPLITS)}"


def add_run(verb: argparse.ArgumentParser, training: type) -> None:
    """What every training run takes."""
    verb.add_argument("out", type=Path, help="folder for weights, checkpoints, log and pictures")
    verb.add_argument("--max-seconds", type=float, help="end in good order before so much time is over")
    verb.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    add_fields(verb, training, "seed")
    add_fields(verb, training, "scenes", unset=True)
    add_device(verb)


def add_beginning(verb: argparse.ArgumentParser, model: str, training: type) -> None:
    """Where a run begins and ends."""
    verb.add_argument("--init-from", type=Path, help=f"file of a {model} whose weights are trained on")
    add_fields(verb, training, "lr", "steps", unset=True)


def add_mini(verb: argparse.ArgumentParser, *models: str) -> None:
    """Files of models, those that come with the pack unless others are named."""
    for model in models:
        what = {"static": "static splat decoder", "dynamic": "dynamic splat decoder"}.get(model, model)
        verb.add_argument(f"--{model}", type=Path, help=f"file of the {what}; by default the mini one")


def add_sampling(verb: argparse.ArgumentParser) -> None:
    """How the teacher samples; by default as for the shipped splat decoders."""
    add_fields(verb, GenerateSettings, "steps", "guidance", unset=True, help="of the teacher's sampler")


def seeds(text: str) -> tuple[int, ...]:
    """Seeds of scenes: a split's name, or numbers and stretches."""
    if text in SPLITS:
        return tuple(SPLITS[text])
    return numbers(text)


def pace(text: str) -> float | None:
    """A factor on numbers of steps, or None for "time"."""
    return None if text == "time" else float(text)


def stages(text: str) -> list[tuple[str, int | None]]:
    """Stages between commas, each with the step after its colon, or None."""
    found = []
    for word in words(text):
        name, _, stop = word.partition(":")
        if stop and not stop.isdecimal():
            raise argparse.ArgumentTypeError(f"'{word}' is no stage with the step at which it ends, such as m4:900")
        found.append((name, int(stop) if stop else None))
    return found


def words(text: str) -> list[str]:
    """Words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
