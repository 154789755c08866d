"""The two commands of run.py, up to where they would install something."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[1] / "run.py"


@pytest.mark.parametrize("words", [[], ["destroy"]])
def test_without_a_known_command_it_says_how_it_is_used(words):
    told = subprocess.run([sys.executable, str(RUN), *words], capture_output=True, text=True)
    assert told.returncode == 1
    assert "usage: python run.py {demo,test}" in told.stderr


def test_an_old_python_gets_as_far_as_being_told_so():
    tree = ast.parse(RUN.read_text(encoding="utf-8"), feature_version=(3, 7))
    arguments = [argument for node in ast.walk(tree) if isinstance(node, ast.arguments) for argument in every(node)]
    evaluated = [argument.annotation for argument in arguments if argument.annotation]
    assert evaluated
    assert not [ast.unparse(a) for a in evaluated if any(isinstance(n, ast.BinOp) for n in ast.walk(a))]


def every(node: ast.arguments) -> list[ast.arg]:
    return [*node.args, *node.kwonlyargs, *filter(None, (node.vararg, node.kwarg))]
