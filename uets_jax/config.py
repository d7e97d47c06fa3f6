"""Static values: frozen, nested, value-equal dataclasses, and their JSON form.

Equal configs hash equal and share an executable. Nothing here imports jax, so that the
command line can read, check and print a configuration in a fraction of a second.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from typing import Any, Literal

from uets_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read, how it becomes tokens, how tokens become windows."""

    source: str = "builtin"
    """builtin | files:GLOB | jsonl:GLOB[:key] | tfds:NAME[/CONFIG][:SPLIT] |
    hf:REPO[:CONFIG[:SPLIT]] | tokens:DIR"""
    valid_source: str = ""
    """Own source of validation text; empty: documents held out of `source`."""
    valid_fraction: float = 0.02
    """Share of the bytes of `source` held out, by whole documents."""
    tokenizer: str = "bpe:4096"
    """bpe:VOCAB (trained on the training split) | bytes | path of a tokenizer.json or
    of a folder with vocab.json and merges.txt"""
    length: int = 0
    """Tokens per training window; 0: the model's context."""
    on_error: Literal["error", "skip"] = "error"
    """A document that can't be used: stop with one line, or count and skip it."""
    cache: str = ""
    """Folder of tokenized corpora; empty: $UETS_CACHE or ~/.cache/uets_jax."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer; `models/presets.py` names sets of these fields."""

    preset: str = "modern"
    """Names the defaults of the architecture fields; see models/presets.py."""
    size: str = "nano"
    """Names the defaults of the dimensions; see models/presets.py."""
    vocab: int = 0
    """Rows of the embedding; 0: as many as the tokenizer has."""
    context: int = 128
    """Longest sequence."""
    depth: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 32
    hidden: int = 512
    """Units of each MLP."""
    position: Literal["rope", "learned"] = "rope"
    norm: Literal["rms", "layer"] = "rms"
    activation: Literal["relu2", "gelu", "swiglu"] = "relu2"
    qk_norm: bool = True
    tied: bool = False
    """The output head is the transposed embedding."""
    bias: bool = False
    zero_init: bool = True
    """Output projections of every block, and an untied head, start at zero."""
    softcap: float = 15.0
    """Logits become cap * tanh(logits / cap); 0: left as they are."""
    dropout: float = 0.0
    """Share of the embedding's and of each branch's outputs dropped in training."""
    value_residual: bool = True
    """Each layer's values are mixed with the first layer's by a learned weight."""
    head_chunks: int = 1
    """Pieces of the sequence whose losses are computed one after the other: less
    memory and, on a CPU, several times faster where the vocabulary is large."""
    memory_rows: int = 0
    """Rows of each hashed n-gram table that is added at the input; 0: no tables."""
    memory_order: int = 3
    """2: a table for bigrams; 3: and one for trigrams."""
    memory_trained: bool = True
    """False: the tables stay as a start from counts fills them, without gradient,
    optimizer state and weight decay."""
    backoff_order: int = 0
    """Tokens of the longest n-grams, 3 to 5, of a back-off model beside the network: a
    start from counts fills it, a gate is learned (models/backoff.py); 0: none."""
    backoff_pairs: int = 1 << 21
    """N-grams of three tokens and more that it keeps, of each order; the rarest go."""
    experts: int = 0
    """MLPs of each block, among which every token is routed; 0: one for all."""
    active_experts: int = 1
    """Experts that a token is sent to."""
    capacity: float = 1.25
    """Rows that an expert takes, as a multiple of an even share of the batch; tokens
    beyond it pass it by. 0: as many as there are tokens."""
    balance: float = 0.01
    """Weight of the loss that spreads the tokens evenly over the experts."""
    mask_documents: bool = False
    """Attention stays inside a document; needs the 'xla' attention."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute precision; parameters are float32."""
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    """auto: cudnn on an NVIDIA GPU in bfloat16, else xla."""
    remat: bool = False
    """Recompute each block in the backward pass: less memory, more FLOPs."""
    frozen: int = 0
    """The first blocks that run but are not trained, with what stands before them; no
    backward pass is computed below. 0: all is trained, the embedding, too."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The update rule. Rate, decay, warm-up and horizon are traced (`Hypers`)."""

    name: Literal[
        "adamw",
        "lion",
        "muon",
        "normuon",
        "soap",
        "sgd",
        "rmsprop",
        "schedule_free",
        "learned",
    ] = "muon"
    """adamw: Adam with decoupled decay.
    lion: the sign of a mix of momentum and gradient.
    muon: orthogonalised momentum for the matrices in blocks, Adam for the rest.
    normuon: Muon, each neuron's update normalised by its running mean square.
    soap: Adam in the eigenbasis of Shampoo's factors.
    sgd: momentum, the sum of `momentum`^k times the gradient k steps ago.
    rmsprop: Adam without momentum.
    schedule_free: AdamW at a point between iterate and average; the average is
    evaluated; takes the schedule `constant`.
    learned: a gate that mixes Muon, Adam, Lion and momentum, layer by layer."""
    learning_rate: float = 0.02
    weight_decay: float = 0.1
    """Decoupled, multiplied by the learning rate; on matrices only."""
    cautious: bool = False
    """Decay only where update and parameter agree in sign."""
    warmup: int = 20
    """Steps of linear warm-up."""
    schedule: Literal["wsd", "cosine", "linear", "constant"] = "wsd"
    decay: float = 0.4
    """Share of the steps over which `wsd` decays; with `train.target`, that says
    `train.cooldown`."""
    floor: float = 0.0
    """Final learning rate as a share of the peak."""
    clip: float = 1.0
    """Largest global gradient norm; 0: no clipping."""
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    momentum: float = 0.95
    """Of Muon, NorMuon and SGD."""
    adam_ratio: float = 2.0
    """With Muon, NorMuon and learned: Adam's rate for embeddings, head and norms, as a
    multiple."""
    rest_ratio: float = 1.0
    """With the other rules: the rate for embeddings, head and norms, as a multiple."""
    soap_every: int = 10
    """With SOAP: steps between two refreshes of the eigenbases."""
    soap_max_dim: int = 2048
    """With SOAP: a side longer than this has no basis of its own; 0: that is Adam."""
    weights: str = "default"
    """With learned: default (shipped) or an .npz file of `optim.stored.save_theta`;
    empty: no gate, the same as muon."""
    gate_every: int = 1
    """With learned: steps between two decisions of the gate."""
    gate_between: Literal["held", "nominal", "learned"] = "held"
    """With learned: until the next decision the last one holds, the nominal rule alone
    with the last multipliers, or a mixture of both that the gate decides (weights of
    its own: the shipped ones know the first two)."""
    average: float = 0.0
    """Width of a moving average of the weights, as a share of the steps so far (see
    optim/average.py), such as 0.1: it is evaluated and kept as the final model. 0: no
    average."""


@dataclasses.dataclass(frozen=True)
class KnobsConfig:
    """Numbers of the selection that a policy may learn; traced, so a grid over them
    shares one executable. Scores are in standard deviations of what is offered."""

    temperature: float = 1.0
    """Of the Gumbel noise on scores at the start: 0 takes the best."""
    final_temperature: float = 0.5
    """And from `anneal` on."""
    anneal: float = 0.7
    """Share of the steps at which the temperature has come down."""
    novelty: float = 10.0
    """Taken off the score of a window whose n-grams have all been trained on."""
    copied: float = 0.5
    """Share of n-grams trained on from which a window counts as a copy."""
    natural: float = -1.0
    """Windows whose naturalness is below come last."""
    progress: float = 0.0
    """Weight of the learning progress of a window's bucket."""
    uncertainty: float = 0.0
    """Weight of the Laplace uncertainty of a window."""
    staleness: float = 0.0
    """Taken off the score for each step in the buffer."""
    ratio: float = 1.0
    """Share of the candidates that are looked at."""
    floor: float = 0.2
    """In mode `pool`: share of the probability that is spread evenly."""


@dataclasses.dataclass(frozen=True)
class SelectConfig:
    """Which of the offered windows are trained on (AQL v2)."""

    method: Literal["none", "aql", "loss", "rho", "mc_dropout"] = "none"
    """aql: cheap scores of a stream, an O(k) buffer. For comparison: the highest loss,
    or the highest loss above a reference's, of a forward pass over all candidates, or
    the highest mutual information of ten passes with dropout."""
    mode: Literal["blind", "target", "pool"] = "blind"
    """blind: natural, new text. target: and like a sample of target text. pool: what is
    uncertain, weighted so that the loss of the whole pool is minimised."""
    target: str = ""
    """Source of the sample of target text: files:GLOB, jsonl:GLOB[:key], ..."""
    reference: str = ""
    """With rho: an .npy file of a reference's loss of every training window, in nats
    per token. Or `snapshot`: the model, as it is evaluated, before it last grew, which
    every step then runs over the candidates; until it has grown the choice is random,
    and no model reads them. Only with a growth.plan that adds something."""
    candidates: int = 16
    """Windows offered for each one that is trained on."""
    run: int = 8
    """Windows offered in one piece: a score is the mean of a document's part of it."""
    buffer: int = 1024
    """Windows kept to be trained on."""
    natural: bool = True
    """Score whether words are in a natural order."""
    lexical: bool = True
    """In mode `target`: score n-grams against the sample."""
    novelty: bool = True
    """Score n-grams that have been trained on already."""
    buckets: bool = True
    """Keep a record of loss and progress for each of 32 kinds of text."""
    uncertainty: bool = True
    """Keep a last-layer Laplace posterior; `knobs.uncertainty` lets it weigh."""
    policy: bool = False
    """Let a bandit choose temperature and weights."""
    switch: bool = False
    """Stop scoring, for some hundred steps at a time, where what is drawn has hardly
    more learning progress than what is offered."""
    knobs: KnobsConfig = KnobsConfig()


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """In which order: easy before hard, short before long."""

    difficulty: Literal[
        "none",
        "rarity",
        "surprisal",
        "compression",
        "length",
        "loss",
        "entropy",
        "progress",
    ] = "none"
    """What makes a window hard; loss and entropy by a forward pass over candidates."""
    pacing: Literal[
        "constant", "linear", "root", "exponential", "step", "logistic", "fixed_root"
    ] = "linear"
    """How the admitted share of difficulty grows."""
    start: float = 0.3
    """Admitted at the first step: this easiest share."""
    until: float = 0.3
    """Share of the steps after which all is admitted."""
    candidates: int = 4
    """Windows offered for each one that is trained on, without a selection."""
    lengths: str = ""
    """Length warm-up, such as `32:0.1,64:0.3`: windows are cut to 32 tokens for the
    first tenth of the steps, to 64 up to three tenths."""


@dataclasses.dataclass(frozen=True)
class GrowthConfig:
    """How the model changes its shape while it trains; `model` is what it starts as."""

    method: Literal["none", "fixed", "trigger", "probe", "learned"] = "none"
    """When the next stage of `plan` comes. fixed: at its share. trigger: once the loss
    falls too slowly for what a step costs. probe: once a grown copy does better than
    the model as it is, for the same FLOPs. learned: when a learned policy says so. All
    but `fixed` take a stage's share as the latest time."""
    plan: str = ""
    """Stages as field=size:share, rising in share, such as `depth=2:0.3,depth=4:0.6`;
    equal shares are one stage. Fields: depth, heads, hidden, width, experts,
    memory_rows, frozen. A smaller size prunes; frozen=2 ends the training of the first
    two blocks, frozen=0 thaws them."""
    depth: Literal["identity", "random", "stack", "interleave", "middle"] = "identity"
    """New layers. identity: copies of the top one with zero outputs; random: fresh ones
    with zero outputs (both keep the function). stack, interleave, middle: copies of all
    layers on top, of each beside it, of the middle one."""
    units: Literal["new", "split"] = "new"
    """New heads and MLP units. new: fresh, with zero outputs; split: halves of old ones
    that differ (both keep the function)."""
    moments: Literal["carry", "template", "reset"] = "carry"
    """The optimizer's state: moved as the parameters are, second moments of fresh
    entries filled with their leaf's mean; the same with zeros; or all made anew."""
    rewarm: int = 20
    """Steps over which the learning rate of fresh entries rises from 0."""
    every: float = 0.05
    """Share of the steps between two decisions."""
    earliest: float = 0.1
    """Share of the steps before which nothing is decided."""
    slope: float = 0.3
    """With trigger: grow once the loss falls by less than so many nats while the FLOPs
    spent grow by a factor e."""
    cost: float = 0.1
    """With learned: nats of loss that the FLOPs of a run at the final size are worth;
    high: never grow."""
    policy: str = ""
    """With learned: a policy's file, as `experiments.growth_policy --only train` and
    `growth.learned.save_policy` write it; empty: the shipped one."""
    probe_steps: int = 10
    """With probe: steps that the largest candidate is trained for (without `rewarm`);
    the others get as many FLOPs. All of them are charged."""
    prune: Literal["importance", "magnitude", "random"] = "importance"
    """Which heads, units and layers go: gradient times activation and measured loss on
    removal; least weights; at random."""
    look_every: int = 0
    """Steps between two looks at layers and heads for the report; charged. 0: never."""


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices per mesh axis; `data` 0 takes all that the other axes leave."""

    data: int = 0
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, how wide, how often."""

    steps: int = 400
    """With `target`: at most so many. Shares of the steps are of these; in what steps
    themselves see, such as annealing, of those up to the end once that is known."""
    target: float = 0.0
    """Bits per byte of the validation text at which the run is to end. The rate stays
    until a validation of the averaged weights says that a cool-down from here ends
    there (see measure/converged.py), or until a cool-down has to begin; those
    validations are charged as probes. Needs schedule `wsd` and `optim.average`. 0: all
    of `steps` are made."""
    cooldown: float = 0.25
    """With `target`: steps of the cool-down as a share of those before it."""
    batch: int = 32
    """Windows per step, over all devices and processes."""
    microbatches: int = 1
    """Parts that a batch is cut into, one after the other, to save memory."""
    seed: int = 0
    """Of the initial parameters and of the order of the data."""
    start: Literal["random", "counts"] = "random"
    """counts: embedding, head and n-gram tables begin in closed form, with what counts
    of the training text say (see models/closed_form.py); charged as statistics."""
    tune: str = ""
    """Settings that the run finds by itself before its first step, by short rehearsals
    that are charged as probes (see train/tuning.py), such as
    "optim.learning_rate=0.01,0.02,0.04; select.knobs.novelty=5,10". Empty: none."""
    tune_share: float = 0.1
    """Steps of all rehearsals as a share of `steps`."""
    eval_every: int = 100
    """Steps between validations; 0: only at the end."""
    eval_tokens: int = 100_000
    """Validation tokens read each time; 0: all of them."""
    checkpoint_every: int = 100
    """Steps between checkpoints; 0: only at the end."""
    keep: int = 2
    """Checkpoints kept."""
    on_bad_step: Literal["abort", "skip", "rollback"] = "abort"
    """Where loss, gradient or update is not finite, or the loss is a spike: end the run
    (exit 3), leave this update out, or go back to the last checkpoint and pass over
    the data since."""
    spike: float = 0.0
    """A loss this many standard deviations above its running mean is a bad step, too;
    0: never."""
    bad_steps: int = 10
    """Updates left out in a row, or rollbacks without a new checkpoint, after which
    the run ends."""
    watchdog: int = 1800
    """Seconds without progress after which a run of several processes ends (exit 124);
    longer than the longest compilation. 0: never."""
    baseline: str = ""
    """A file of `uets baseline`: every step then says how many times less it has cost
    than that run, undecayed as it is, had at the same loss. Empty: no comparison."""
    trackers: str = ""
    """Where metrics go besides metrics.jsonl: tensorboard, wandb, or both with a
    comma."""
    log_every: int = 20
    """Steps between progress lines where there is no terminal."""
    samples: int = 3
    """Texts generated for the report."""
    sample_tokens: int = 120
    """Tokens of each."""
    mesh: MeshConfig = MeshConfig()


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """One run. Every field can be set on the command line: `--model.depth 6`."""

    name: str = "run"
    """Of the run, and of its directory runs/NAME."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    select: SelectConfig = SelectConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    growth: GrowthConfig = GrowthConfig()
    train: TrainConfig = TrainConfig()


SNAPSHOT = "snapshot"  # as `select.reference`: the model before it last grew

# What may differ between a run and its continuation: no sample depends on it.
FREE_ON_RESUME = (
    "train.eval_every",
    "train.checkpoint_every",
    "train.log_every",
    "train.keep",
    "train.watchdog",
    "train.baseline",
    "train.trackers",
    "train.mesh.data",
    "train.mesh.fsdp",
    "train.mesh.tensor",
    "data.cache",
)


def to_dict(config: Any) -> dict[str, Any]:
    """The config as nested plain dicts, ready for JSON."""
    return dataclasses.asdict(config)


def to_json(config: ExperimentConfig) -> str:
    """Indented JSON that `from_dict` reads back to an equal config."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def config_hash(config: ExperimentConfig) -> str:
    """sha256 of the canonical JSON form."""
    text = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def replace_from_dict(base: Any, values: Any, where: str = "") -> Any:
    """`base` with the (nested) fields in `values` replaced and type-checked.

    Raises:
      UserError: naming an unknown key and the nearest known one, or a wrong value.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where or 'config'}: expected an object, got {values!r}")
    hints = typing.get_type_hints(type(base))
    names = {f.name for f in dataclasses.fields(base)}
    changes = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        if key not in names:
            raise UserError(f"unknown key {path!r}: {nearest(key, names)}")
        old = getattr(base, key)
        if dataclasses.is_dataclass(old):
            changes[key] = replace_from_dict(old, value, path)
        else:
            changes[key] = _checked(value, hints[key], path)
    return dataclasses.replace(base, **changes)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Values by dotted path as nested dicts."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def _checked(value: Any, hint: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise UserError(f"{path}: {value!r}: {nearest(str(value), choices)}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise UserError(f"{path}: expected {hint.__name__}, got {value!r}")
    return value


def window_length(config: ExperimentConfig) -> int:
    """Tokens per training window."""
    return config.data.length or config.model.context


def expert_rows(config: ModelConfig, tokens: int) -> int:
    """Rows that each expert computes in a forward pass over `tokens` tokens."""
    if not config.capacity:
        return tokens
    even = tokens * config.active_experts / config.experts
    return min(tokens, math.ceil(config.capacity * even))


def decay_share(config: ExperimentConfig) -> float:
    """Share of all steps over which `wsd` lowers the rate."""
    cooldown = config.train.cooldown
    return cooldown / (1 + cooldown) if config.train.target else config.optim.decay


def candidates(config: ExperimentConfig) -> int:
    """Windows offered for each one that is trained on; 1: there is no choice."""
    if config.select.method != "none":
        return config.select.candidates
    return config.curriculum.candidates if config.curriculum.difficulty != "none" else 1


def piece(config: ExperimentConfig) -> int:
    """Consecutive windows that are offered together."""
    return config.select.run if config.select.method == "aql" else 1
