from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synapse_gateway.config import load
from synapse_gateway.config import settings as tree
from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def field_names() -> list[str]:
    structs = [
        each
        for each in vars(tree).values()
        if isinstance(each, type) and issubclass(each, msgspec.Struct)
    ]
    names = {field.encode_name for each in structs for field in msgspec.structs.fields(each)}
    litellm = (
        "model_list model_name litellm_params model_info api_base litellm_settings "
        "router_settings general_settings master_key mode num_retries default_fallbacks "
        "context_window_fallbacks model_group_alias api_keys ws_auth_keys"
    )
    return sorted(names | set(litellm.split()))


WORDS = st.sampled_from(
    [
        "a",
        "b",
        "http://a",
        "https://b/v1",
        "ollama/x",
        "vllm/y",
        "gpu",
        "keys",
        "os.environ/X",
        "os.environ/HOME",
        "*",
        "a/*",
        "ollama",
        "auto",
        "yes",
        "0" * 64,
        "",
    ]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(field_names()), WORDS), inner, max_size=4),
    ),
    max_leaves=30,
)
NAMED = st.sampled_from(["a", "b", "auto"])
BACKENDS = st.dictionaries(
    NAMED, st.fixed_dictionaries({"url": WORDS}, optional={"type": WORDS, "tls": VALUES})
)
TARGETS = st.lists(
    st.fixed_dictionaries({"backend": NAMED}, optional={"order": st.integers(), "weights": WORDS}),
    max_size=3,
)
MODELS = st.dictionaries(
    NAMED,
    st.fixed_dictionaries(
        {"targets": TARGETS},
        optional={"aliases": st.lists(WORDS, max_size=2), "fallbacks": st.lists(NAMED, max_size=2)},
    ),
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {
            "model_name": WORDS,
            "litellm_params": st.fixed_dictionaries(
                {"model": WORDS},
                optional={"api_base": WORDS, "api_key": WORDS, "order": VALUES, "rpm": SCALARS},
            ),
        }
    ),
    max_size=3,
)
FILES = st.one_of(
    st.fixed_dictionaries(
        {}, optional={"backends": BACKENDS, "models": MODELS, "routes": VALUES, "auto": VALUES}
    ),
    st.fixed_dictionaries(
        {"model_list": ENTRIES},
        optional={
            "litellm_settings": VALUES,
            "router_settings": VALUES,
            "general_settings": VALUES,
        },
    ),
    st.fixed_dictionaries({"groups": VALUES}),
    st.dictionaries(st.sampled_from(field_names()), VALUES, max_size=5),
)
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(document=FILES)
def test_any_document_loads_or_is_refused_in_words(document: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with contextlib.suppress(ConfigError):
        loaded = load(path, {"HOME": "http://home"})
        path.write_text(json.dumps(loaded.settings.as_plain()), encoding="utf-8")
        assert load(path, {}).settings == loaded.settings


PUNCTUATION = st.text(alphabet="ab1:-[]{}&*!<\\\"'\n \t|>#,?%@")


@QUICK
@given(content=st.one_of(st.binary(), PUNCTUATION.map(str.encode)))
def test_any_bytes_load_or_are_refused_in_words(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        load(path, {})
