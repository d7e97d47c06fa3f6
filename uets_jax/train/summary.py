"""What a finished run leaves: summary.json and the report."""

import hashlib
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from uets_jax.config import ExperimentConfig, config_hash, window_length
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.evaluate.generate import generate
from uets_jax.evaluate.perplexity import bits_per_byte, target_bytes, unigram_nats
from uets_jax.measure.machine import commit, machine, peak_memory_bytes, versions
from uets_jax.report.html import write_report
from uets_jax.step import Program
from uets_jax.train.files import told, write_json
from uets_jax.train.session import Session
from uets_jax.types import Params, TrainState

if TYPE_CHECKING:
    from uets_jax.train.run import Run

_PROMPT_TOKENS = 15


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
        "params": sum(x.size for x in jax.tree.leaves(run.state.params)),
        "flops": spent["flops"],
        "flops_source": "closed form, matmuls only",
        "seconds": {k: round(v, 3) for k, v in spent["seconds"].items()},
        "joules": None if joules is None else ledger.joules + joules,
        "energy_source": run.meter.source,
        "peak_memory_bytes": peak_memory_bytes(),
        "params_sha256": params_sha256(run.state.params),
        "data_sha256": run.chain,
        "corpus_sha256": session.store.fingerprint,
        "tokenizer_sha256": session.store.tokenizer.hash,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "config_hash": config_hash(session.config),
        "samples": samples,
    }
    if jax.process_index() == 0:
        with told(run.out):
            write_json(run.out / "summary.json", summary)
        write_report([run.out], run.out / "report.html")
    return summary


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
        ids = np.asarray(held_out[start : start + 1 + _PROMPT_TOKENS])
        model = (session.program, session.config, tokenizer, state.params)
        text = continuation(*model, ids, tokens=train.sample_tokens, seed=number)
        samples.append({"prompt": tokenizer.decode(ids[1:]), "text": text})
    return samples


def continuation(
    program: Program,
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    params: Params,
    prompt: np.ndarray,
    **settings: Any,
) -> str:
    """Generated text after the token ids `prompt`, up to the end of its document."""
    out = generate(
        program,
        params,
        prompt,
        context=window_length(config),
        vocab=tokenizer.vocab_size,
        **settings,
    )[0]
    end = np.flatnonzero(out == tokenizer.eot)
    return tokenizer.decode(out[: end[0]] if len(end) else out)
