import gzip
import io
import lzma
import os

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.data.faults import Faults
from uets_jax.data.files import SECTION, lines, matching, read_files, sections
from uets_jax.errors import UserError


def damaged_packs(text: bytes) -> dict[str, tuple[str, bytes]]:
    packed, xz = gzip.compress(text), lzma.compress(text)
    zst = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    return {
        "truncated gz": ("a.gz", packed[: len(packed) // 2]),
        "truncated xz": ("a.xz", xz[: len(xz) // 2]),
        "empty xz": ("a.xz", b""),
        "corrupt gz": ("a.gz", packed[:30] + b"\xff\xff\xff" + packed[33:]),
        "corrupt xz": ("a.xz", xz[:40] + bytes(b ^ 255 for b in xz[40:50]) + xz[50:]),
        "no gz at all": ("a.gz", text),
        "truncated zst": ("a.zst", zst[: len(zst) // 2]),
        "corrupt zst": ("a.zstd", zst[:40] + b"\xff\xff\xff" + zst[43:]),
        "empty zst": ("a.zst", b""),
        "not UTF-8": ("a.txt", "café".encode("latin-1")),
        "UTF-16": ("a.txt", text.decode().encode("utf-16")),
        "NUL byte": ("a.txt", b"a\0b"),
        "empty": ("a.txt", b""),
        "empty gz": ("a.gz", b""),
        "nothing but a byte order mark": ("a.txt", b"\xef\xbb\xbf"),
    }


BAD = damaged_packs(os.urandom(3000).hex().encode())


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_one_line_or_counted(tmp_path, case):
    name, content = BAD[case]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text("fine")
    with pytest.raises(UserError, match=str(tmp_path / name)) as caught:
        list(read_files(f"{tmp_path}/*", Faults("error")))
    assert "\n" not in str(caught.value)
    faults = Faults("skip")
    assert list(read_files(f"{tmp_path}/*", faults))[-1] == "fine"
    assert sum(faults.counts.values()) == 1


def test_directories_pipes_and_dangling_links_are_faults(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "z.txt").write_text("fine")
    for name in ("folder", "pipe", "link"):
        with pytest.raises(UserError, match=name):
            list(read_files(str(tmp_path / name), Faults("error")))
    faults = Faults("skip")
    assert list(read_files(f"{tmp_path}/*", faults)) == ["fine"]
    assert faults.counts == {"directory": 1, "unreadable": 2}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path):
    (tmp_path / "a").write_text("secret")
    (tmp_path / "a").chmod(0)
    with pytest.raises(UserError, match="can't be read"):
        list(read_files(f"{tmp_path}/a", Faults("error")))


def test_names_the_line_of_the_bad_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\n\n" * 20_000 + b"two\nthree \xff")
    with pytest.raises(UserError, match="line 40002: not UTF-8"):
        list(read_files(f"{tmp_path}/a.txt", Faults("error")))


def test_one_bad_section_does_not_cost_the_others(tmp_path):
    good = ("word " * 20 + "\n\n") * 2000
    (tmp_path / "a.txt").write_bytes(good.encode() + b"\0" + good.encode())
    faults = Faults("skip")
    kept = sum(map(len, read_files(f"{tmp_path}/a.txt", faults)))
    assert faults.counts == {"NUL byte": 1}
    assert 2 * len(good) - SECTION <= kept < 2 * len(good)


def test_packed_and_plain_files_read_alike_in_the_order_of_paths(tmp_path):
    text = "Grüße\n\n" * 30_000
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "c.txt").write_text(text, "utf-8-sig")
    (tmp_path / "b.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.xz").write_bytes(lzma.compress(text.encode()))
    with_mark = b"\xef\xbb\xbf" + text.encode()
    (tmp_path / "c.zst").write_bytes(zstandard.ZstdCompressor().compress(with_mark))
    faults = Faults("error")
    for pattern in ("a.xz", "b.gz", "c.zst", "**/c.txt"):
        assert "".join(read_files(f"{tmp_path}/{pattern}", faults)) == text
    names = [os.path.relpath(path, tmp_path) for path in matching(f"{tmp_path}/**")]
    assert names == ["a.xz", "b.gz", "c.zst", "deep/er/c.txt"]


def test_no_match_is_always_an_error_and_a_name_is_taken_as_it_is(tmp_path):
    with pytest.raises(UserError, match="matches no file"):
        list(read_files(f"{tmp_path}/*.txt", Faults("skip")))
    (tmp_path / "a[1].txt").write_text("odd name")
    assert list(read_files(f"{tmp_path}/a[1].txt", Faults("error"))) == ["odd name"]


text = st.text(st.sampled_from("ab é漢🙂\n\r"), max_size=300)


@given(text, st.integers(4, 40))
def test_sections_join_to_the_whole_and_never_cut_a_character(text, size):
    parts = list(sections(io.BytesIO(text.encode()), size))
    assert all(0 < len(part) <= size for part in parts)
    assert "".join(part.decode() for part in parts) == text


def test_sections_end_after_blank_lines_else_lines():
    def cut(raw: bytes) -> list[bytes]:
        return list(sections(io.BytesIO(raw), 10))

    assert cut(b"aaaaa\n\nb\nccc") == [b"aaaaa\n\n", b"b\nccc"]
    assert cut(b"aaaa\r\n\r\nb\ncc") == [b"aaaa\r\n\r\n", b"b\ncc"]
    assert cut(b"aaaaaa\nbbbbbb") == [b"aaaaaa\n", b"bbbbbb"]
    assert cut(b"a" * 15) == [b"a" * 10, b"a" * 5]


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_lines_are_numbered_and_long_ones_dropped(rows):
    raw = b"\n".join(row.replace(b"\n", b"") for row in rows)
    whole = io.BytesIO(raw).readlines()
    want = [row if len(row.rstrip(b"\n")) <= 6 else None for row in whole]
    assert list(lines(io.BytesIO(raw), 6)) == list(enumerate(want, 1))
