import pytest

from experiments import meta_gate, optimizer_compare
from experiments.meta_optimizer import main, parser


def test_nothing_to_do_is_one_line(capsys):
    assert main([]) == 2
    said = capsys.readouterr().err
    assert "--meta-train" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("flag", ["--trials", "--workers", "--scale"])
def test_numbers_are_checked(flag, capsys):
    assert main(["--compare", flag, "0"]) == 2
    assert flag in capsys.readouterr().err


def test_meta_training_comes_before_the_comparison(monkeypatch):
    called = []
    monkeypatch.setattr(meta_gate, "run", lambda given, said: called.append(said))
    compare = lambda given, words, said: called.append(words)
    monkeypatch.setattr(optimizer_compare, "run", compare)
    words = ["--meta-train", "--compare", "--minutes", "30"]
    assert main(words) == 0
    line = "python -m experiments.meta_optimizer --meta-train --compare --minutes 30"
    assert called == [line, words]


def test_a_worker_does_not_meta_train(monkeypatch):
    called = []
    monkeypatch.setattr(meta_gate, "run", lambda *given: called.append("train"))
    monkeypatch.setattr(optimizer_compare, "run", lambda *given: called.append("run"))
    assert main(["--meta-train", "--compare", "--worker", "0"]) == 0
    assert called == ["run"]


def test_every_table_can_be_asked_for():
    for name in optimizer_compare.TABLES:
        assert parser().parse_args(["--compare", "--only", name]).only == [name]
