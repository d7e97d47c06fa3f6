import pytest

from experiments import bench


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--row", "clean/uetz"], "--row clean/uetz"),
        (["--rung", "uetz"], "--rung uetz: "),
        (["--trials", "0"], "--trials"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_bad_input_ends_in_one_line(words, said, capsys, tmp_path):
    assert bench.main([*words, "--runs", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: error: ")
    assert said in error
    assert error.count("\n") == 1


def test_data_that_is_missing_is_named(capsys, tmp_path):
    words = ["--only", "clean", "--out", str(tmp_path / "results")]
    words += ["--runs", str(tmp_path), "--data-dir", str(tmp_path)]
    assert bench.main(words) == 2
    assert "--data-dir" in capsys.readouterr().err
