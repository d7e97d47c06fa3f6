"""The report is whole, safe, small and says what is missing."""

import json
import math
import re
from html.parser import HTMLParser

import pytest

from uets_jax.config import ExperimentConfig, to_json
from uets_jax.errors import UserError
from uets_jax.report.blocks import TIMES
from uets_jax.report.html import write_report, write_reports

CONFIG = ExperimentConfig()
VOID = {"meta", "input", "br", "link", "img", "hr"}
EVIL = "<script>alert('x')</script>\"&\ud800\x00"
SUMMARY = {
    "name": "run",
    "final_loss": 2.75,
    "bits_per_byte": 1.625,
    "perplexity": 15.64,
    "unigram_bits_per_byte": 4.312,
    "tokens": 4096,
    "steps": 8,
    "params": 1_640_000,
    "flops": {"train": 9e9, "eval": 1e9},
    "seconds": {"compile": 5.0, "train": 15.0},
    "joules": None,
    "energy_source": None,
    "peak_memory_bytes": 2**29,
    "params_sha256": "ab" * 32,
    "data_sha256": "cd" * 32,
    "corpus_sha256": "12" * 32,
    "tokenizer_sha256": "34" * 32,
    "versions": {"jax": "0.10.2"},
    "commit": "83a22cf",
    "config_hash": "ef" * 32,
    "machine": {"devices": "cpu x 1"},
    "samples": [{"prompt": "The old", "text": " man said & went."}],
    "status": "completed",
}


def records(steps, scale=1.0, every=4):
    for step in range(1, steps + 1):
        cost = {"tokens": 512 * step, "flops": 1e9 * step, "seconds": 0.5 * step}
        loss = scale * (2 + 6 * math.exp(-step / 3) + 0.1 * math.sin(step))
        yield {
            "step": step,
            "loss": loss,
            "grad_norm": 1.0,
            "learning_rate": 0.01,
            **cost,
        }
        if step % every == 0:
            bits = {"bits_per_byte": loss / 2, "perplexity": math.exp(loss)}
            yield {"step": step, "valid_loss": loss, **bits, **cost}
            yield {"step": step, "event": "checkpoint", "detail": f"at {step}"}


@pytest.fixture
def make(tmp_path):
    """Writes a run directory; None leaves a file out."""

    def run(folder="run", config=CONFIG, lines=None, summary=SUMMARY):
        path = tmp_path / folder
        path.mkdir()
        if config is not None:
            (path / "config.json").write_text(to_json(config))
        if summary is not None:
            (path / "summary.json").write_text(json.dumps(summary))
        lines = list(records(8)) if lines is None else lines
        if lines:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (path / "metrics.jsonl").write_text(text)
        return path

    return run


class Checker(HTMLParser):
    """Fails on a tag that is closed wrongly; collects texts and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.attributes, self.tags = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open, f"<{tag}/> outside of SVG"
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def check(html):
    """All tags closed, nothing loaded, no script, ids unique; returns the parser."""
    page = Checker()
    page.feed(html)
    page.close()
    assert page.open == []
    bare = html.replace('xmlns="http://www.w3.org/2000/svg"', "")
    for word in ("http://", "https://", "src=", "<script", "<link", "url(", "@import"):
        assert word not in bare
    assert not [k for k, _ in page.attributes if k in ("href", "src") or k[:2] == "on"]
    ids = [v for k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids))
    return page


def report(tmp_path, *runs):
    out = tmp_path / "out" / "report.html"
    assert write_report(list(runs), out) == out
    assert [p.name for p in out.parent.iterdir()] == ["report.html"]
    html = out.read_text(encoding="utf-8")
    return html, " ".join(check(html).texts)


def test_one_run_shows_its_figures(make, tmp_path):
    html, text = report(tmp_path, make())
    for figure in ("1.625", "4.312", "15.64", "4.1k", "10G", "20 s", "1.64M", "90.0%"):
        assert figure in text
    for fact in ("ab" * 32, "83a22cf", "0.10.2", "512 MiB", "not measured", "optim.b1"):
        assert fact in text
    assert "<b>The old</b> man said &amp; went." in html
    assert "at 4" in text
    assert "warn" not in html.split("</style>")[1]


def test_equal_input_gives_equal_bytes(make, tmp_path):
    run = make()
    assert report(tmp_path, run) == report(tmp_path, run)


def test_several_runs_are_compared_with_the_first(make, tmp_path):
    config = ExperimentConfig(name="fast")
    summary = {**SUMMARY, "name": "fast", "bits_per_byte": 1.3}
    fast = make("fast", config, list(records(8, 0.6)), summary)
    html, text = report(tmp_path, make(), fast)
    assert "Comparison of 2 runs" in text
    assert "Best:  fast  with  1.300 bits per byte" in text
    assert f"1.25{TIMES}" in text
    assert f"2{TIMES}" in text
    assert "differs" in text
    assert "not comparable" not in text
    assert html.count('class="line c1"') > 4


def test_what_cannot_be_compared_is_said(make, tmp_path):
    different = {"corpus_sha256": "00", "tokenizer_sha256": "11"}
    other = make("other", summary={**SUMMARY, **different})
    _, text = report(tmp_path, make(), other)
    assert "losses and perplexities per token are not comparable" in text
    assert "bits per byte are comparable only if" in text


def test_runs_of_one_name_are_told_apart(make, tmp_path):
    _, text = report(tmp_path, make("a"), make("b"), make("c"))
    assert "run (a)" in text
    assert "run (b)" in text


def test_hostile_text_is_escaped(make, tmp_path):
    path = make(config=None)
    config = {"name": EVIL, "data": {EVIL: EVIL}}
    (path / "config.json").write_text(json.dumps(config))
    evil = {"prompt": EVIL, "text": EVIL + "</pre>"}
    hostile = dict.fromkeys(("name", "status", "commit", "machine"), EVIL)
    hostile |= {"flops": {EVIL: 1.0}, "versions": {EVIL: EVIL}, "samples": [evil]}
    (path / "summary.json").write_text(json.dumps({**SUMMARY, **hostile}))
    with open(path / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 9, "event": EVIL, "detail": EVIL}) + "\n")
    other = make("other")
    for runs in ([path], [path, other]):
        _, text = report(tmp_path, *runs)
        assert "<script>alert('x')</script>\"&\ufffd\ufffd" in text


def test_an_interrupted_run_says_what_is_missing(make, tmp_path):
    _, text = report(tmp_path, make(summary=None))
    assert "There is no summary.json" in text
    assert "training 4 s" in text
    assert "No text of run was kept" in text


def test_a_run_without_metrics_says_so(make, tmp_path):
    _, text = report(tmp_path, make(lines=[]))
    assert "There is no metrics.jsonl" in text
    assert "1.625" in text


@pytest.mark.parametrize("missing", SUMMARY)
@pytest.mark.parametrize("value", [None, "nonsense", [1], {"a": "b"}])
def test_any_summary_key_may_be_null_or_nonsense(make, tmp_path, missing, value):
    html, _ = report(tmp_path, make(summary={**SUMMARY, missing: value}))
    assert "<svg" in html


def test_an_empty_summary_and_broken_files_still_render(make, tmp_path):
    path = make(config=None, lines=[{"step": 1}, {}], summary={})
    (path / "config.json").write_text('{"name": ')
    _, text = report(tmp_path, path)
    assert "config.json is not a JSON object" in text
    assert "No loss was recorded" in text


def test_one_step_renders(make, tmp_path):
    line = {"step": 1, "loss": 3.0, "tokens": 0, "flops": 0, "seconds": 0.0}
    _, text = report(tmp_path, make(lines=[line], summary=None))
    assert "No validation result yet, after 1 steps" in text


def test_non_finite_losses_are_left_out_and_told(make, tmp_path):
    lines = list(records(8))
    lines[2] = {"step": 3, "loss": None, "tokens": 1536, "nonfinite": ["loss"]}
    html, text = report(tmp_path, make(lines=[*lines, {"step": 9, "loss": math.nan}]))
    assert "(the first at step 3) held NaN or infinity in loss" in text
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))


@pytest.mark.parametrize("growth", [10.0, 1e30, -1e9])
def test_a_diverged_run_renders(make, tmp_path, growth):
    lines = [{**r, "loss": growth ** r["step"]} for r in records(8) if "loss" in r]
    html, _ = report(tmp_path, make(lines=lines))
    assert "<svg" in html


def test_twenty_thousand_steps_stay_below_a_megabyte(make, tmp_path):
    runs = [make("a", lines=list(records(20_000, every=50))), make("b")]
    html, _ = report(tmp_path, *runs)
    assert len(html) < 1_000_000


def test_many_runs_stay_below_a_megabyte(make, tmp_path):
    lines = list(records(1000))
    html, _ = report(tmp_path, *(make(f"r{i}", lines=lines) for i in range(10)))
    assert len(html) < 1_000_000


def test_the_base_is_chosen_by_directory_or_name(make, tmp_path):
    runs = [make("a", config=None, summary={**SUMMARY, "name": "one"}), make("b")]
    out = tmp_path / "report.html"
    shown = {}
    for base in ("", "one", "run", "a", "b", str(runs[0]), str(runs[1])):
        write_report(runs, out, base)
        [shown[base]] = re.findall(r"figure its ratio: (\w+) over", out.read_text())
    first, second = ("", "one", "a", str(runs[0])), ("run", "b", str(runs[1]))
    assert {shown[base] for base in first} == {"one"}
    assert {shown[base] for base in second} == {"run"}
    with pytest.raises(
        UserError, match="base 'onee' is no run here: did you mean 'one"
    ):
        write_report(runs, out, "onee")


@pytest.mark.parametrize("name", ["r.html", "r.md", "r"])
def test_both_reports_are_written(make, tmp_path, name):
    run, out = make(), tmp_path / "out" / name
    html, markdown = write_reports([run], out)
    assert [html.name, markdown.name] == ["r" if name == "r" else "r.html", "r.md"]
    check(html.read_text())
    assert markdown.read_text().startswith("# run\n")


def taken_back():
    """Eight steps, back to step 4, and four to eight again."""
    first, second = list(records(8)), list(records(8, 0.5))
    back = {"step": 4, "event": "rollback", "detail": "spike", "tokens": 4096}
    again = [{**r, "tokens": r["tokens"] + 4096} for r in second if "tokens" in r]
    return [*first, back, *(r for r in again if r["step"] > 4)]


def test_steps_that_were_taken_back_are_not_drawn(make, tmp_path):
    html, text = report(tmp_path, make(lines=taken_back()))
    assert "5 metrics records of steps that were taken again" in text
    drawn = re.findall(r'class="line c0" d="M([^"]*)"', html)
    for path in drawn[:2]:
        across = [float(x) for x in path.split()[::2]]
        assert across == sorted(across)
        assert len(across) == 8
    assert "step 4, rollback: spike" in html


def test_energy_has_a_chart_only_where_it_was_measured(make, tmp_path):
    lines = [{**r, "joules": 10 * r["step"]} for r in records(8)]
    html, _ = report(tmp_path, make(lines=lines))
    assert "Loss against measured energy (J)" in html
    html, _ = report(tmp_path, make("other"))
    assert "measured energy" not in html


def test_events_stand_on_the_loss_curves_only(make, tmp_path):
    lines = [*records(8), {"step": 5, "event": "growth", "detail": "2 -> 3"}]
    html, text = report(tmp_path, make(lines=lines))
    marks = html.count('<g class="mark c0">')
    assert marks == html.count("step 5, growth: 2 -&gt; 3") == 4
    assert "Upright: events" in text


def test_every_chart_is_named_and_described(make, tmp_path):
    html, _ = report(tmp_path, make())
    charts = re.findall(r'<svg[^>]*role="img" aria-label="[^"]+">\n<desc>[^<]+', html)
    assert len(charts) == html.count("<svg") == 6


def test_bad_directories_are_named(make, tmp_path):
    out = tmp_path / "report.html"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nowhere: no such run directory"):
        write_report([tmp_path / "nowhere"], out)
    with pytest.raises(UserError, match=r"empty: neither metrics\.jsonl nor"):
        write_report([make(), tmp_path / "empty"], out)
    with pytest.raises(UserError, match="no run directory given"):
        write_report([], out)
    with pytest.raises(UserError, match="run: Is a directory"):
        write_report([tmp_path / "run"], tmp_path / "run")
    with pytest.raises(UserError, match="can't write the report"):
        write_report([tmp_path / "run"], tmp_path / "run" / "config.json" / "r.html")
    assert not out.exists()
