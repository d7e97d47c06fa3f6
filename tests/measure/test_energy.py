import sys
import types

import pytest

from uets_jax.measure.energy import EnergyMeter


class NVMLError(Exception):
    pass


def nvml(readings, devices=2):
    """A stand-in for pynvml whose counters (mJ) read `readings` in turn."""
    values = iter(readings)

    def energy(handle):
        value = next(values)
        if value is None:
            raise NVMLError
        return value

    return types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: devices,
        nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )


def test_joules_are_the_counters_difference(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml([1000, 2000, 4000, 6000]))
    meter = EnergyMeter()
    assert meter.source == "nvml"
    assert meter.joules() == pytest.approx(7.0)


def test_without_a_counter_there_is_no_figure(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    meter = EnergyMeter()
    assert (meter.source, meter.joules()) == ("none", None)


def test_a_driver_that_fails_is_no_figure_either(monkeypatch):
    broken = nvml([])

    def fail():
        raise NVMLError

    broken.nvmlInit = fail
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    assert EnergyMeter().source == "none"
    monkeypatch.setitem(sys.modules, "pynvml", nvml([None], devices=1))
    meter = EnergyMeter()
    assert (meter.source, meter.joules()) == ("none", None)
