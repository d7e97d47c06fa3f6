"""Going back to the last good checkpoint, past the data that made a step bad."""

import dataclasses

from uets_jax.measure.branches import Count
from uets_jax.train import checkpoint
from uets_jax.train.monitor import BadStepError, abort, charge
from uets_jax.train.processes import barrier, is_main
from uets_jax.train.run import Position, Run
from uets_jax.train.shapes import abstract_at, session_at
from uets_jax.train.snapshot import restored


def roll_back(run: Run, bad: BadStepError, count: Count) -> None:
    """Restores the newest intact checkpoint; what follows reads the data after `bad`.

    Without one, the run starts again at step 0. What was spent stays in the ledger;
    the metrics of the steps in between go, and an event tells of them. The batches
    between checkpoint and bad step are passed over, as Chowdhery et al. (2022) did.

    Raises:
      NonFiniteLossError: after `train.bad_steps` rollbacks without a new checkpoint.
    """
    run.rollbacks += 1
    if run.rollbacks > run.session.config.train.bad_steps:
        raise abort(run, f"{bad}, after {run.rollbacks - 1} rollbacks")
    before = run.ledger.switch("checkpoint")
    if run.pending is not None:  # was under way when the bad step was read
        charge(run, count, run.pending)
    run.saver.wait()
    barrier("saved")
    at, counts = run.at, run.at.counts
    root = run.out / "checkpoints"
    began = run.session.reshaped(run.origin.model).referring(None)
    abstract = lambda record: abstract_at(began, record)
    found, _ = checkpoint.load_newest(root, abstract)
    if found is None:
        run.session = began
        run.state, old = began.initial_state(), Position()
        run.ledger.charge(began.counting_costs())
    else:
        run.state, old = found[0], Position(**found[1]["position"])
        run.session = restored(session_at(began, found[1]), run.out, old.snapshot)
    lost = bad.step - old.step
    counts["rollbacks"] += 1
    run.at = dataclasses.replace(
        old, passed_over=at.passed_over + lost, streak=0, counts=counts
    )
    run.pending, run.saved = None, old.step or -1
    run.progress.ends_at(run.end)
    barrier("rolled-back")
    if is_main():
        checkpoint.set_aside(root, above=run.at.step)
        run.metrics.cut_back(run.at.step)
    text = f"{bad}: back to step {old.step}, {lost} batches passed over"
    run.event("rollback", text)
    run.progress.note(text)
    run.ledger.switch(before)
