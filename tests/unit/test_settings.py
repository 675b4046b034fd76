"""Environment variables: defaults, values, and nonsense refused by name."""

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from requests.utils import get_environ_proxies, select_proxy

from parakeet_worker.serverless.platform import is_on_runpod
from parakeet_worker.settings import Settings, SettingsError, is_log_json
from parakeet_worker.startup import build_worker, is_gpu_missing


def test_an_empty_environment_gives_the_embedded_model() -> None:
    settings = Settings.from_env({})
    assert settings.model.name == "parakeet-tdt-mini"
    assert settings.cpu_threads >= 1


def test_an_empty_variable_is_unset() -> None:
    assert Settings.from_env({field.metadata["variable"]: " " for field in fields(Settings)}) == Settings.from_env({})


def test_values_are_typed() -> None:
    environ = {"PARAKEET_DEVICE": "cpu", "PARAKEET_CPU_THREADS": "3", "PARAKEET_MAX_DOWNLOAD_MB": "5"}
    settings = Settings.from_env(environ | {"PARAKEET_SEGMENT_PAUSE_S": "0.8"})
    assert settings.segment_pause_s == 0.8
    assert (settings.device, settings.cpu_threads, settings.max_download_mb) == ("cpu", 3, 5)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PARAKEET_MODEL", "/nowhere"),
        ("PARAKEET_MODEL", "tests"),
        ("PARAKEET_DEVICE", "gpu"),
        ("PARAKEET_CPU_THREADS", "0"),
        ("PARAKEET_CPU_THREADS", "two"),
        ("PARAKEET_MAX_DOWNLOAD_MB", "-1"),
        ("PARAKEET_MAX_DOWNLOAD_MB", "1.5"),
        ("PARAKEET_DOWNLOAD_TIMEOUT_S", "٣"),
        ("PARAKEET_MAX_AUDIO_MINUTES", "9" * 5_000),
        ("PARAKEET_SEGMENT_PAUSE_S", "0.09"),
        ("PARAKEET_SEGMENT_PAUSE_S", "30.1"),
        ("PARAKEET_SEGMENT_PAUSE_S", "nan"),
        ("PARAKEET_SEGMENT_PAUSE_S", "1e0"),
        ("PARAKEET_SEGMENT_PAUSE_S", "-1"),
    ],
)
def test_nonsense_is_refused_by_name(variable: Any, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} must be .*; it is "):
        Settings.from_env({variable: value})


@pytest.mark.parametrize(("text", "reason"), [("x" * 300, "File name too long"), ("~nobody-here/x", "home directory")])
def test_a_path_that_cannot_be_looked_at_is_refused_by_name(text: Any, reason: Any) -> None:
    with pytest.raises(SettingsError, match=f"^PARAKEET_MODEL cannot be used .*{reason}.*; it is '{text}'"):
        Settings.from_env({"PARAKEET_MODEL": text})


@pytest.mark.parametrize(("download", "disk", "most"), [("5", "7", 5_000_000), ("7", "5", 5_000_000)])
def test_no_file_is_larger_than_the_disk(download: Any, disk: Any, most: Any) -> None:
    settings = Settings.from_env({"PARAKEET_MAX_DOWNLOAD_MB": download, "PARAKEET_MAX_DISK_MB": disk})
    assert settings.max_file_bytes == most


@pytest.mark.parametrize("card", ["", "[]", "{}", '{"name": "x"}'])
def test_a_damaged_card_is_refused_by_name(tmp_path: Path, card: Any) -> None:
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(SettingsError, match=r"^PARAKEET_MODEL must be the directory of a baked model"):
        build_worker(Settings.from_env({"PARAKEET_MODEL": str(tmp_path)}))


@pytest.mark.parametrize(
    ("variable", "most"),
    [
        ("PARAKEET_CONCURRENCY", 1_024),
        ("PARAKEET_BATCH_SECONDS", 100_000),
        ("PARAKEET_CPU_THREADS", 1_024),
        ("PARAKEET_MAX_DOWNLOAD_MB", 100_000),
        ("PARAKEET_DOWNLOAD_TIMEOUT_S", 86_400),
        ("PARAKEET_MAX_DISK_MB", 1_000_000),
        ("PARAKEET_MAX_AUDIO_MINUTES", 1_440),
        ("PARAKEET_PASS_SECONDS", 86_400),
    ],
)
def test_numbers_have_two_ends(variable: Any, most: Any) -> None:
    (setting,) = [field for field in fields(Settings) if field.metadata["variable"] == variable]
    for number in (1, most):
        assert getattr(Settings.from_env({variable: f" {number} "}), setting.name) == number
    auto = "auto or " if setting.metadata["default"] == "auto" else ""
    for number in (0, most + 1):
        with pytest.raises(SettingsError) as refused:
            Settings.from_env({variable: str(number)})
        assert str(refused.value) == f"{variable} must be {auto}a whole number from 1 to {most}; it is '{number}'"


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("PARAKEET_CONCURENCY", "PARAKEET_CONCURRENCY"),
        ("PARAKEET_MODEL_DIR", "PARAKEET_MODEL"),
        ("PARAKEET_MAX_MINUTES", "PARAKEET_MAX_AUDIO_MINUTES"),
        ("PARAKEET_LOGFORMAT", "PARAKEET_LOG_FORMAT"),
    ],
)
def test_what_is_no_setting_is_refused_with_the_nearest_name(variable: Any, meant: Any) -> None:
    for value in ("8", ""):
        with pytest.raises(SettingsError) as refused:
            Settings.from_env({"PATH": "/bin", "RUNPOD_POD_ID": "1", variable: value})
        assert str(refused.value) == f"{variable} is not a setting; did you mean {meant}?"


@pytest.mark.parametrize("variable", ["PARAKEET_", "PARAKEET_日本", "PARAKEET_XQZ", "PARAKEET_BUCKET_NAME"])
def test_there_is_always_a_nearest_name(variable: Any) -> None:
    with pytest.raises(SettingsError, match=f"^{variable} is not a setting; did you mean PARAKEET_[A-Z_]+\\?$"):
        Settings.from_env({variable: "x"})


BUCKET = {
    "BUCKET_ENDPOINT_URL": "https://bucket.s3.eu-west-1.amazonaws.com",
    "BUCKET_ACCESS_KEY_ID": "id-1",
    "BUCKET_SECRET_ACCESS_KEY": "hunter2",
}


def test_a_bucket_is_all_of_its_variables() -> None:
    settings = Settings.from_env(BUCKET | {"BUCKET_NAME": " results "})
    found = (settings.bucket_endpoint_url, settings.bucket_access_key_id, settings.bucket_secret_access_key)
    assert found == tuple(BUCKET.values())
    assert settings.bucket_name == "results"
    assert "hunter2" not in repr(settings)
    assert Settings.from_env(dict.fromkeys(BUCKET, " ")).bucket_endpoint_url == ""


@pytest.mark.parametrize("missing", BUCKET)
@pytest.mark.parametrize("value", [None, " "])
def test_a_part_of_a_bucket_is_refused_by_what_is_missing(missing: Any, value: Any) -> None:
    environ = {name: given for name, given in (BUCKET | {missing: value}).items() if given is not None}
    with pytest.raises(
        SettingsError, match=f"^{missing} must be set, as BUCKET_[A-Z_]+ is; a bucket needs "
    ) as refused:
        Settings.from_env(environ)
    assert "hunter2" not in str(refused.value)


def test_a_name_alone_is_no_bucket() -> None:
    with pytest.raises(SettingsError, match=r"^BUCKET_ENDPOINT_URL must be set, as BUCKET_NAME is"):
        Settings.from_env({"BUCKET_NAME": "results"})


@pytest.mark.parametrize("address", ["bucket.s3.amazonaws.com", "ftp://bucket/", "https://", "https:///x"])
def test_the_address_of_a_bucket_is_one_of_the_web(address: Any) -> None:
    with pytest.raises(SettingsError, match=r"^BUCKET_ENDPOINT_URL must be an http: or https: URL; it is "):
        Settings.from_env(BUCKET | {"BUCKET_ENDPOINT_URL": address})


def test_the_form_of_the_log_is_known_whatever_the_rest() -> None:
    assert is_log_json({"PARAKEET_LOG_FORMAT": " json ", "PARAKEET_DEVICE": "gpu"})
    assert not is_log_json({"PARAKEET_LOG_FORMAT": "xml"})
    assert not is_log_json({})


def test_runpod_is_known_by_its_variables() -> None:
    assert is_on_runpod({"RUNPOD_WEBHOOK_GET_JOB": "https://…"})
    assert is_on_runpod({"RUNPOD_POD_ID": "x"})
    assert not is_on_runpod({"RUNPOD_LOG_LEVEL": "INFO"})


@pytest.mark.parametrize(
    ("chosen", "found", "has_gpu", "variables", "expected"),
    [
        ("auto", "cpu", True, {}, True),
        ("auto", "cpu", False, {"RUNPOD_POD_ID": "x"}, True),
        ("auto", "cpu", False, {}, False),
        ("auto", "cuda", True, {"RUNPOD_POD_ID": "x"}, False),
        ("cpu", "cpu", True, {"RUNPOD_POD_ID": "x"}, False),
    ],
)
def test_a_fallback_is_known(
    chosen: Any, found: Any, has_gpu: Any, variables: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("RUNPOD_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # The device file of a GPU cannot be had here.
    monkeypatch.setattr(Settings, "is_gpu_expected", property(lambda _: has_gpu))
    assert is_gpu_missing(Settings.from_env({"PARAKEET_DEVICE": chosen}), found) is expected


@pytest.mark.parametrize(
    "variable", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
)
@pytest.mark.parametrize(
    "bypass", [{}, {"NO_PROXY": "localhost,.internal"}, {"NO_PROXY": "*", "no_proxy": "localhost"}]
)
def test_a_proxy_is_refused_without_its_password(variable: Any, bypass: Any) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({variable: "http://user:hunter2@proxy.internal:3128", **bypass})
    assert str(raised.value) == f"{variable} is set, and nothing is downloaded through a proxy: unset it"


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTPS_PROXY": ""},
        {"HTTPS_PROXY": "http://proxy:1", "https_proxy": ""},
        {"HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "*"},
        {"HTTPS_PROXY": "http://proxy:1", "no_proxy": "*"},
        {"FTP_PROXY": "http://proxy:1", "NO_PROXY": "localhost"},
    ],
)
def test_no_proxy_is_none(environ: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Settings.from_env(environ)
    for variable in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    for url in ("http://example.com/", "https://example.com/"):
        assert select_proxy(url, get_environ_proxies(url)) is None
