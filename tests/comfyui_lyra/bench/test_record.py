import json
from datetime import date

import pytest
from lyra_pack.comfyui_lyra.bench import record
from lyra_pack.comfyui_lyra.cli import main
from lyra_pack.comfyui_lyra.versions import pack_version

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_table_is_appended_with_date_command_machine_and_commit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lyra_pack.comfyui_lyra.bench.rows", lambda what, device: iter(["| s |", "|---|", "| 1 |"]))
    file = tmp_path / "benchmarks.md"
    file.write_text("# Benchmarks\n\nold\n")
    assert main(["bench", "ply", "--device", "cpu", "--append", str(file)]) == 0
    assert "| 1 |" in capsys.readouterr().out
    before, section = file.read_text().split("\n## ")
    assert before == "# Benchmarks\n\nold\n"
    title, _, machine, *rest = section.splitlines()
    assert title == f"{date.today()}, `lyra bench ply`"
    assert machine.startswith("CPU, ") and f"pack {pack_version()} at " in machine
    assert rest == ["", "| s |", "|---|", "| 1 |"]


def test_nothing_is_measured_for_a_file_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lyra_pack.comfyui_lyra.bench.rows", lambda what, device: pytest.fail("measured"))
    assert main(["bench", "ply", "--device", "cpu", "--append", str(tmp_path / "none.md")]) == 1
    assert "none.md: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["loose", "packed", "detached", "second tree"])
def test_the_commit_is_read_from_gits_own_files(tmp_path, where):
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text(f"{COMMIT}\n" if where == "detached" else "ref: refs/heads/main\n")
    if where == "packed":
        (git / "packed-refs").write_text(f"# pack-refs\n{'f' * 40} refs/heads/other/main\n{COMMIT} refs/heads/main\n")
    else:
        (git / "refs" / "heads" / "main").write_text(f"{COMMIT}\n")
    checkout = tmp_path
    if where == "second tree":
        tree = git / "worktrees" / "two"
        tree.mkdir(parents=True)
        (tree / "HEAD").write_text("ref: refs/heads/main\n")
        (tree / "commondir").write_text("../..\n")
        checkout = tmp_path / "two"
        checkout.mkdir()
        (checkout / ".git").write_text(f"gitdir: {tree}\n")
    assert record.commit(checkout) == COMMIT[:7]


def test_without_git_there_is_no_commit(tmp_path):
    assert record.commit(tmp_path) == ""


def test_a_run_is_a_line_of_json(tmp_path, monkeypatch):
    lines = ["| what | s |", "|---|---|", "| ply | 1.5 |", "| again | - |"]
    monkeypatch.setattr("lyra_pack.comfyui_lyra.bench.rows", lambda what, device: iter(lines))
    file = tmp_path / "runs.jsonl"
    for _ in range(2):
        assert main(["bench", "ply", "--device", "cpu", "--json", str(file)]) == 0
    one, two = (json.loads(line) for line in file.read_text().splitlines())
    assert one == two and one["rows"] == [{"what": "ply", "s": "1.5"}, {"what": "again", "s": "-"}]
    assert one["command"] == "lyra bench ply" and one["machine"].startswith("CPU, ")


def test_each_row_has_the_columns_of_its_own_table_and_sentences_are_notes(tmp_path, monkeypatch):
    lines = ["9 splats", "", "| part | ms |", "|---|---|", "| Adam | 1.5 |", "| - | a | b |", "",
             "| run | steps | s |", "|---|---|---|", "| plain | 10 | 2 |", "over"]  # fmt: skip
    monkeypatch.setattr("lyra_pack.comfyui_lyra.bench.rows", lambda what, device: iter(lines))
    file = tmp_path / "runs.jsonl"
    assert main(["bench", "refine", "--device", "cpu", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["notes"] == ["9 splats", "over"]
    assert found["rows"] == [
        {"part": "Adam", "ms": "1.5"}, {"part": "-", "ms": "a | b"}, {"run": "plain", "steps": "10", "s": "2"},
    ]  # fmt: skip


def test_a_run_that_is_ended_leaves_the_rows_it_has(tmp_path, monkeypatch):
    def stopped(what, device):
        yield from ["| what | s |", "|---|---|", "| ply | 1.5 |"]
        raise ValueError("ended")

    file = tmp_path / "runs.jsonl"
    file.write_text("{}\n")
    monkeypatch.setattr("lyra_pack.comfyui_lyra.bench.rows", stopped)
    assert main(["bench", "ply", "--device", "cpu", "--json", str(file)]) == 1
    before, ours = (json.loads(line) for line in file.read_text().splitlines())
    assert before == {} and ours["rows"] == [{"what": "ply", "s": "1.5"}]


def test_files_of_modes_are_refused_elsewhere(capsys):
    assert main(["bench", "ply", "--device", "cpu", "--teacher", "x.safetensors"]) == 1
    assert "--teacher: of 'lyra bench modes' and 'lyra bench scene' alone" in capsys.readouterr().err
