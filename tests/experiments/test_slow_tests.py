import pytest

from experiments import slow_tests
from experiments.records import read_record
from experiments.slow_tests import Case, cases, main, rows

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a.test_b" name="one[x]" time="1.5"/>
<testcase classname="tests.a.test_b" name="2" time="2"><failure>no</failure></testcase>
<testcase classname="tests.test_c" name="one" time="0"><skipped>so</skipped></testcase>
</testsuite></testsuites>"""


def test_a_report_is_read_case_by_case():
    assert cases(REPORT) == [
        Case("tests/a/test_b.py", "passed", 1.5),
        Case("tests/a/test_b.py", "failed", 2.0),
        Case("tests/test_c.py", "skipped", 0.0),
    ]


def test_there_is_a_row_for_each_file():
    first, second = rows(cases(REPORT))
    assert first["file"] == "tests/a/test_b.py"
    assert (first["tests"], first["passed"], first["failed"]) == (2, 1, 1)
    assert first["seconds"] == pytest.approx(3.5)
    assert second["skipped"] == 1


def test_a_failed_test_is_recorded_and_ends_with_1(monkeypatch, tmp_path):
    def ran(words):
        assert words[:2] == ["-m", "slow"]
        path = words[-1].removeprefix("--junitxml=")
        with open(path, "w") as file:
            file.write(REPORT)

    monkeypatch.setattr(slow_tests, "start", ran)
    assert main(["--out", str(tmp_path)]) == 1
    assert len(read_record("foundation.slow_tests", tmp_path)["rows"]) == 2


def test_without_a_report_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(slow_tests, "start", lambda words: None)
    assert main(["--out", str(tmp_path)]) == 2
    assert "pytest ended before it ran a test" in capsys.readouterr().err
