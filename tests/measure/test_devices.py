import json
import time

import jax
import pytest

from uets_jax.errors import UserError
from uets_jax.measure import devices
from uets_jax.measure.devices import SHIPPED, current, find, measured_cpu, read

NAMES = ["cpu", "rtx3070", "rtx3090", "a100-40gb", "a100-80gb", "h100", "h200"]
ROW = {**json.loads(SHIPPED.read_text())[0], "name": "mine", "device_kinds": ["My 1"]}

KINDS = {
    "NVIDIA GeForce RTX 3070": "rtx3070",
    "NVIDIA GeForce RTX 3070 Ti": None,
    "NVIDIA GeForce RTX 3070 Laptop GPU": None,
    "NVIDIA GeForce RTX 3090": "rtx3090",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100-SXM4-80GB": "a100-80gb",
    "NVIDIA A100 80GB PCIe": None,
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": None,
    "NVIDIA H200": "h200",
    "NVIDIA H200 NVL": None,
    "NVIDIA GH200 480GB": None,
    "TPU v5 lite": "tpu-v5e",
    "TPU v5": None,
    "TPU v6 lite": None,
}


@pytest.fixture(autouse=True)
def _no_table_of_the_user(monkeypatch):
    monkeypatch.delenv("UETS_DEVICES", raising=False)


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        (tmp_path / "mine.json").write_text(json.dumps(list(rows)))
        return str(tmp_path / "mine.json")

    return write


def test_the_shipped_table_has_every_device_and_its_source():
    table = read()
    assert list(table) == [*NAMES, "tpu-v5e"]
    for name, device in table.items():
        assert device.name == name
        assert device.peak("bfloat16") >= device.peak("float32")
        assert "price: " in device.source
        assert 1e9 < device.memory_bytes < 1e12
    assert hash(table["h100"]) != hash(table["h200"])
    assert table["h100"].peak("float32") < 1e14, "TF32 is not float32"


def test_a_name_is_found_or_the_nearest_is_named():
    assert find("h100").label == "NVIDIA H100 SXM"
    with pytest.raises(UserError, match="unknown device 'a100-80': did you mean 'a100"):
        find("a100-80")
    with pytest.raises(UserError, match="'h100' has no peak for 'float16': did you"):
        find("h100").peak("float16")


def test_own_devices_replace_or_join_the_shipped_ones(write, monkeypatch):
    path = write(ROW, {**ROW, "name": "h100", "watts": 1})
    assert list(read(path)) == [*NAMES, "tpu-v5e", "mine"]
    assert find("h100", path).watts == 1
    assert find("h100").watts == 700
    monkeypatch.setenv("UETS_DEVICES", path)
    assert find("mine").label == ROW["label"]


WRONG = {
    "unknown field 'watt': did you mean 'watts'": {"watt": 3},
    "watts: give a number above 0, not -1": {"watts": -1},
    "watts: give a number above 0, not True": {"watts": True},
    "watts: give a number above 0, not '9'": {"watts": "9"},
    "memory_bytes: give a number above 0, not nan": {"memory_bytes": float("nan")},
    "dollars_per_hour: give a number from 0, not None": {"dollars_per_hour": None},
    "mfu: give a share above 0, up to 1, not 40": {"mfu": 40},
    "flops: give an object": {"flops": {"float32": 1e9}},
    "flops: give an object with FLOP/s": {"flops": {"float32": 1, "bfloat16": 0}},
    "device_kinds: give a list of texts": {"device_kinds": "H100"},
    "source: give a text": {"source": ""},
    "note: give a text": {"note": 3},
}


@pytest.mark.parametrize("complaint", WRONG)
def test_a_wrong_field_is_named_with_its_file_and_device(write, complaint):
    path = write(ROW, {**ROW, "name": "other", **WRONG[complaint]})
    with pytest.raises(
        UserError, match=rf"{path}: device 2 \(other\): {complaint}"
    ) as e:
        read(path)
    assert "\n" not in str(e.value)


def test_a_table_that_is_none_is_told_in_one_line(write, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: can't be read \(No such file"):
        read(str(tmp_path / "nowhere.json"))
    with pytest.raises(UserError, match=r"device 1: expected an object, got 'cpu'"):
        read(write("cpu"))
    with pytest.raises(UserError, match=r"device 1: the field 'name' is missing"):
        read(write({k: v for k, v in ROW.items() if k != "name"}))
    with pytest.raises(UserError, match="two devices are called 'mine'"):
        read(write(ROW, ROW))
    path = tmp_path / "broken.json"
    for text, complaint in {"[": "broken JSON", "{}": "a list of devices"}.items():
        path.write_text(text)
        with pytest.raises(UserError, match=f"{path}: .*{complaint}"):
            read(str(path))


class Accelerator:
    platform = "gpu"

    def __init__(self, kind):
        self.device_kind = kind


@pytest.mark.parametrize("kind", KINDS)
def test_jax_device_kinds_are_recognised_but_not_those_of_other_cards(
    monkeypatch, kind
):
    monkeypatch.setattr(jax, "devices", lambda: [Accelerator(kind)])
    found = current()
    assert (found and found.name) == KINDS[kind]


def test_the_current_device_is_none_on_a_cpu_and_may_come_from_an_own_table(
    monkeypatch, write
):
    assert current() is None
    monkeypatch.setattr(jax, "devices", lambda: [Accelerator("Some My 1 chip")])
    found = current(write(ROW))
    assert found is not None
    assert found.name == "mine"


def test_this_cpu_is_measured_once():
    device = measured_cpu()
    start = time.perf_counter()
    assert measured_cpu() is device
    assert time.perf_counter() - start < 0.1
    assert device.name == "cpu"
    assert device.source.startswith("measured here; watts, price and mfu from devices")
    assert device.watts == find("cpu").watts
    # the slowest core of today and a whole server lie within
    assert 1e9 < device.peak("float32") < 1e14
    assert 1e8 < device.bandwidth_bytes_per_second < 1e13


def test_the_measured_figures_are_work_over_seconds(monkeypatch):
    seconds = iter([2.0, 1.0, 0.25])
    monkeypatch.setattr(devices, "_quickest", lambda run, times: next(seconds))
    device = measured_cpu.__wrapped__()
    assert device.flops == {"float32": 2 * 1024**3 / 2.0, "bfloat16": 2 * 1024**3}
    assert device.bandwidth_bytes_per_second == 2 * 2**26 / 0.25


def test_the_quickest_of_several_runs_counts():
    waits = iter([0.05, 0.0, 0.05])
    assert devices._quickest(lambda: time.sleep(next(waits)), 3) < 0.04


def test_without_jax_on_the_cpu_the_table_stands_in(monkeypatch):
    def none(backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", none)
    assert measured_cpu.__wrapped__() == find("cpu")
