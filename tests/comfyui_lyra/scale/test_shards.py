import pytest
from lyra_pack.comfyui_lyra.scale.shards import Shard, shard_of


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def test_shards_make_everything_once(count):
    items = range(20)
    made = [item for index in range(count) for item in Shard(index=index, count=count).of(items)]
    assert sorted(made) == list(items)


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "a/b", "0/0", "1/2/3"])
def test_a_shard_that_cannot_be_is_refused(text):
    with pytest.raises(ValueError, match="shard"):
        Shard.parse(text)


def slurm(task, first=0, count=4, step=1):
    names = {"ID": task, "MIN": first, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in names.items()}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, "0/1"),
        (slurm(3), "3/4"),
        (slurm(1, first=1), "0/4"),
        (slurm(6, step=2), "3/4"),
        ({"JOB_COMPLETION_INDEX": "5", "JOB_COMPLETIONS": "8"}, "5/8"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "1/2"),
        (slurm(3) | {"RANK": "1", "WORLD_SIZE": "2"}, "7/8"),  # two processes in each task of an array
    ],
)
def test_what_started_the_process_says_its_shard(environment, shard):
    assert str(shard_of(environment)) == shard


@pytest.mark.parametrize(
    ("environment", "problem"),
    [({"JOB_COMPLETION_INDEX": "5"}, "set JOB_COMPLETIONS"), (slurm(7, count=3), "task 7 is none of 3")],
)
def test_half_of_what_is_needed_is_refused(environment, problem):
    with pytest.raises(ValueError, match=problem):
        shard_of(environment)


def test_a_shard_stays_the_same_while_others_finish():
    assert list(Shard(index=1, count=2).of(range(6))) == [1, 3, 5]
