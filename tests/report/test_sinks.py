"""What a sink takes out of a record, and what arrives at TensorBoard."""

import math
import struct
from typing import Any

import numpy as np

from uets_jax.report import sinks


def tensorboard_events(folder):
    """Every event of the files in a folder: TFRecords of length, data and checksums."""
    from tensorboardX.proto import event_pb2

    event: Any = event_pb2

    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            yield event.Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16


def tensorboard_scalars(folder):
    return [
        (value.tag, event.step, value.simple_value)
        for event in tensorboard_events(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    ]


def test_only_finite_numbers_count():
    record = {"step": 3, "a": 1, "b": np.float32(0.5), "c": math.nan, "d": -math.inf}
    record |= {"e": None, "f": "x", "g": True, "h": [1.0], "i": np.int64(7)}
    assert dict(sinks.finite(record)) == {"a": 1.0, "b": 0.5, "i": 7.0}


def test_an_event_is_a_line():
    assert sinks.event_text({"event": "growth", "detail": "2 -> 4"}) == "growth: 2 -> 4"
    assert sinks.event_text({"event": "skip"}) == "skip"
    assert sinks.event_text({"detail": "x", "loss": 1.0}) == ""


def test_an_error_is_a_short_line():
    assert sinks.one_line(ValueError("a\nb")) == "ValueError: a b"
    assert len(sinks.one_line(ValueError("word " * 1000))) <= 200


def test_tensorboard_holds_scalars_and_texts_across_a_resume(tmp_path):
    folder = tmp_path / "tensorboard"
    first = sinks.TensorBoard(tmp_path)
    assert not folder.exists()
    for step in (1, 2, 3):
        first.write({"step": step, "loss": 4.0 / step, "bad": math.nan})
    first.close()
    second = sinks.TensorBoard(tmp_path)
    second.write({"step": 2, "event": "resume", "detail": "at 2"})
    second.write({"step": 3, "loss": 0.25})
    second.close()
    scalars = tensorboard_scalars(folder)
    assert scalars[:2] == [("loss", 1, 4.0), ("loss", 2, 2.0)]
    assert scalars[-1] == ("loss", 3, 0.25)
    events = list(tensorboard_events(folder))
    assert [e.step for e in events if e.HasField("session_log")] == [3]
    texts = [v.tensor.string_val for e in events for v in e.summary.value]
    assert [b"resume: at 2"] in [list(text) for text in texts]


def test_a_sink_that_never_wrote_can_be_closed(tmp_path):
    sinks.TensorBoard(tmp_path).close()
    assert not any(tmp_path.iterdir())
