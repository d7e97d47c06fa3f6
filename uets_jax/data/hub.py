"""A data set of the Hugging Face Hub, or of a folder, opened as a stream.

The Hub is asked once, briefly, before `datasets` asks it with long retries.
"""

import os
from typing import Any

from uets_jax.errors import UserError, nearest

PATIENCE = 10.0  # seconds that the Hub has for its first answer
SHOWN = 12  # names listed at most
_GATED = (
    "gated: ask for access at https://huggingface.co/datasets/{repo} and set $HF_TOKEN"
)


def open_stream(repo: str, config: str, split: str, where: str) -> Any:
    """The rows of one split as a `datasets.IterableDataset`.

    repo: an absolute path, or a name on the Hub.
    config: empty for the default one.
    where: how errors begin.

    Raises:
      UserError: no such data set, config or split, no access to it, or the package
        `datasets` is missing.
    """
    datasets = _package(where)
    repo = repo if os.path.isabs(repo) else _on_the_hub(repo, where)
    try:
        return datasets.load_dataset(repo, config or None, split=split, streaming=True)
    except Exception as error:
        raise UserError(f"{where}: {_why(error, repo, config, split)}") from None


def listed(names: list[str]) -> str:
    """The first names of a list that may be long."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def one_line(error: Exception) -> str:
    """Kind and message of an error, cut short."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _package(where: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f'{where} needs a package: pip install "uets_jax[hf]"'
        ) from None
    if int(datasets.__version__.partition(".")[0]) < 4:
        raise UserError(
            f"{where}: datasets {datasets.__version__} may run code of a data set: "
            'pip install "datasets>=4"'
        )
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()  # it names broken files
    return datasets


def _on_the_hub(repo: str, where: str) -> str:
    """The full name; one request, without the long retries of `load_dataset`."""
    from huggingface_hub import HfApi, errors

    try:
        return HfApi().dataset_info(repo, timeout=PATIENCE).id
    except errors.GatedRepoError:
        why = _GATED.format(repo=repo)
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        why = "not on the Hub, or private: check the name, or set $HF_TOKEN"
    except errors.OfflineModeIsEnabled:
        why = "$HF_HUB_OFFLINE forbids the Hub: unset it, or give a folder"
    except errors.HfHubHTTPError as error:
        why = f"the Hub refuses (HTTP {error.response.status_code}): try again later"
    except Exception as error:
        why = f"can't reach the Hub ({one_line(error)}): give a folder, or try later"
    raise UserError(f"{where}: {why}")


def _why(error: Exception, repo: str, config: str, split: str) -> str:
    """What went wrong when the data set was opened, and the mend."""
    text = one_line(error)
    if "Dataset scripts are no longer supported" in text:
        return "has a loading script, which is never run; use a copy in parquet files"
    if "is a gated dataset" in text:
        return _GATED.format(repo=repo)
    if "any data file" in text:
        return "holds no data files (parquet, JSON lines, CSV, text)"
    return _choice(repo, config, split) or f"can't be opened ({text})"


def _choice(repo: str, config: str, split: str) -> str:
    """Which configs or splits there are, where the one asked for is not; else ""."""
    import datasets

    try:
        configs = datasets.get_dataset_config_names(repo)
        if config and config not in configs:
            return f"no config {config!r}: {_hint(config, configs)}"
        if not config and not datasets.get_dataset_default_config_name(repo):
            known = listed(configs)
            return f"give one of its configs as hf:REPO:CONFIG; it has {known}"
        splits = datasets.get_dataset_split_names(repo, config or None)
    except Exception:
        return ""
    if split not in splits:
        return f"no split {split!r}: {_hint(split, splits)}"
    return ""


def _hint(word: str, known: list[str]) -> str:
    hint = nearest(word, known)
    return hint if hint.startswith("did you") else "choose from " + listed(known)
