import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lyra_pack.comfyui_lyra.files.scenes.sdg import load_sdg
from lyra_pack.comfyui_lyra.gen3c import team as module
from lyra_pack.comfyui_lyra.gen3c.team import ALONE, Team, best_size, joined, own_device

HERE = Path(__file__).resolve().parent
PROGRAM = """
import sys
sys.path[:0] = [{tests!r}, {here!r}]
import conftest
from test_team import film
film(sys.argv[1])
"""


def film(out: str, names: tuple[str, ...] = ("two", "one")) -> None:
    """Two paths, guided and with a step cache, then one, by whoever is in the team; stopped and gone on with."""
    from lyra_pack.comfyui_lyra.bench.modes import random_tokenizer, randomly
    from lyra_pack.comfyui_lyra.bench.warp import benchmark_geometry
    from lyra_pack.comfyui_lyra.configs import TeacherConfig, TokenizerConfig
    from lyra_pack.comfyui_lyra.files.scenes.sdg_writer import PathStore
    from lyra_pack.comfyui_lyra.gen3c.generate import GenerateSettings, generate
    from lyra_pack.comfyui_lyra.pipeline import paths_for

    torch.manual_seed(0)
    size = {"trained_size": (32, 48), "trained_frames": 9}
    config = TeacherConfig(heads=2, head_dim=16, blocks=2, adaln_rank=8, text_dim=12, text_rows=5, **size)
    teacher = randomly(config, torch.device("cpu"))
    tokenizer = random_tokenizer(TokenizerConfig(channels=8, multipliers=(1, 2, 2), layers=1), config)
    geometry = benchmark_geometry(1, 32, 48).normalized("auto")
    paths = paths_for(geometry, config)
    settings = GenerateSettings(steps=3, step_cache=0.01, guidance_range=(0.01, 100.0))
    for name, count in zip(names, (2, 1), strict=True):
        with joined(count, guided=True) as team:
            store = PathStore(Path(out) / name, "clip", writer=team.rank)
            seen: list[tuple[int, int]] = []
            made = generate(
                teacher, tokenizer, geometry, paths[:count], settings=settings, store=store, team=team,
                on_step=lambda done, total, seen=seen: seen.append((done, total)),
            )  # fmt: skip
            assert seen[-1] == (3 * count, 3 * count) and seen == sorted(seen)  # whoever made the last path
            assert len(made.cameras) == count == len(made.latents.values)
            again = generate(teacher, tokenizer, geometry, paths[:count], settings=settings, store=store, team=team)
            assert torch.equal(made.latents.values, again.latents.values)
            sys.stdout.write(f"{name} {team.size} {team.rank}\n")
        os.environ["MASTER_PORT"] = str(int(os.environ.get("MASTER_PORT", 0)) + 1)


def free_ports() -> int:
    """A port that is free, and the next one too."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            try:
                two.bind(("127.0.0.1", one.getsockname()[1] + 1))
            except OSError:
                continue
            return one.getsockname()[1]


@pytest.mark.slow
def test_two_processes_make_what_one_makes_by_paths_and_by_branches(tmp_path, monkeypatch):
    program = PROGRAM.format(here=str(HERE), tests=str(HERE.parents[1]))
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports()), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "two")], env=os.environ | told | {"RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in running:
        out, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
        assert "two 1 " in out and "one 2 " in out  # a path each, then a branch each
    film(str(tmp_path / "alone"))
    for name in ("two", "one"):
        alone, two = (load_sdg(tmp_path / who / name) for who in ("alone", "two"))
        torch.testing.assert_close(two.latents.values, alone.latents.values, rtol=0, atol=0)
        assert [c.name for c in two.cameras] == [c.name for c in alone.cameras]
        assert not list(tmp_path.rglob("*.unfinished"))


@pytest.mark.parametrize(
    ("paths", "members", "guided", "size"),
    [(6, 1, True, 1), (6, 2, True, 1), (6, 4, True, 2), (6, 4, False, 1), (6, 8, True, 1), (6, 12, True, 2),
     (1, 2, True, 2), (3, 2, True, 2), (0, 4, True, 1)],
)  # fmt: skip
def test_pairs_stand_together_where_they_end_sooner(paths, members, guided, size):
    assert best_size(paths, members, guided) == size


def test_every_path_is_filmed_once_and_stored_once():
    for count, size in ((2, 1), (3, 1), (4, 2), (5, 2)):
        members = [Team(rank, count, size) for rank in range(count)]
        for number in range(6):
            films = [team for team in members if team.films(number)]
            assert len(films) == size and sum(team.stores for team in films) == 1


def test_alone_there_is_nobody_to_wait_for(monkeypatch):
    for name in module.NAMES:
        monkeypatch.delenv(name, raising=False)
    with joined(6, guided=True) as team:
        assert team == ALONE and team.films(5) and team.stores
        team.wait()


def test_a_member_takes_the_card_of_its_number(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert own_device(torch.device("cuda", 0)) == torch.device("cuda", 0)  # named by a person
    assert own_device(torch.device("cpu")) == torch.device("cpu")
