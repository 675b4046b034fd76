"""The RunPod Hub's two files keep the Hub's rules, and say what the worker does."""

import json
import re
from dataclasses import fields

import pytest
from jsonschema import Draft202012Validator

from conftest import MODEL_DIR, ROOT, check_schema
from parakeet_worker.settings import Settings, SettingsError

HUB = json.loads((ROOT / ".runpod" / "hub.json").read_text())
TESTS = json.loads((ROOT / ".runpod" / "tests.json").read_text())
RULES = json.loads((ROOT / "tests" / "hub-schemas.json").read_text())
INPUTS = {variable["key"]: variable["input"] for variable in HUB["config"]["env"]}
VARIABLES = {setting.metadata["variable"]: setting for setting in fields(Settings)}

# Pools with a GPU that CUDA 13 supports and torch's wheels have code for (Turing and later), with 24 GB or more.
POOLS = {"AMPERE_24", "ADA_24", "ADA_32_PRO", "AMPERE_48", "ADA_48_PRO", "AMPERE_80", "ADA_80_PRO", "HOPPER_141"}


@pytest.mark.parametrize(("name", "content"), [("hub", HUB), ("tests", TESTS)])
def test_the_documented_rules(name, content):
    Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": RULES["$defs"]}).validate(content)


def text(key: str, value: object) -> str:
    """What the Hub puts into the environment for an input's value."""
    if isinstance(value, bool):
        return INPUTS[key]["trueValue" if value else "falseValue"]
    return str(value)


def parse(key: str, value: object) -> object:
    """What a setting makes of an input's value; the image has its model elsewhere."""
    given = text(key, value).replace("/model", str(MODEL_DIR))
    return getattr(Settings.from_env({key: given}), VARIABLES[key].name)


def test_every_setting_is_there_with_its_default_and_meaning():
    ours = {key: given for key, given in INPUTS.items() if key.startswith("PARAKEET_")}
    assert ours.keys() == VARIABLES.keys()
    for key, given in ours.items():
        assert parse(key, given["default"]) == getattr(Settings.from_env({}), VARIABLES[key].name)
        assert given["description"].startswith(VARIABLES[key].metadata["meaning"].replace("`", ""))


def test_the_image_has_its_model_where_the_hub_says():
    assert f"ENV PARAKEET_MODEL_DIR={INPUTS['PARAKEET_MODEL_DIR']['default']}\n" in (ROOT / "Dockerfile").read_text()


def test_whatever_can_be_chosen_is_taken():
    for key in VARIABLES:
        given = INPUTS[key]
        for value in (given.get("min"), given.get("max"), given.get("trueValue"), given.get("falseValue")):
            if value is not None:
                parse(key, value)
        chosen = [option["value"] for option in given.get("options", [])]
        assert len({parse(key, value) for value in chosen}) == len(chosen)
    for preset in HUB["config"]["presets"]:
        for key, value in preset["defaults"].items():
            parse(key, value)
            assert INPUTS[key]["min"] <= value <= INPUTS[key]["max"]


def test_what_is_no_free_text_cannot_be_wrong():
    for key in VARIABLES:
        if INPUTS[key]["type"] == "string" and "options" not in INPUTS[key] and key != "PARAKEET_MODEL_DIR":
            with pytest.raises(SettingsError):
                parse(key, "nonsense")


def test_all_variables_are_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [key for key in INPUTS if f"`{key}" not in readme] == []


def test_gpus_and_cuda_are_what_the_wheels_run_on():
    assert set(HUB["config"]["gpuIds"].split(",")) <= POOLS
    base = re.search(r"^ARG BASE_IMAGE=nvidia/cuda:(\d+\.\d+)\.", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert HUB["config"]["allowedCudaVersions"] == TESTS["config"]["allowedCudaVersions"] == [base[1]]
    assert "torch==2.13.0" in (ROOT / "requirements.txt").read_text()  # built with CUDA 13.0


def test_the_hubs_tests_pass_here(ask):
    actions = []
    for test in TESTS["tests"]:
        answer = ask({"input": test["input"]})
        assert answer["status"] == "success"
        actions.append(test["input"].get("action", "transcribe"))
        check_schema(answer, actions[-1])
    assert set(actions) == {"transcribe", "model_info"}


def test_what_the_hub_looks_for_is_there():
    for name in ("handler.py", "Dockerfile", "README.md"):
        assert (ROOT / name).is_file()
    assert "https://api.runpod.io/badge/" in (ROOT / "README.md").read_text()
