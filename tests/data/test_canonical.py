import json

import pytest

from uets_jax.data.bpe import from_tokenizer_json, train_bpe
from uets_jax.data.canonical import byte_characters, canonical, plain, two_files
from uets_jax.errors import UserError


@pytest.fixture(scope="module")
def trained():
    return train_bpe(["the cat sat on the mat\n" * 30], 270)


def test_the_byte_table_is_gpt2s():
    table = byte_characters()
    assert sorted(table.values()) == list(range(256))
    assert (table["a"], table["Ġ"], table["Ċ"]) == (ord("a"), ord(" "), ord("\n"))


def test_the_form_is_a_fixed_point(trained):
    assert canonical(json.loads(trained.to_json()), "x") == (trained.spec, trained.eot)


def test_two_files_make_the_same_vocabulary(trained):
    model = json.loads(trained.to_json())["model"]
    merges = "#version: 0.2\r\n" + "\r\n".join(map(" ".join, model["merges"]))
    data = two_files(json.dumps(model["vocab"]), merges, "here")
    assert data["model"]["merges"] == model["merges"]
    assert plain(data) == plain(json.loads(trained.to_json()))
    assert canonical(data, "here")[1] == trained.eot


def spoilt(trained, **changes):
    data = json.loads(trained.to_json())
    for key, value in changes.items():
        spot, *rest = key.split("__")
        inner = data[spot] if rest else data
        inner[rest[0] if rest else spot] = value
    return data


def test_what_is_no_byte_level_bpe_is_refused(trained):
    vocab = json.loads(trained.to_json())["model"]["vocab"]
    cases = [
        3,
        {},
        {"model": 3, "added_tokens": []},
        spoilt(trained, model__type="WordPiece"),
        spoilt(trained, pre_tokenizer=None),
        spoilt(trained, model__vocab={k: v for k, v in vocab.items() if k != "a"}),
        spoilt(trained, model__vocab=vocab | {"日本": 400}),
        spoilt(trained, added_tokens=[]),
    ]
    for data in cases:
        with pytest.raises(UserError, match=r"^here: "):
            from_tokenizer_json(data, "here")


def test_what_would_change_text_is_removed(trained):
    pre = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    lossy = spoilt(
        trained,
        normalizer={"type": "Lowercase"},
        pre_tokenizer=pre | {"use_regex": True},
    )
    again = from_tokenizer_json(lossy, "here")
    assert again == trained
    assert again.decode(again.encode("The Cat")) == "The Cat"
