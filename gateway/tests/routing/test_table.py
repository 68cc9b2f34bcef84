from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.backends.base import Capability, DiscoveredModel, Probe
from synapse_gateway.config.settings import (
    BackendType,
    Device,
    Limits,
    Model,
    Policy,
    Queue,
    Route,
    Service,
    Settings,
    Target,
    Timeouts,
)
from synapse_gateway.routing.table import SERVICE_OF, RouteTable
from tests.routing.support import backend, by_name, fleet_of, plan_of

if TYPE_CHECKING:
    from synapse_gateway.routing.fleet import Fleet


def table_of(fleet: Fleet | None = None, **fields: Any) -> RouteTable:
    settings = Settings(**fields)
    return RouteTable(settings, fleet or fleet_of(settings))


def discovering(found: dict[str, tuple[str, ...]], **fields: Any) -> RouteTable:
    """Return a table whose backends say that they have these models."""
    settings = Settings(**fields)
    fleet = fleet_of(settings)
    for name, models in found.items():
        known = tuple(DiscoveredModel(id=model) for model in models)
        fleet.report(name, Probe(up=True, models=known))
    return RouteTable(settings, fleet)


def orders(table: RouteTable, name: str, capability: Capability) -> list[list[str]]:
    route = table.model(name)
    assert route is not None
    return [[c.state.backend.name for c in order] for order in route.plan(capability).orders]


# -- names


def test_a_model_is_found_by_its_name_and_its_aliases() -> None:
    model = Model(targets=(Target(backend="b"),), aliases=("gpt-4o", "llama"))
    table = table_of(backends={"b": backend()}, models={"llama3.1": model})
    found = table.model("llama3.1")
    assert found is not None
    assert table.model("gpt-4o") is table.model("llama") is found
    assert table.model("other") is None
    assert list(table.names()) == ["llama3.1"]


def test_a_target_without_a_name_of_its_own_is_asked_for_the_models() -> None:
    targets = (Target(backend="b"), Target(backend="b", model="llama3.1:8b"))
    table = table_of(backends={"b": backend()}, models={"llama3.1": Model(targets=targets)})
    assert [state.model for state in table.models["llama3.1"].states] == ["llama3.1", "llama3.1:8b"]


def test_models_take_their_bounds_from_themselves_or_from_the_limits() -> None:
    one = (Target(backend="b"),)
    own = Model(targets=one, attempts=1, queue=Queue(size=3))
    table = table_of(
        backends={"b": backend()},
        models={"own": own, "common": Model(targets=one)},
        limits=Limits(attempts=2, queue=Queue(size=7)),
    )
    assert (table.models["own"].attempts, table.models["own"].queue.size) == (1, 3)
    assert (table.models["common"].attempts, table.models["common"].queue.size) == (2, 7)


# -- discovered models


def test_a_model_that_only_a_backend_lists_is_served_as_well() -> None:
    table = discovering({"b": ("mistral",)}, backends={"b": backend()})
    found = table.model("mistral")
    assert found is not None
    assert found.discovered
    assert found.states[0].model == "mistral"


def test_a_listed_model_of_the_table_is_not_served_twice() -> None:
    model = Model(targets=(Target(backend="b", model="llama3.1:8b"),))
    table = discovering({"b": ("llama3.1:8b",)}, backends={"b": backend()}, models={"llama": model})
    assert list(table.names()) == ["llama"]
    assert table.model("llama3.1:8b") is table.model("llama"), "but it answers to its own name too"


def test_a_configured_name_wins_over_a_listed_one() -> None:
    model = Model(targets=(Target(backend="a"),), aliases=("shared",))
    table = discovering(
        {"b": ("m", "shared")}, backends={"a": backend(), "b": backend()}, models={"m": model}
    )
    assert orders(table, "m", Capability.CHAT) == [["a"]]
    assert table.model("shared") is table.model("m")


def test_a_tag_that_means_the_latest_is_no_model_of_its_own() -> None:
    model = Model(targets=(Target(backend="b"),))
    table = discovering({"b": ("m:latest",)}, backends={"b": backend()}, models={"m": model})
    assert list(table.names()) == ["m"]
    assert table.model("m:latest") is table.model("m")


def test_only_ollama_serves_its_own_api_whatever_the_model_is_for() -> None:
    backends = {"o": backend(type=BackendType.OLLAMA), "l": backend(type=BackendType.LLAMACPP)}
    targets = (Target(backend="o", weights="w"), Target(backend="l", order=2, weights="w"))
    for service in (None, Service.LLM, Service.EMBEDDINGS):
        model = Model(targets=targets, service=service)
        table = table_of(backends=backends, models={"m": model})
        assert orders(table, "m", Capability.OLLAMA) == [["o"]]


def test_a_name_that_a_target_answers_to_is_not_discovered_elsewhere() -> None:
    model = Model(targets=(Target(backend="b", model="x"),))
    settings = {"backends": {"a": backend(), "b": backend()}, "models": {"m": model}}
    table = discovering({"a": ("x",), "b": ("x",)}, **settings)
    assert list(table.names()) == ["m"]
    assert table.model("x") is table.model("m")


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        pytest.param((Device.GPU, Device.CPU), [["a"], ["b"]], id="gpu-first"),
        pytest.param((Device.CPU, Device.CPU), [["a", "b"]], id="only-cpus"),
        pytest.param((None, None), [["a", "b"]], id="not-known"),
        pytest.param((None, Device.GPU), [["b"], ["a"]], id="known-gpu-first"),
    ],
)
def test_several_that_list_a_model_serve_it_in_orders(
    devices: tuple[Device | None, Device | None], expected: list[list[str]]
) -> None:
    settings = {"a": backend(device=devices[0]), "b": backend(device=devices[1])}
    table = discovering({"a": ("m",), "b": ("m",)}, backends=settings)
    assert orders(table, "m", Capability.CHAT) == expected


# -- plans


def test_orders_are_sorted_and_keep_the_order_of_the_file_within() -> None:
    plan = plan_of(
        Target(backend="z", order=2), Target(backend="a", order=5), Target(backend="b", order=2)
    )
    names = [[c.state.backend.name for c in order] for order in plan.orders]
    assert names == [["z", "b"], ["a"]]


def test_a_plan_holds_the_policy_and_the_longest_deadline() -> None:
    plan = plan_of(
        Target(backend="a"),
        Target(backend="b"),
        backends={
            "a": backend(timeouts=Timeouts(overall=10.0)),
            "b": backend(timeouts=Timeouts(overall=20.0)),
        },
        policy=Policy.PREFIX_AFFINITY,
    )
    assert (plan.policy, plan.overall) == (Policy.PREFIX_AFFINITY, 20.0)
    assert by_name(plan)["a"].timeouts.overall == 10.0


def test_a_plan_may_be_narrowed_to_some_of_its_candidates() -> None:
    plan = plan_of(
        Target(backend="a", order=1), Target(backend="b", order=2), Target(backend="c", order=2)
    )
    narrow = plan.narrowed(lambda candidate: candidate.state.backend.name != "a")
    assert [[c.state.backend.name for c in order] for order in narrow.orders] == [["b", "c"]]
    assert narrow._replace(orders=plan.orders) == plan


def test_a_plan_is_made_once() -> None:
    table = table_of(backends={"b": backend()}, models={"m": Model(targets=(Target(backend="b"),))})
    route = table.models["m"]
    assert route.plan(Capability.CHAT) is route.plan(Capability.CHAT)


def test_only_backends_that_can_do_it_are_asked() -> None:
    plan = plan_of(
        Target(backend="ears"),
        Target(backend="any"),
        capability=Capability.TRANSCRIPTIONS,
        backends={"ears": backend(type=BackendType.FASTER_WHISPER), "any": backend()},
    )
    assert set(by_name(plan)) == {"ears", "any"}
    chat = plan_of(
        Target(backend="ears"),
        Target(backend="any"),
        backends={"ears": backend(type=BackendType.FASTER_WHISPER), "any": backend()},
    )
    assert set(by_name(chat)) == {"any"}


def test_what_a_backend_says_of_a_model_wins_over_what_its_kind_can() -> None:
    settings = Settings(
        backends={"b": backend()}, models={"m": Model(targets=(Target(backend="b"),))}
    )
    fleet = fleet_of(settings)
    only = DiscoveredModel(id="m", capabilities=frozenset({Capability.EMBEDDINGS}))
    fleet.report("b", Probe(up=True, models=(only,)))
    route = RouteTable(settings, fleet).models["m"]
    assert route.plan(Capability.EMBEDDINGS).orders
    assert not route.plan(Capability.CHAT).orders
    assert route.plan(Capability.CHAT).overall == 60.0


def test_every_capability_belongs_to_a_service() -> None:
    # Ollama's own API is of every service
    assert set(SERVICE_OF) == set(Capability) - {Capability.OLLAMA}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param((None, None), {"a"}, id="not-declared"),
        pytest.param(("x", "x"), {"a", "b"}, id="the-same"),
        pytest.param(("x", "y"), {"a"}, id="others"),
        pytest.param(("x", None), {"a"}, id="one-not-declared"),
    ],
)
def test_embeddings_fail_over_between_the_same_weights_only(
    weights: tuple[str | None, str | None], expected: set[str]
) -> None:
    targets = (
        Target(backend="b", order=2, weights=weights[1]),
        Target(backend="a", order=1, weights=weights[0]),
    )
    assert set(by_name(plan_of(*targets, capability=Capability.EMBEDDINGS))) == expected
    assert set(by_name(plan_of(*targets))) == {"a", "b"}, "a chat may differ"


def test_a_single_embedder_needs_no_declaration() -> None:
    assert set(by_name(plan_of(Target(backend="a"), capability=Capability.EMBEDDINGS))) == {"a"}


def test_a_table_says_what_it_can_be_asked_for() -> None:
    ears = backend(type=BackendType.FASTER_WHISPER)
    table = table_of(
        backends={"ears": ears}, models={"m": Model(targets=(Target(backend="ears"),))}
    )
    assert table.offers(Capability.TRANSCRIPTIONS)
    assert not table.offers(Capability.CHAT)


# -- services


@pytest.mark.parametrize(
    ("service", "capability", "able"),
    [
        (Service.LLM, Capability.CHAT, True),
        (Service.LLM, Capability.EMBEDDINGS, False),
        (Service.EMBEDDINGS, Capability.EMBEDDINGS, True),
        (Service.EMBEDDINGS, Capability.CHAT, False),
        (Service.TTS, Capability.SPEECH, True),
        (Service.STT, Capability.SPEECH, False),
        (Service.LLM, Capability.COUNT_TOKENS, True),
    ],
)
def test_a_declared_service_is_all_that_a_model_does(
    service: Service, capability: Capability, *, able: bool
) -> None:
    plan = plan_of(Target(backend="b"), capability=capability, service=service)
    assert bool(plan.orders) is able


# -- paths


def paths(**routes: str) -> RouteTable:
    names = set(routes.values())
    return table_of(
        backends={name: backend() for name in names},
        routes={
            path.replace("__", "/").replace("_STAR", "*"): Route(backend=name)
            for path, name in routes.items()
        },
    )


def served_by(table: RouteTable, path: str) -> str | None:
    route = table.path(path)
    return None if route is None else route.states[0].backend.name


def test_a_path_is_served_by_its_route_with_or_without_a_slash_in_front() -> None:
    table = paths(v1__embeddings="a", __v1__rerank="b")
    assert served_by(table, "/v1/embeddings") == "a"
    assert served_by(table, "/v1/rerank") == "b"
    assert served_by(table, "/v1/embeddings/more") is None
    assert served_by(table, "/v2/embeddings") is None


def test_the_longest_prefix_serves_and_an_exact_path_before_it() -> None:
    table = paths(v1___STAR="a", v1__audio___STAR="b", v1__audio__speech="c")
    assert served_by(table, "/v1/chat/completions") == "a"
    assert served_by(table, "/v1/audio/transcriptions") == "b"
    assert served_by(table, "/v1/audio/speech") == "c"
    assert served_by(table, "/tts/stream") is None


def test_a_path_passes_the_callers_own_model_name_on() -> None:
    route = paths(v1__embeddings="a").path("/v1/embeddings")
    assert route is not None
    assert (route.name, route.states[0].model) == ("", "")
    assert repr(route.states[0]) == "<a/* closed>"


def test_a_path_counts_as_something_that_can_be_asked_for() -> None:
    assert paths(v1__embeddings="a").offers(Capability.EMBEDDINGS)


def test_a_path_has_deadlines_and_rewriting_of_its_own() -> None:
    settings = Settings(
        backends={"a": backend()},
        routes={
            "/v1/embeddings": Route(backend="a", rewrite_model=True, timeouts=Timeouts(overall=5.0))
        },
    )
    route = RouteTable(settings, fleet_of(settings)).path("/v1/embeddings")
    assert route is not None
    assert route.config.rewrite_model
    assert route.plan(Capability.EMBEDDINGS).overall == 5.0


# -- services without a model's name


def services(*kinds: BackendType, **more: Any) -> RouteTable:
    backends = {f"{kind.value}-{number}": backend(type=kind) for number, kind in enumerate(kinds)}
    return table_of(backends=backends, **more)


def by_order(table: RouteTable, path: str, capability: Capability) -> list[list[str]]:
    route = table.service(path, capability)
    if route is None:
        return []
    return [[c.state.backend.name for c in order] for order in route.plan(capability).orders]


def test_every_server_made_for_it_serves_a_path_the_better_voices_first() -> None:
    table = services(
        BackendType.PIPER,
        BackendType.SPEACHES,
        BackendType.VLLM,
        BackendType.CHATTERBOX,
        BackendType.OPENVOICE,
        BackendType.OPENAI_COMPATIBLE,
        BackendType.PIPER,
        BackendType.FASTER_WHISPER,
    )
    assert by_order(table, "/tts/stream", Capability.SPEECH) == [
        ["chatterbox-3"],
        ["openvoice-4"],
        ["piper-0", "piper-6"],
        ["speaches-1"],
    ]
    assert by_order(table, "/stt/stream", Capability.TRANSCRIPTIONS) == [
        ["faster-whisper-7"],
        ["speaches-1"],
    ]
    assert by_order(table, "/speakers/verify", Capability.VERIFICATION) == []
    first = table.service("/tts/stream", Capability.SPEECH)
    assert table.service("/tts/stream", Capability.SPEECH) is first
    assert first is not None
    assert first.plan(Capability.SPEECH).overall == 120.0


def test_a_server_of_many_models_is_asked_for_one_that_can() -> None:
    settings = Settings(backends={"s": backend(type=BackendType.SPEACHES)})
    fleet = fleet_of(settings)
    models = (
        DiscoveredModel("kokoro", capabilities=frozenset({Capability.SPEECH})),
        DiscoveredModel("whisper", capabilities=frozenset({Capability.TRANSCRIPTIONS})),
    )
    fleet.report("s", Probe(up=True, models=models))
    table = RouteTable(settings, fleet)
    for capability, model in (
        (Capability.SPEECH, "kokoro"),
        (Capability.TRANSCRIPTIONS, "whisper"),
    ):
        route = table.service("/x", capability)
        assert route is not None
        assert [state.model for state in route.states] == [model]


def test_the_configuration_says_who_serves_a_path() -> None:
    model = Model(targets=(Target(backend="piper-0"),))
    table = services(
        BackendType.PIPER,
        BackendType.OPENVOICE,
        BackendType.PYANNOTE,
        models={"voice": model},
        routes={"/tts/*": Route(model="voice"), "/speakers/*": Route(backend="piper-0")},
    )
    assert by_order(table, "/tts/stream", Capability.SPEECH) == [["piper-0"]]
    found = table.service("/tts/stream", Capability.SPEECH)
    assert found is table.models["voice"]
    # what it names cannot do this, and nobody else is asked behind its back
    assert by_order(table, "/speakers/verify", Capability.VERIFICATION) == []


def test_a_model_declared_for_the_service_serves_where_no_server_is_made_for_it() -> None:
    target = (Target(backend="openai-compatible-0"),)
    table = services(
        BackendType.OPENAI_COMPATIBLE,
        models={
            "chat": Model(targets=target),
            "speech": Model(targets=target, service=Service.TTS),
        },
    )
    found = table.service("/tts/stream", Capability.SPEECH)
    assert found is table.models["speech"]
    assert table.service("/stt/stream", Capability.TRANSCRIPTIONS) is None


# -- reloads


def test_a_new_table_keeps_breakers_and_counts_of_unchanged_backends() -> None:
    settings = Settings(
        backends={"b": backend()}, models={"m": Model(targets=(Target(backend="b"),))}
    )
    fleet = fleet_of(settings)
    before = RouteTable(settings, fleet).models["m"].states[0]
    before.start()
    after = RouteTable(settings, fleet).models["m"].states[0]
    assert after is before
    assert after.in_flight == 1
