"""Environment variables: defaults, values, and nonsense refused by name."""

from dataclasses import fields

import pytest

from parakeet_worker.settings import Settings, SettingsError


def test_an_empty_environment_gives_the_embedded_model():
    settings = Settings.from_env({})
    assert settings.model_dir.name == "parakeet-tdt-mini"
    assert settings.cpu_threads >= 1


def test_an_empty_variable_is_unset():
    assert Settings.from_env({field.metadata["variable"]: " " for field in fields(Settings)}) == Settings.from_env({})


def test_values_are_typed():
    environ = {"PARAKEET_DEVICE": "cpu", "PARAKEET_CPU_THREADS": "3", "PARAKEET_MAX_DOWNLOAD_MB": "5"}
    settings = Settings.from_env(environ)
    assert (settings.device, settings.cpu_threads, settings.max_download_mb) == ("cpu", 3, 5)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PARAKEET_MODEL_DIR", "/nowhere"),
        ("PARAKEET_MODEL_DIR", "tests"),
        ("PARAKEET_DEVICE", "gpu"),
        ("PARAKEET_CPU_THREADS", "0"),
        ("PARAKEET_CPU_THREADS", "two"),
        ("PARAKEET_MAX_DOWNLOAD_MB", "-1"),
        ("PARAKEET_MAX_DOWNLOAD_MB", "1.5"),
        ("PARAKEET_DOWNLOAD_TIMEOUT_S", "٣"),
    ],
)
def test_nonsense_is_refused_by_name(variable, value):
    with pytest.raises(SettingsError, match=variable):
        Settings.from_env({variable: value})
