"""The example of a SLURM array is a program that bash takes, and its command is one that ``lyra`` takes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from lyra_pack.comfyui_lyra.cli import parser
from lyra_pack.comfyui_lyra.cli.scale import shard_for

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "sdg.slurm.sh"
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None or os.name == "nt", reason="needs bash")


def run(folder, *words, **more):
    """What the script would have started, and how it ended: ``lyra`` writes its words down, one a line."""
    lyra = folder / "lyra"
    lyra.write_text(f'#!{BASH}\nprintf "%s\\n" "$@"; echo "$OMP_NUM_THREADS" >&2\n')
    lyra.chmod(0o755)
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | more
    return subprocess.run([BASH, str(SCRIPT), *words], env=environment, capture_output=True, text=True)


def test_the_script_is_bash():
    assert subprocess.run([BASH, "-n", str(SCRIPT)]).returncode == 0
    told = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    assert all(line.split()[1].startswith("--") for line in told) and any("--array=" in line for line in told)


def test_every_task_starts_a_command_with_a_shard_of_its_own(tmp_path, monkeypatch):
    seen = []
    for task in range(4):
        array = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in {"ID": task, "MIN": 0, "COUNT": 4}.items()}
        done = run(tmp_path, "/shared/some scenes", "10-29", "/models", **array, SLURM_CPUS_PER_TASK="3")
        assert done.returncode == 0 and done.stderr == "3\n"
        options = parser().parse_args(done.stdout.splitlines())
        assert options.verb == "sdg" and str(options.out) == "/shared/some scenes" and options.mode == "exact"
        with monkeypatch.context() as patch:
            for name, value in array.items():
                patch.setenv(name, value)
            seen += shard_for(options).of(options.seeds)
    assert sorted(seen) == list(range(10, 30))


def test_a_mode_may_be_named(tmp_path):
    done = run(tmp_path, "/shared/scenes", "10-29", "/models", "fast")
    assert parser().parse_args(done.stdout.splitlines()).mode == "fast"


def test_a_word_that_is_missing_is_asked_for(tmp_path):
    done = run(tmp_path, "/shared/scenes")
    assert done.returncode and "which seeds" in done.stderr
