from uets_jax.data.builtin import read_builtin
from uets_jax.data.files import SECTION


def test_megabytes_of_real_text_in_bounded_documents():
    texts = list(read_builtin())
    sizes = [len(text.encode()) for text in texts]
    assert sum(sizes) >= 6_000_000
    assert 0 < min(sizes) <= max(sizes) <= SECTION
    assert len(set(texts)) > 0.95 * len(texts)
    assert list(read_builtin()) == texts


def test_sources_and_prose_but_no_tests_and_no_tables():
    whole = "".join(read_builtin())
    assert "class ArgumentParser(" in whole
    assert 'The "assert" statement\n' in whole or "assert" in whole
    assert "class TestCase(object):\n" in whole or "class TestCase" in whole
    assert "decoding_table = (" not in whole
    assert "html5 = {" not in whole
    assert "support.run_unittest" not in whole
