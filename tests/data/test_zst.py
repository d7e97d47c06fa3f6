import io
import json
import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from uets_jax.data import zst
from uets_jax.data.faults import BadDocument, Faults
from uets_jax.data.files import read_files
from uets_jax.data.jsonl import read_jsonl
from uets_jax.data.zst import PIECE, WINDOW, ZstandardFile, open_zstandard
from uets_jax.errors import UserError

TEXT = "".join(f"line {i} {i**3}\n" for i in range(9000)).encode()
SKIPPABLE = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"  # RFC 8878, section 3.1.2


def pack(raw: bytes, **options) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(raw)


def long_window(raw: bytes, log: int) -> bytes:
    """A frame of unknown length that asks for a window of 2**log bytes."""
    options = zstandard.ZstdCompressionParameters(window_log=log)
    frame = zstandard.ZstdCompressor(compression_params=options).compressobj()
    return frame.compress(raw) + frame.flush()


def unpack(packed: bytes) -> bytes:
    with io.BufferedReader(ZstandardFile(io.BytesIO(packed))) as stream:
        return stream.read()


@given(st.lists(st.binary(max_size=2 * PIECE), max_size=6))
def test_all_frames_join_to_the_whole(parts):
    packed = SKIPPABLE.join(pack(part, write_checksum=True) for part in parts)
    assert unpack(packed) == b"".join(parts)


def test_a_cut_anywhere_is_no_silent_end():
    packed = pack(TEXT[:2000]) + pack(TEXT[2000:4000])
    border = len(pack(TEXT[:2000]))
    for end in range(1, len(packed), 7):
        if end == border:
            continue
        with pytest.raises(EOFError):
            unpack(packed[:end])
    assert unpack(packed[:border]) == TEXT[:2000]


def test_damage_is_found():
    packed = pack(TEXT[:20_000], write_checksum=True)
    for at in range(0, len(packed), 53):
        damaged = packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :]
        with pytest.raises((BadDocument, EOFError)):
            unpack(damaged)
    for junk in (b"plain text", packed + b"junk"):
        with pytest.raises(BadDocument, match="can't be unpacked"):
            unpack(junk)


def test_reads_again_from_the_start():
    with io.BufferedReader(ZstandardFile(io.BytesIO(pack(TEXT))), 100) as stream:
        assert stream.readline() == b"line 0 0\n"
        assert len(stream.read()) == len(TEXT) - 9
        stream.seek(0)
        assert stream.read() == TEXT
        with pytest.raises(io.UnsupportedOperation):
            stream.seek(5)


def test_a_window_that_would_fill_the_memory_is_refused():
    assert unpack(long_window(TEXT, 27)) == TEXT
    with pytest.raises(BadDocument, match="a window above 128 MiB") as caught:
        unpack(long_window(TEXT, 28))
    assert caught.value.reason == "unsupported"
    assert WINDOW == 2**27


def test_a_bomb_is_read_in_bounded_memory(tmp_path):
    with open(tmp_path / "a.zst", "wb") as target:
        writer = zstandard.ZstdCompressor().stream_writer(target)
        for _ in range(512):
            writer.write(b"x" * 2**20)
        writer.close()
    assert (tmp_path / "a.zst").stat().st_size < 2**16
    total = 0
    tracemalloc.start()
    with open_zstandard(str(tmp_path / "a.zst")) as stream:
        while block := stream.read(2**20):
            total += len(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 2**29
    assert peak < 48 * 2**20


def test_files_and_json_lines_may_be_packed(tmp_path):
    rows = "\n".join(json.dumps({"text": f"é {i}"}) for i in range(3000))
    (tmp_path / "a.jsonl.zst").write_bytes(pack(rows.encode()))
    (tmp_path / "b.txt.zstd").write_bytes(pack(TEXT))
    read = read_jsonl(f"{tmp_path}/a.jsonl.zst:text", Faults("error"))
    assert list(read) == [f"é {i}" for i in range(3000)]
    parts = list(read_files(f"{tmp_path}/b*", Faults("error")))
    assert "".join(parts).encode() == TEXT
    assert len(parts) > 1


def test_what_came_before_the_damage_is_kept(tmp_path):
    rows = [json.dumps({"text": f"{i} {i**9}"}) for i in range(20_000)]
    raw = pack("\n".join(rows).encode())
    (tmp_path / "a.zst").write_bytes(raw[: len(raw) // 2])
    faults = Faults("skip")
    assert 1000 < len(list(read_jsonl(f"{tmp_path}/a.zst", faults))) < 19_000
    assert faults.counts == {"truncated": 1}


def test_the_package_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(zst.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.zst").write_bytes(pack(b"a"))
    with pytest.raises(UserError, match="needs a package: pip install zstandard"):
        list(read_files(f"{tmp_path}/a.zst", Faults("skip")))
