"""What a finished run leaves: summary.json and the report."""

import hashlib
import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from uets_jax.config import ExperimentConfig, config_hash, window_length
from uets_jax.data.tokenizer import Tokenizer
from uets_jax.evaluate.generate import generate
from uets_jax.evaluate.perplexity import bits_per_byte, target_bytes, unigram_nats
from uets_jax.measure.devices import current, find
from uets_jax.measure.energy import estimate
from uets_jax.measure.ledger import Ledger
from uets_jax.measure.machine import (
    commit,
    machine,
    versions,
)
from uets_jax.report.html import write_reports
from uets_jax.step import Program, evaluated
from uets_jax.train.files import told, write_json
from uets_jax.train.processes import barrier, gather, is_main
from uets_jax.train.session import Session
from uets_jax.train.stopping import outcome
from uets_jax.types import Params

if TYPE_CHECKING:
    from uets_jax.train.run import Run

_PROMPT_TOKENS = 15


def finish(run: "Run") -> dict[str, Any]:
    """Writes `summary.json` and the reports; returns the summary."""
    run.watchdog.beat("writing the report")
    session, at = run.session, run.at
    run.ledger.switch("report")
    params = gather(evaluated(session.program, run.state))
    samples = sample_texts(session, params) if is_main() else []
    summary = {
        "name": session.config.name,
        "status": "completed",
        "final_loss": at.last_valid["valid_loss"],
        "final_train_loss": at.last_loss,
        "bits_per_byte": at.last_valid["bits_per_byte"],
        "perplexity": _finite(at.last_valid["perplexity"]),
        "unigram_bits_per_byte": unigram_bits_per_byte(session),
        "steps": at.step,
        **outcome(run),
        "params": sum(x.size for x in jax.tree.leaves(params)),
        **cost(run),
        **standing(run),
        "phases": run.phases,
        "growth": at.growth,
        **at.counts,
        "processes": jax.process_count(),
        "params_sha256": params_sha256(params),
        "data_sha256": at.chain,
        "corpus_sha256": session.store.fingerprint,
        "tokenizer_sha256": session.store.tokenizer.hash,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "config_hash": config_hash(run.origin),
        "samples": samples,
    }
    if is_main():
        run.metrics.flush()
        with told(run.out):
            write_json(run.out / "summary.json", summary)
        write_reports([run.out], run.out / "report.html")
    barrier("finished")
    return summary


def _finite(value: float) -> float | None:
    """None where the number is too large to be written as JSON."""
    return value if math.isfinite(value) else None


def cost(run: "Run") -> dict[str, Any]:
    """What the run has cost: tokens, FLOPs, seconds, joules, bytes.

    Joules are null unless a meter was there; then an estimate stands beside them.
    """
    spent = run.ledger.to_dict()
    guess, method = energy_estimate(run.session.mesh.size, run.ledger)
    run.look_at_memory()
    device_peak, rss_peak = run.peaks.get("device_peak"), run.peaks["rss_peak"]
    return {
        "tokens": spent["tokens"],
        "flops": spent["flops"],
        "matmul_flops": spent["matmul_flops"],
        "transcendentals": spent["transcendentals"],
        "flops_source": "walk over the traced program; a multiply-add is 2",
        "seconds": {k: round(v, 3) for k, v in spent["seconds"].items()},
        "joules": run.joules(),
        "energy_source": run.meter.source,
        "joules_estimate": guess,
        "joules_estimate_method": method,
        "bytes": {
            **run.bytes,
            "live_arrays": run.peaks["live_arrays"],
            "rss_peak": rss_peak,
            "device_peak": device_peak,
        },
        "peak_memory_bytes": device_peak or rss_peak,
    }


def standing(run: "Run") -> dict[str, Any]:
    """`baseline`: what the run was compared with, and how it stood at its end."""
    monitor = run.monitor
    if monitor is None or monitor.baseline is None:
        return {}
    found = monitor.baseline
    told = {"name": found.name, "machine": found.setting.machine}
    return {
        "baseline": {
            **told,
            "file": run.origin.train.baseline,
            "at_end": monitor.line(),
        }
    }


def energy_estimate(devices: int, ledger: Ledger) -> tuple[float | None, str]:
    """(joules, how they were guessed): the table's watts times training time."""
    seconds = ledger.training_seconds()
    if jax.default_backend() == "cpu":
        return estimate(find("cpu"), seconds)
    device = current()
    if device is None:
        return None, f"no estimate: {jax.devices()[0].device_kind} is in no table"
    return estimate(device, seconds, devices)


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


def sample_texts(session: Session, params: Params) -> list[dict[str, str]]:
    """Continuations of the beginnings of held-out documents."""
    train, tokenizer = session.config.train, session.store.tokenizer
    held_out = session.store.tokens("valid")
    starts = np.flatnonzero(held_out[: 1 << 20] == tokenizer.eot)
    picks = starts[np.linspace(0, len(starts) - 1, train.samples).astype(int)]
    samples = []
    for number, start in enumerate(picks):
        ids = np.asarray(held_out[start : start + 1 + _PROMPT_TOKENS])
        model = (session.program, session.config, tokenizer, params)
        text = continuation(*model, ids, tokens=train.sample_tokens, seed=number)
        samples.append({"prompt": tokenizer.decode(ids[1:]), "text": text})
    return samples


def completed(
    program: Program,
    config: ExperimentConfig,
    tokenizer: Tokenizer,
    params: Params,
    prompt: str,
    **settings: Any,
) -> str:
    """`prompt`, as the beginning of a document, and the text generated after it."""
    ids = np.concatenate([[tokenizer.eot], tokenizer.encode(prompt)]).astype(np.int32)
    return prompt + continuation(program, config, tokenizer, params, ids, **settings)


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
