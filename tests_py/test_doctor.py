"""bitnet doctor: what it checks, and its status."""

import json

import pytest

import bitnet_rust
from bitnet_rust import _bitnet, diagnosis
from conftest import Terminal


def test_doctor_checks_kernels_settings_and_extras(bitnet: Terminal) -> None:
    status, out, err = bitnet("doctor", "--json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states["kernels"] == states["settings"] == states["model cache"] == "ok"
    assert {check["isa"] for check in found["kernels"]} == set(bitnet_rust.build_info()["supported_isas"])
    assert {"serve", "viz", "torch", "onnx"} <= set(found["extras"])
    text = bitnet("doctor")[1]
    assert text.startswith(f"bitnet-rust {bitnet_rust.__version__}, Python ")
    build = found["build"]
    shown = {check["name"]: check["found"] for check in found["checks"]}
    assert all(feature in shown["processor"] for feature in build["features"])
    assert f"{found['memory']['budget'] / 1e9:,.1f} GB" in shown["memory"]
    assert f"numpy {found['packages']['numpy']}" in shown["packages"]
    assert all(name in text for name in shown)


def test_a_wrong_kernel_and_an_unwritable_cache_are_status_1(bitnet: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = json.dumps([{"kernel": "attention", "isa": "avx2", "error": "cpu: result 3 of 9"}])
    monkeypatch.setattr(_bitnet, "selftest_kernels", lambda: bad)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/proc/none")
    status, out, _ = bitnet("doctor")
    assert status == 1
    assert "attention on avx2: cpu: result 3 of 9" in out
    assert "/proc/none cannot be written to" in out


def test_missing_extras_have_their_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "_version", lambda package: None)
    _, checks = diagnosis.diagnose([], [])
    (serve,) = [check for check in checks if check.name == "extra serve"]
    assert (serve.state, serve.found) == ("note", "not installed: pip install 'bitnet-rust[serve]'")
