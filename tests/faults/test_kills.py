"""Killed at random moments, a program leaves whole files, and the next start makes the rest, equal in all."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed.py")
KILLS = {"six_paths": 5, "training": 3, "ply": 6, "sequence": 6}  # and five times as many with --long


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("job", KILLS)
def test_after_kills_at_random_moments_the_next_start_completes_with_equal_contents(job, tmp_path, long):
    seed, kills = random.SystemRandom().randrange(1 << 16), KILLS[job] * (5 if long else 1)
    words = [sys.executable, str(PROGRAM), job, str(tmp_path), str(seed), str(kills)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, cwd=tmp_path)
    print(done.stdout, done.stderr)  # noqa: T201  (the figures, and the seed of a failure)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    assert f"{job}: seed {seed}" in done.stdout
