"""What a finished run leaves: summary.json and the report."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from uets_jax.config import config_hash
from uets_jax.evaluate.generate import generate
from uets_jax.evaluate.perplexity import bits_per_byte, target_bytes, unigram_nats
from uets_jax.measure.flops import parameters
from uets_jax.measure.machine import commit, machine, peak_memory_bytes, versions
from uets_jax.report.html import write_report
from uets_jax.train.session import Session
from uets_jax.types import TrainState

if TYPE_CHECKING:
    from uets_jax.train.loop import Run

_PROMPT_CHARACTERS = 60


def finish(run: "Run") -> dict[str, Any]:
    """Writes `summary.json` and `report.html`; returns the summary."""
    session, ledger = run.session, run.ledger
    ledger.switch("report")
    samples = sample_texts(session, run.state)
    joules = run.meter.joules()
    spent = ledger.to_dict()
    summary = {
        "name": session.config.name,
        "status": "completed",
        "final_loss": run.last_valid["valid_loss"],
        "final_train_loss": run.last_loss,
        "bits_per_byte": run.last_valid["bits_per_byte"],
        "perplexity": run.last_valid["perplexity"],
        "unigram_bits_per_byte": unigram_bits_per_byte(session),
        "tokens": ledger.tokens,
        "steps": run.step,
        "params": parameters(session.config.model),
        "flops": spent["flops"],
        "flops_source": "closed form, matmuls only",
        "seconds": {k: round(v, 3) for k, v in spent["seconds"].items()},
        "joules": None if joules is None else ledger.joules + joules,
        "energy_source": run.meter.source,
        "peak_memory_bytes": peak_memory_bytes(),
        "params_sha256": params_sha256(run.state.params),
        "data_sha256": run.chain,
        "corpus_sha256": session.store.fingerprint,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "config_hash": config_hash(session.config),
        "samples": samples,
    }
    if jax.process_index() == 0:
        write_json(run.out / "summary.json", summary)
        write_report([run.out], run.out / "report.html")
    return summary


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file in one piece: the old one stays until the new is complete."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    os.replace(temporary, path)


def params_sha256(params: Any) -> str:
    """sha256 over path, dtype, shape and bytes of every parameter, in path order."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        value = np.asarray(leaf)
        head = f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}"
        digest.update(head.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def unigram_bits_per_byte(session: Session) -> float:
    """What a unigram model of the same training tokens reaches on the same text."""
    limit, vocab = session.config.train.eval_tokens, session.config.model.vocab
    batches = lambda: session.evaluation("valid", limit)
    nats = unigram_nats(session.store.tokens("train"), batches(), vocab)
    size = target_bytes(batches(), session.store.tokenizer.token_bytes)
    return bits_per_byte(nats, size)


def sample_texts(session: Session, state: TrainState) -> list[dict[str, str]]:
    """Continuations of the beginnings of held-out documents."""
    train, tokenizer = session.config.train, session.store.tokenizer
    held_out = session.store.tokens("valid")
    starts = np.flatnonzero(held_out[: 1 << 20] == tokenizer.eot)
    picks = starts[np.linspace(0, len(starts) - 1, train.samples).astype(int)]
    samples = []
    for number, start in enumerate(picks):
        ids = np.asarray(held_out[start : start + 1 + _PROMPT_CHARACTERS // 4])
        text = continuation(
            session, state, ids, tokens=train.sample_tokens, seed=number
        )
        samples.append({"prompt": tokenizer.decode(ids[1:]), "text": text})
    return samples


def continuation(
    session: Session, state: TrainState, prompt: np.ndarray, **settings: Any
) -> str:
    """Generated text after the token ids `prompt`, up to the end of its document."""
    tokenizer, config = session.store.tokenizer, session.config
    out = generate(
        session.program,
        state.params,
        prompt,
        context=config.model.context,
        **settings,
    )[0]
    end = np.flatnonzero(out == tokenizer.eot)
    return tokenizer.decode(out[: end[0]] if len(end) else out)
