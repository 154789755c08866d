"""The list of work at its real length, and what becomes of items that cannot be made."""

import time

from lyra_pack.comfyui_lyra.cli.scale import stretches
from lyra_pack.comfyui_lyra.cli.training_verbs import seeds
from lyra_pack.comfyui_lyra.files.places import Place
from lyra_pack.comfyui_lyra.scale.shards import Shard
from lyra_pack.comfyui_lyra.scale.work import IN_A_ROW, make_here, missing
from lyra_pack.comfyui_lyra.training.data.sdg_disk import KINDS, SUFFIXES, finished


class Numbers:
    """A job that fails for odd numbers, or for all."""

    def __init__(self, out, bad=lambda number: number % 2):
        self.out, self.bad, self.made = out, bad, []

    def place(self):
        return Place.of(self.out)

    def left(self):
        return [str(i) for i in range(4)]

    def briefed(self):
        return self

    def maker(self, device):
        def make(name):
            if self.bad(int(name)):
                raise OSError(f"no {name}")
            self.made.append(name)

        return make


def test_what_cannot_be_made_is_set_aside_with_its_error(tmp_path):
    job = Numbers(tmp_path / "out")
    outcome = make_here(job, job.left(), "cpu")
    assert job.made == ["0", "2"] and outcome.made == 2 and sorted(outcome.failed) == ["1", "3"]
    notes = tmp_path / "out.lyra" / "failed"
    assert (notes / "1.txt").read_text().startswith("OSError: no 1\nTraceback")
    job.bad = lambda number: False
    assert make_here(job, ["1"], "cpu").made == 1
    assert [file.name for file in notes.iterdir()] == ["3.txt"]


def test_where_nothing_can_be_made_the_rest_is_not_tried(tmp_path):
    job = Numbers(tmp_path / "out", bad=lambda number: True)
    outcome = make_here(job, [str(i) for i in range(100)], "cpu")
    assert outcome.is_hopeless and len(outcome.failed) == IN_A_ROW


def test_a_million_scenes_start_within_two_seconds():
    start = time.process_time()
    shard = Shard(index=3, count=8).of(seeds("0-999999"))
    first = next(missing(map(str, shard), {"3"}))
    assert first == "11" and time.process_time() - start < 2


def lay_out(out, count):
    """Empty files of as many scenes; the folders."""
    folders = {out / str(view) / kind: SUFFIXES[kind] for view in range(6) for kind in KINDS}
    for folder, suffix in folders.items():
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.{suffix}").touch()
    return folders


def test_a_scene_that_lacks_any_file_is_not_finished(tmp_path):
    folders = lay_out(tmp_path / "out", 40)
    for number, (folder, suffix) in enumerate(folders.items()):
        (folder / f"{number}.{suffix}").rename(folder / f"{number}")  # a name alone is no file of a scene
        (folder / f"half.{suffix}.tmp").touch()
    place = Place.of(tmp_path / "out")
    assert finished(place) == {str(number) for number in range(len(folders), 40)}
    assert finished(place, moving=True) == finished(Place.of(tmp_path / "none")) == set()
    for file in list(folders)[3].iterdir():
        file.unlink()
    assert finished(place) == set()


def test_many_finished_scenes_are_listed_within_seconds(tmp_path, long):
    count = 100_000 if long else 300
    lay_out(tmp_path / "out", count)
    start = time.process_time()
    assert len(finished(Place.of(tmp_path / "out"))) == count
    assert time.process_time() - start < 5


def test_numbers_are_written_as_they_are_read():
    for text in ("0-3", "5", "1,3,5-9", "7-8"):
        assert ",".join(stretches(seeds(text))) == text
    assert list(stretches([])) == []
