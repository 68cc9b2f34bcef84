from __future__ import annotations

import hashlib
import json
from typing import Any

import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.ollama_api.catalog import CatalogModel, ps, same_names, show, tags, version
from synapse_gateway.ollama_api.replies import timestamp
from tests.exchanges.wire import load

KNOWN = CatalogModel(
    name="smollm2:latest",
    size=98_363_007,
    size_loaded=190_948_608,
    size_vram=90_000_000,
    digest="ab" * 32,
    format="gguf",
    family="llama",
    parameter_size="134.52M",
    quantization_level="Q4_1",
    context_length=4096,
    embedding_length=576,
    modified_at="2026-11-21T10:39:58.437313985Z",
    expires_at="2026-11-21T10:45:01.428743758Z",
)
BARE = CatalogModel(name="org/some-model", capabilities=("embedding",))


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value)


def test_tags_has_the_shape_that_was_recorded_and_the_official_client_reads_it() -> None:
    answer = tags([BARE, KNOWN])
    assert shape(json.loads(answer)) == shape(load("ollama", "tags").json())
    first, second = ollama.ListResponse.model_validate_json(answer).models
    assert (first.model, second.model) == ("smollm2:latest", "org/some-model")
    assert first.size == 98_363_007
    assert first.details is not None
    assert first.details.families == ["llama"]


def test_ps_lists_what_is_loaded_as_recorded() -> None:
    idle = CatalogModel(name="idle", loaded=False)
    answer = ps([KNOWN, idle, BARE])
    for_good, soon = json.loads(answer)["models"]
    assert shape({"models": [soon]}) == shape(load("ollama", "ps_loaded").json())
    assert soon["expires_at"] == "2026-11-21T10:45:01.428743758Z"
    assert (soon["size"], soon["size_vram"]) == (190_948_608, 90_000_000)
    assert for_good["expires_at"].startswith("2262-04-11T")
    names = [model.name for model in ollama.ProcessResponse.model_validate_json(answer).models]
    assert names == ["org/some-model", "smollm2:latest"]


def test_the_size_on_disk_stands_in_for_an_unknown_size_in_memory() -> None:
    assert json.loads(ps([CatalogModel(name="m", size=7)]))["models"][0]["size"] == 7


def test_show_tells_the_context_length_where_clients_look_for_it() -> None:
    answer = ollama.ShowResponse.model_validate_json(show(KNOWN))
    real = load("ollama", "show").json()["model_info"]
    assert answer.modelinfo is not None
    for key in answer.modelinfo:
        assert shape(answer.modelinfo[key]) == shape(real[key])
    assert answer.modelinfo["llama.context_length"] == 4096
    assert answer.capabilities == ["completion"]


def test_show_of_an_unknown_architecture_says_so() -> None:
    answer = json.loads(show(BARE))
    assert answer["model_info"] == {"general.architecture": "unknown"}
    assert answer["capabilities"] == ["embedding"]
    assert set(answer) <= set(load("ollama", "show").json())


def test_what_is_told_of_a_file_is_told_on() -> None:
    (model,) = json.loads(tags([KNOWN]))["models"]
    assert model["modified_at"] == "2026-11-21T10:39:58.437313985Z"
    assert (model["size"], model["digest"]) == (98_363_007, "ab" * 32)
    several = CatalogModel(name="m", family="mllama", families=("mllama", "clip"))
    assert json.loads(tags([several]))["models"][0]["details"]["families"] == ["mllama", "clip"]


def test_a_time_that_is_not_known_is_the_one_that_clients_show_as_never() -> None:
    assert json.loads(tags([BARE]))["models"][0]["modified_at"] == "0001-01-01T00:00:00Z"
    assert json.loads(show(BARE))["modified_at"] == "0001-01-01T00:00:00Z"


def test_a_digest_is_stable_where_none_is_known() -> None:
    digest = json.loads(tags([BARE]))["models"][0]["digest"]
    assert digest == hashlib.sha256(b"org/some-model").hexdigest()


def test_version_is_that_of_the_recorded_server() -> None:
    assert json.loads(version()) == load("ollama", "version").json()
    assert json.loads(version("1.2.3")) == {"version": "1.2.3"}


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("m", ("m", "m:latest")),
        ("m:latest", ("m:latest", "m")),
        ("m:1b", ("m:1b",)),
        ("host:5000/m", ("host:5000/m", "host:5000/m:latest")),
    ],
)
def test_a_missing_tag_means_latest(name: str, names: tuple[str, ...]) -> None:
    assert same_names(name) == names


@given(
    st.builds(
        CatalogModel,
        name=st.text(),
        family=st.text(),
        context_length=st.integers(0, 10**6),
        modified_at=st.none() | st.integers(0, 2**62).map(timestamp),
        expires_at=st.none() | st.integers(0, 2**62).map(timestamp),
    )
)
def test_the_official_client_reads_every_list(model: CatalogModel) -> None:
    ollama.ListResponse.model_validate_json(tags([model]))
    ollama.ProcessResponse.model_validate_json(ps([model]))
    ollama.ShowResponse.model_validate_json(show(model))
