"""Killed at random moments, a program leaves whole files, and the next start makes the rest, equal in all."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed.py")
KILLS = {"six_paths": 5, "training": 3, "ply": 6, "sequence": 6}  # and five times as many with --long


@pytest.fixture(scope="module")
def told(tmp_path_factory, long) -> tuple[int, str, str]:
    """The seed, and what one program says of all jobs: it starts once, for that takes longer than a kill."""
    seed, place = random.SystemRandom().randrange(1 << 16), tmp_path_factory.mktemp("kills")
    jobs = [f"{job}={kills * (5 if long else 1)}" for job, kills in KILLS.items()]
    words, environment = [sys.executable, str(PROGRAM), str(place), str(seed), *jobs], {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, cwd=place)
    return seed, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("job", KILLS)
def test_after_kills_at_random_moments_the_next_start_completes_with_equal_contents(job, told):
    seed, figures, errors = told
    print(figures, errors)  # noqa: T201  (the figures, and the seed of a failure)
    assert f"{job}: seed {seed}, " in figures, f"seed {seed}: {errors[-3000:]}"
