import json

from experiments import quickstart


def test_the_script_trains_and_leaves_a_report(corpus, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--out", str(out), "--source", f"files:{corpus}/*.txt"]
    assert quickstart.main([*words, "--steps", "2", "--size", "tiny"]) == 0
    assert (out / "report.html").exists()
    assert json.loads((out / "summary.json").read_text())["steps"] == 2
    assert "bits per byte" in capsys.readouterr().out


def test_bad_input_is_one_line(tmp_path, capsys):
    words = ["--out", str(tmp_path / "run"), "--source", "files:nothing/*.txt"]
    assert quickstart.main(words) == 2
    assert capsys.readouterr().err.startswith("quickstart: error: ")
