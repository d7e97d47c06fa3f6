"""The selection on an endless stream: `python -m experiments.aql_stream --help`.

    text   documents, packed and labelled, again and again: read, tokenized, cut into
           windows and offered; every cycle goes through all of it
    ids    token ids of a file, again and again, cut and offered

Each stream in each mode has a process of its own, with nothing in it but the stream,
the selection and its tables, which are fitted on the beginning of the text. Its
resident memory is read at even distances. Processes that are done are not run again.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.arms import LENGTH, VOCAB, WIDTH
from experiments.records import write_record
from uets_jax.aql.make import chosen, selection
from uets_jax.component import Selection
from uets_jax.config import DataConfig, ExperimentConfig, SelectConfig
from uets_jax.data.labelled import inputs, read
from uets_jax.data.store import TokenStore, open_store, write_store
from uets_jax.data.windows import cut
from uets_jax.errors import ENDS, EXIT_OK, UserError, exit_code
from uets_jax.measure.machine import live_array_bytes
from uets_jax.models.presets import from_dict
from uets_jax.models.transformer import make_model
from uets_jax.report.files import replace_text
from uets_jax.train.assets import asset_shapes, build_assets
from uets_jax.train.files import write_json
from uets_jax.types import Batch, Moment

STREAMS, MODES = ("text", "ids"), ("blind", "target")
SAMPLE_BYTES = 100_000  # of held-out text of one domain, for mode target
DOMAIN = "encyclopedic"
GROUP = 64  # documents that are tokenized together
READ = 1 << 19  # ids that are read at once
WARM_UP = 0.1  # share of the stream, after which memory is to be flat
NOTE = (
    "rss_*: resident memory of a process that holds the stream and the selection. "
    "after_warm_up: once a tenth of the whole stream has passed; growth: at the end of "
    "this part, less 1; most_growth: of the largest sample since then. part: the first "
    "half, and all, of one stream. state_bytes: of the selection's state. array_bytes: "
    "of all arrays in the process. No model is trained, so choose alone runs; its "
    "clock goes on. megabytes_per_second: after the warm-up, from the disk to the "
    "choice. text: every cycle is read, tokenized and cut anew; bytes are those of its "
    "UTF-8. ids: two bytes each, from a file."
)

Pieces = Iterator[tuple[np.ndarray, int]]  # ids, and the bytes that they came from


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says."""

    runs: Path
    data_dir: Path
    text_bytes: float
    ids_bytes: float
    vocab: int
    length: int
    batch: int
    candidates: int
    buffer: int
    pools: int
    samples: int

    @property
    def store(self) -> Path:
        """One cycle as tokens; its beginning sets the tables."""
        return self.runs / "store"

    def config(self, mode: str) -> ExperimentConfig:
        """AQL v2 at its default settings, but for the sizes."""
        target = f"jsonl:{self.runs}/sample.jsonl" if mode == "target" else ""
        select = SelectConfig(
            method="aql",
            mode=mode,  # pyright: ignore[reportArgumentType]
            target=target,
            candidates=self.candidates,
            buffer=self.buffer,
        )
        values = {
            "data": {"source": f"tokens:{self.store}"},
            "model": {"width": WIDTH, "context": self.length, "vocab": self.vocab},
            "train": {"batch": self.batch},
        }
        return dataclasses.replace(from_dict(values), select=select)


def prepare(options: Options) -> None:
    """Writes the store, the target sample and the tables of both modes, once.

    Raises:
      UserError: if the labelled corpus is missing or has no text of the target
        domain, or the folder is of other options.
    """
    shards, held = inputs(options.data_dir)
    _check_same(options)
    sample = options.runs / "sample.jsonl"
    if not sample.exists():
        replace_text(sample, _sample(read(held)))
    if not options.store.exists():
        pattern = str(Path(shards[0]).parent / "train*.jsonl*")
        words = DataConfig(source=f"jsonl:{pattern}", tokenizer=f"bpe:{options.vocab}")
        write_store(options.store, words)
    store = open_store(options.store)
    for mode in MODES:
        if not _tables(options, mode).exists():
            found = build_assets(_sized(options, mode, store), store)
            leaves = [np.asarray(x) for x in jax.tree.leaves(found)]
            with _tables(options, mode).open("wb") as stream:
                np.savez(stream, *leaves)


def pieces_of_text(paths: Sequence[str], store: TokenStore) -> Pieces:
    """The documents, tokenized, without an end; each begins with the separator."""
    endless = (d.text for _ in itertools.count() for d in read(paths))
    while texts := [*itertools.islice(endless, GROUP)]:
        ids = store.tokenizer.encode_batch(texts)
        joined = [np.append(store.tokenizer.eot, part) for part in ids]
        size = sum(len(text.encode()) for text in texts)
        yield np.concatenate(joined).astype(np.int32), size


def pieces_of_ids(store: TokenStore) -> Pieces:
    """The ids of the training split, read from its file, without an end."""
    dtype = np.dtype(store.meta["dtype"]).newbyteorder("<")
    for _ in itertools.count():
        with open(f"{store.directory}/train.bin", "rb") as stream:
            while raw := stream.read(READ * dtype.itemsize):
                yield np.frombuffer(raw, dtype).astype(np.int32), len(raw)


def pools(
    pieces: Iterable[tuple[np.ndarray, int]], eot: int, length: int, shape: Any
) -> Iterator[tuple[Batch, int]]:
    """Consecutive windows [n, C, L], and the bytes of the stream up to their end.

    Window ids go up from 0 and begin again at 2**31.

    Args:
      shape: (n, C), pools that are offered in one call and windows in each.
    """
    held, have, total, first = [], 0, 0, 0
    rows = int(np.prod(shape))
    need = rows * length + 1
    for ids, size in pieces:
        held.append(ids)
        have, total = have + len(ids), total + size
        while have >= need:
            flat = np.concatenate(held)
            batch = cut(flat[:need], eot, length, np.arange(rows))
            number = (first + np.arange(rows)) % (1 << 31)
            batch = batch._replace(ids=number.astype(np.int32))
            left = (have - need + 1) / len(ids)  # all of it of the last piece
            shaped = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), batch)
            yield shaped, round(total - left * size)
            held, first = [flat[need - 1 :]], first + rows
            have = len(held[0])


@functools.lru_cache(maxsize=2)
def compile_choice(part: Selection) -> Callable[..., Any]:
    """Jits (state, pools [n, C, L], assets, progress, key) -> (state, mean score).

    The state is donated; what is drawn goes nowhere, so its score stands for it.
    """

    def many(state: Any, batch: Batch, assets: Any, progress: Any, key: Any) -> Any:
        def one(state: Any, given: Any) -> Any:
            pool, key = given
            moment = Moment((), assets, progress, key)
            drawn, _, metrics, state = part.choose(state, pool, moment)
            told = metrics["select_score"], drawn.ids
            return state._replace(now=state.now + 1), told

        keys = jax.random.split(key, batch.ids.shape[0])
        return jax.lax.scan(one, state, (batch, keys))

    return jax.jit(many, donate_argnums=0)


def flow(
    options: Options, stream: str, mode: str, most: float
) -> list[dict[str, float]]:
    """Memory at even distances along a stream of `most` bytes."""
    store = open_store(options.store)
    config = _sized(options, mode, store)
    how = chosen(config)
    assert how is not None
    part = selection(how, config.model, make_model(config.model))
    choose, state = compile_choice(part), jax.jit(part.init)(())
    assets = _read_tables(options, mode, store)
    shards = inputs(options.data_dir)[0]
    pieces = pieces_of_text(shards, store) if stream == "text" else pieces_of_ids(store)
    shape = (options.pools, options.batch * options.candidates)
    samples, windows, start = [], 0, time.perf_counter()
    for batch, total in pools(pieces, store.tokenizer.eot, options.length, shape):
        key = jax.random.fold_in(jax.random.key(0), windows)
        progress = jnp.float32(min(total / most, 1.0))
        state, told = choose(state, batch, assets, progress, key)
        jax.block_until_ready((state, told))
        windows += int(np.prod(shape))
        if total >= min(most, most * (len(samples) + 1) / options.samples):
            now = {"bytes": total, "windows": windows, "rss": rss_bytes()}
            now |= {"seconds": time.perf_counter() - start}
            sizes = {"state": _bytes(state), "arrays": live_array_bytes()}
            samples.append({**now, **sizes})
        if total >= most:
            return samples
    raise UserError(f"{stream}: it has an end")


def summary(
    stream: str, mode: str, samples: Sequence[dict[str, float]]
) -> list[dict[str, Any]]:
    """A row for the first half of the stream and one for all of it."""
    whole = samples[-1]["bytes"]
    warm = next(s for s in samples if s["bytes"] >= WARM_UP * whole)
    found = []
    for part, share in (("half", 0.5), ("all", 1.0)):
        upto = [s for s in samples if warm["bytes"] <= s["bytes"] <= share * whole]
        end, rss = (upto or [warm])[-1], warm["rss"]
        seconds = max(end["seconds"] - warm["seconds"], 1e-9)
        found.append(
            {
                "stream": stream,
                "mode": mode,
                "part": part,
                "bytes": end["bytes"],
                "windows": end["windows"],
                "seconds": end["seconds"],
                "megabytes_per_second": (end["bytes"] - warm["bytes"]) / 1e6 / seconds,
                "rss_after_warm_up_bytes": rss,
                "rss_end_bytes": end["rss"],
                "rss_growth": end["rss"] / rss - 1,
                "rss_most_growth": max(s["rss"] for s in upto or [warm]) / rss - 1,
                "state_bytes": end["state"],
                "array_bytes": end["arrays"],
                "samples": len(upto),
            }
        )
    return found


def rss_bytes() -> int:
    """Resident memory of this process now.

    Raises:
      UserError: where there is no /proc.
    """
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        raise UserError("resident memory: no /proc here; use Linux") from None
    said = next(line for line in lines if line.startswith("VmRSS:"))
    return int(said.split()[1]) * 1024


def _sized(options: Options, mode: str, store: TokenStore) -> ExperimentConfig:
    """The config with the store's vocabulary."""
    config, vocab = options.config(mode), store.tokenizer.vocab_size
    model = dataclasses.replace(config.model, vocab=vocab)
    return dataclasses.replace(config, model=model)


def _tables(options: Options, mode: str) -> Path:
    return options.runs / f"tables-{mode}.npz"


def _read_tables(options: Options, mode: str, store: TokenStore) -> Any:
    """The assets of a mode, as `prepare` wrote them."""
    shapes = asset_shapes(_sized(options, mode, store))
    with np.load(_tables(options, mode), allow_pickle=False) as found:
        leaves = [jnp.asarray(found[name]) for name in found.files]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _sample(held: Iterable[Any]) -> str:
    """JSON lines of held-out documents of one domain, 100 kB of them."""
    lines, size = [], 0
    for document in held:
        if document.domain == DOMAIN and size < SAMPLE_BYTES:
            text = document.text[: SAMPLE_BYTES - size]
            size += len(text)
            lines.append(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    if not lines:
        raise UserError(f"--data-dir: no held-out document of the domain {DOMAIN!r}")
    return "".join(lines)


def _check_same(options: Options) -> None:
    """Remembers the options of a folder, and compares from then on."""
    places = ("runs", "data_dir")
    now = {k: v for k, v in vars(options).items() if k not in places}
    path = options.runs / "options.json"
    if not path.exists():
        replace_text(path, json.dumps(now, indent=1) + "\n")
    if json.loads(path.read_text("utf-8")) != now:
        raise UserError(f"--runs: {path} says other options; give another folder")


def _bytes(state: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


def run_case(options: Options, case: str) -> None:
    """Measures one stream in one mode, in this process, into `runs/CASE.json`."""
    stream, mode = case.split("-")
    most = options.text_bytes if stream == "text" else options.ids_bytes
    samples = flow(options, stream, mode, most)
    write_json(options.runs / f"{case}.json", {"samples": samples})


def in_process(words: Sequence[str], case: str) -> None:
    """The same command for one stream in a process of its own.

    Raises:
      UserError: if it fails; its own words stand above.
    """
    command = [sys.executable, "-m", "experiments.aql_stream", *words, "--case", case]
    if subprocess.run(command).returncode:
        raise UserError(f"{case}: its process failed")


def rows(
    options: Options, words: Sequence[str], modes: Sequence[str] = MODES
) -> list[dict[str, Any]]:
    """Those of all streams in these modes."""
    prepare(options)
    found = []
    for stream, mode in itertools.product(STREAMS, modes):
        path = options.runs / f"{stream}-{mode}.json"
        if not path.exists():
            in_process(words, path.stem)
        found += summary(stream, mode, json.loads(path.read_text("utf-8"))["samples"])
        print({k: found[-1][k] for k in ("stream", "mode", "seconds", "rss_growth")})
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all streams; writes `aql.stream`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.aql_stream")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs/aql_stream"))
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--text-bytes", type=float, default=500e6)
    parser.add_argument("--ids-bytes", type=float, default=2e9)
    parser.add_argument("--vocab", type=int, default=VOCAB)
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--buffer", type=int, default=512)
    parser.add_argument("--pools", type=int, default=8, help="of one call")
    parser.add_argument("--samples", type=int, default=200, help="of memory")
    parser.add_argument("--mode", choices=MODES, action="append", help="one mode")
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    words = list(sys.argv[1:] if argv is None else argv)
    given = vars(parser.parse_args(words))
    out, case = given.pop("out"), given.pop("case")
    modes = given.pop("mode") or MODES
    options = Options(**given)
    try:
        if case:
            run_case(options, case)
            return EXIT_OK
        sizes = {k: v for k, v in given.items() if k not in ("runs", "data_dir")}
        found, command = rows(options, words, modes), "python -m experiments.aql_stream"
        line = " ".join([command, *words])
        print(write_record("aql.stream", found, line, sizes, NOTE, out=out))
    except ENDS as error:
        print(f"aql_stream: error: {error}", file=sys.stderr)
        return exit_code(error)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
