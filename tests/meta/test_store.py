"""The books: budgets and clocks, lines, what a resumed run must share."""

import dataclasses
import io
import json

import jax.numpy as jnp
import numpy as np
import pytest

from uets_jax.errors import UserError
from uets_jax.meta.family import Tasks
from uets_jax.meta.settings import MetaConfig
from uets_jax.meta.store import Books, Store

CONFIG = MetaConfig(updates=10, log_every=2, seed=3)


class Clock:
    time = 100.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def open_store(bowl, clock, tmp_path):
    """(config, names of the families that are learned on) -> a store in one folder."""

    def make(config=CONFIG, train=("a",), stream=None):
        tasks = Tasks(tuple(map(bowl, train)), (bowl("held"),))
        return Store(tmp_path, config, tasks, stream or io.StringIO(), clock)

    return make


def state(value=1.0):
    return {"theta": jnp.full(3, value)}


def rows(folder):
    return [json.loads(r) for r in (folder / "meta.jsonl").read_text().splitlines()]


def metrics(value=0.5):
    return {"value": jnp.asarray(value), "broken": jnp.zeros(())}


def told(store, books, *updates):
    for update in updates:
        books.updates = update
        store.line(books, "a", metrics(), jnp.ones(()))


def test_charges_add_up_and_what_is_unknown_stays_so():
    books = Books()
    books.charge(5.0, 2)
    books.charge(7.0, 3)
    assert (books.flops, books.inner_steps) == (12.0, 5)
    books.charge(None, 1)
    books.charge(1.0, 1)
    assert (books.flops, books.inner_steps) == (None, 7)


def test_the_budget_is_what_ends_first_and_keeps_time_for_the_end(open_store, clock):
    store = open_store(MetaConfig(updates=10, minutes=2.0))
    books = Books(updates=4)
    assert store.fraction(books) == 0.4
    clock.time += 60
    assert store.fraction(books) == 0.5
    books.check_seconds = 10.0
    assert store.fraction(books) == pytest.approx((60 + 30) / 120)
    clock.time += 1000
    assert store.fraction(books) == 1.0


def test_seconds_are_those_of_all_parts(open_store, clock):
    books = Books(seconds=50.0)
    store = open_store(MetaConfig(minutes=2.0))
    clock.time += 10
    assert store.fraction(books) == 0.5
    store.clock(books)
    assert books.seconds == 60.0
    store.clock(books)
    assert books.seconds == 60.0


def test_a_checkpoint_is_due_after_its_minutes(open_store, clock):
    store = open_store(dataclasses.replace(CONFIG, checkpoint_minutes=2.0))
    clock.time += 119
    assert not store.due()
    clock.time += 1
    assert store.due()
    store.save(state(), Books())
    assert not store.due()


def test_an_empty_folder_begins_at_once(open_store):
    first = state()
    found, books = open_store().resume(first)
    assert found is first
    assert books == Books()


def test_what_was_saved_comes_back_and_later_lines_are_dropped(open_store, tmp_path):
    store, books = open_store(), Books()
    books.charge(5.0, 2)
    books.history.append({"update": 4})
    told(store, books, 2, 4)
    store.save(state(2.0), books)
    told(store, books, 6)
    with (tmp_path / "meta.jsonl").open("a") as file:
        file.write('{"update": 8, "fam')  # the line that the end cut off
    stream = io.StringIO()
    found, after = open_store(stream=stream).resume(state())
    np.testing.assert_array_equal(found["theta"], 2.0)
    assert after == dataclasses.replace(books, updates=4)
    assert [row["update"] for row in rows(tmp_path)] == [2, 4]
    assert stream.getvalue() == "goes on after update 4\n"


def test_a_damaged_checkpoint_is_passed_over(open_store, tmp_path):
    store = open_store()
    for update in (2, 4):
        store.save(state(float(update)), Books(updates=update))
    (tmp_path / "checkpoints" / "00000004" / "record.json").write_text("{}")
    stream = io.StringIO()
    found, books = open_store(stream=stream).resume(state())
    assert books.updates == 2
    np.testing.assert_array_equal(found["theta"], 2.0)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("damaged, passed over: ")
    assert first.endswith("00000004/record.json: checksum differs")
    assert second == "goes on after update 2"


@pytest.mark.parametrize(
    ("changes", "train", "complaint"),
    [
        ({"seed": 4}, ("a",), "seed was 3 in the run that is there and is 4 now"),
        ({}, ("a", "b"), r"train was \['a'\] .* and is \['a', 'b'\] now"),
        ({"updates": 99, "log_every": 1}, ("a",), None),
    ],
)
def test_another_run_is_refused_and_a_longer_one_is_not(
    changes, train, complaint, open_store
):
    open_store().save(state(), Books(updates=2))
    other = open_store(dataclasses.replace(CONFIG, **changes), train)
    if complaint is None:
        assert other.resume(state())[1].updates == 2
    else:
        with pytest.raises(UserError, match=complaint):
            other.resume(state())


def test_lines_come_now_and_then_with_the_time_left(open_store, clock, tmp_path):
    stream = io.StringIO()
    store, books = open_store(stream=stream), Books(inner_steps=1500)
    for update in (1, 2, 3, 4):
        clock.time += 5
        told(store, books, update)
    one, two = stream.getvalue().splitlines()
    assert one == "update 2/10  value +0.500  1.5k inner steps  eta 0:40"
    assert two == "update 4/10  value +0.500  1.5k inner steps  eta 0:30"
    written = rows(tmp_path)
    assert [row["update"] for row in written] == [1, 2, 3, 4]  # each of them
    assert "<svg" in (tmp_path / "curve.svg").read_text()
    last = written[-1]
    assert written[1]["seconds"] == 10.0
    assert (last["update"], last["family"], last["norm"]) == (4, "a", 1.0)


def test_a_value_that_is_not_finite_is_written_as_none(open_store, tmp_path):
    store = open_store()
    store.line(Books(updates=2), "a", metrics(jnp.nan), jnp.asarray(jnp.inf))
    assert rows(tmp_path)[0]["value"] is rows(tmp_path)[0]["norm"] is None


def test_a_validation_is_told_and_recorded(open_store, tmp_path):
    part = {"mean": -0.25, "error": 0.01}
    row = {"update": 4, "theta": part, "mean": part}
    stream = io.StringIO()
    books = Books(history=[row], best_mean=-0.25, best_update=4)
    open_store(stream=stream).told(books)
    assert rows(tmp_path) == [{"event": "validation", **row}]
    assert "theta -0.2500 +- 0.0100" in stream.getvalue()
    assert stream.getvalue().endswith("best -0.2500 at 4\n")


def test_a_stream_that_is_gone_ends_nothing(open_store, tmp_path):
    stream = io.StringIO()
    store = open_store(stream=stream)
    stream.close()
    store.note("nobody hears it")
    told(store, Books(), 1, 2)
    assert [row["update"] for row in rows(tmp_path)] == [1, 2]  # nothing is lost
