"""The RunPod Hub's two files keep the Hub's rules, and say what the worker does."""

import json
import os
import re
import shutil
import struct
import subprocess
import tomllib
from dataclasses import fields
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from parakeet_worker.job.request import schema
from parakeet_worker.settings import Settings, SettingsError
from project import MODEL_DIR, ROOT, check_schema

HUB = json.loads((ROOT / ".runpod" / "hub.json").read_text())
TESTS = json.loads((ROOT / ".runpod" / "tests.json").read_text())
RULES = json.loads((ROOT / "tests" / "project" / "hub-schemas.json").read_text())
INPUTS = {variable["key"]: variable["input"] for variable in HUB["config"]["env"]}
VARIABLES = {setting.metadata["variable"]: setting for setting in fields(Settings)}

README = (ROOT / "README.md").read_text()
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()

# RunPod's pools from Ampere to Hopper, which have bfloat16 and which both builds of torch have code for. Their smallest
# GPUs have 16 GB.
POOLS = {"AMPERE_16", "AMPERE_24", "ADA_24", "AMPERE_48", "ADA_48_PRO", "AMPERE_80", "ADA_80_PRO", "HOPPER_141"}

# What RunPod's hosts say. A list of allowed versions names each: it is no minimum.
HOSTS = ["12.6", "12.7", "12.8", "12.9", "13.0", "13.1", "13.2", "13.3"]


@pytest.mark.parametrize(("name", "content"), [("hub", HUB), ("tests", TESTS)])
def test_the_documented_rules(name: Any, content: Any) -> None:
    Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": RULES["$defs"]}).validate(content)


def text(key: str, value: object) -> str:
    """What the Hub puts into the environment for an input's value."""
    if isinstance(value, bool):
        return INPUTS[key]["trueValue" if value else "falseValue"]  # type: ignore[no-any-return]
    return str(value)


def parse(key: str, value: object) -> object:
    """What a setting makes of an input's value; the image has its model elsewhere."""
    given = text(key, value).replace("/model", str(MODEL_DIR))
    return getattr(Settings.from_env({key: given}), VARIABLES[key].name)


def test_every_setting_is_there_with_its_default_and_meaning() -> None:
    ours = {key: given for key, given in INPUTS.items() if not key.startswith("RUNPOD_")}
    assert ours.keys() == VARIABLES.keys()
    for key, given in ours.items():
        assert parse(key, given["default"]) == getattr(Settings.from_env({}), VARIABLES[key].name)
        assert given["description"].startswith(VARIABLES[key].metadata["meaning"].replace("`", ""))


def test_the_image_has_its_model_where_the_hub_says() -> None:
    assert f"ENV PARAKEET_MODEL={INPUTS['PARAKEET_MODEL']['default']}\n" in (ROOT / "Dockerfile").read_text()


def test_whatever_can_be_chosen_is_taken() -> None:
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


def test_what_is_no_free_text_cannot_be_wrong() -> None:
    for key in VARIABLES:
        if INPUTS[key]["type"] == "string" and "options" not in INPUTS[key] and key != "PARAKEET_MODEL":
            with pytest.raises(SettingsError):
                parse(key, "nonsense")


def test_all_variables_are_documented() -> None:
    operate = (ROOT / "docs" / "operate.md").read_text()
    assert [key for key in INPUTS if f"`{key}" not in operate] == []


def newer_hosts(cuda: str) -> list[str]:
    """The hosts that run what is built for a version of CUDA: an older driver does not, and any newer one does."""
    return HOSTS[HOSTS.index(cuda) :]


def test_the_gpus_are_what_the_worker_runs_on() -> None:
    offered = HUB["config"]["gpuIds"].split(",")
    assert len(set(offered)) == len(offered)
    assert set(offered) == POOLS


def test_the_hosts_are_what_torch_runs_on() -> None:
    base = re.search(r"^ARG BASE_IMAGE=nvidia/cuda:(\d+\.\d+)\.", DOCKERFILE, re.MULTILINE)[1]  # type: ignore[index]
    for config in (HUB["config"], TESTS["config"]):
        assert config["allowedCudaVersions"] == newer_hosts(base)
    assert base == "13.0"
    assert "torch==2.13.0" in (ROOT / "requirements.txt").read_text()  # PyPI's is built for CUDA 13.0


def test_the_hosts_of_another_build_are_documented() -> None:
    """A row of the table: `TORCH_CUDA`, the base image, and the hosts that go with them."""
    rows = re.findall(
        r"^\| (?:`cu(\d\d)(\d)`|not set).*? \| `nvidia/cuda:(\d+\.\d+)\.\S+` .*\| `(\[.*\])` \|$", DEPLOY, re.MULTILINE
    )
    assert len(rows) == 2
    for major, minor, base, hosts in rows:
        assert f"{major or 13}.{minor or 0}" == base
        assert json.loads(hosts) == newer_hosts(base)


def test_the_hubs_tests_fit_any_gpu() -> None:
    """The Hub may run them on another GPU than the one that they name."""
    assert TESTS["config"].keys() == {"gpuTypeId", "gpuCount", "allowedCudaVersions"}
    assert all(test["timeout"] >= 300_000 for test in TESTS["tests"])


def test_the_icon_is_a_small_square_picture() -> None:
    path = HUB["iconUrl"].partition("/parakeet-worker/main/")[2]
    picture = (ROOT / path).read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert width == height >= 256
    assert len(picture) < 50_000


def owner() -> str:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    return re.fullmatch("https://github.com/([^/]+)/parakeet-worker", urls["Repository"])[1]  # type: ignore[index]


def test_one_account_owns_all_addresses() -> None:
    named = re.findall(r"/([^/\s]+)/parakeet-worker\b", README + HUB["iconUrl"])
    assert named == [owner()] * 4


def test_a_release_has_an_owner() -> None:
    git = shutil.which("git") or "true"  # without it nothing is tagged
    tags = subprocess.run([git, "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    is_release = os.environ.get("RELEASE") or re.search("^v[0-9]", tags.stdout, re.MULTILINE)
    assert owner() != "OWNER" or not is_release, "the account that the repository belongs to: see RELEASING.md"


def test_the_hubs_tests_pass_here(ask: Any) -> None:
    actions = []
    for test in TESTS["tests"]:
        answer = ask({"input": test["input"]})
        assert answer["status"] == "success"
        actions.append(test["input"].get("action", "transcribe"))
        check_schema(answer, actions[-1])
    assert set(actions) == {"transcribe", "model_info"}
    sent = {field for test in TESTS["tests"] for field in test["input"]}
    assert sent == schema("request")["properties"]["input"]["properties"].keys()


def test_what_the_hub_looks_for_is_there() -> None:
    for name in ("handler.py", "Dockerfile", "README.md"):
        assert (ROOT / name).is_file()
    assert "https://api.runpod.io/badge/" in (ROOT / "README.md").read_text()
