"""Two models and the prompts that lead to each."""

from __future__ import annotations

import pytest

from synapse_gateway.config.settings import Auto, AutoRule
from synapse_gateway.routing.auto import NAMES, Facts, choose_model


def any_model(_: str) -> bool:
    return True


AUTO = Auto(
    default="general",
    rules=(
        AutoRule(name="vision", model="general", images=True),
        AutoRule(name="tools", model="coder", tools=True),
        AutoRule(name="night-shift", model="general", keys=("batch",)),
        AutoRule(name="code", model="coder", keywords=("python", "stack trace", "c++", "def")),
        AutoRule(name="long", model="coder", min_chars=4000),
        AutoRule(name="greeting", model="general", max_chars=12, tools=False),
    ),
)


def facts(text: str = "", *, chars: int | None = None, key: str = "alice", **more: bool) -> Facts:
    given = {"tools": False, "images": False, **more}
    return Facts(len(text) if chars is None else chars, text, key=key, **given)


@pytest.mark.parametrize(
    ("asked", "model", "rule"),
    [
        pytest.param(facts("What is on this picture?", images=True), "general", "vision"),
        pytest.param(facts("Write Python", images=True, tools=True), "general", "vision"),
        pytest.param(facts("What is the weather in Graz?", tools=True), "coder", "tools"),
        pytest.param(facts("Summarise this Python file.", key="batch"), "general", "night-shift"),
        pytest.param(facts("Write a Python function that sorts."), "coder", "code"),
        pytest.param(facts("why does PYTHON say this?"), "coder", "code"),
        pytest.param(facts("Here is a stack trace, help!"), "coder", "code"),
        pytest.param(facts("Is C++ still taught?"), "coder", "code"),
        pytest.param(facts("Do pythons eat mice?"), "general", "default"),
        pytest.param(facts("It is an indefinite article."), "general", "default"),
        pytest.param(facts("Go on.", chars=4000), "coder", "long"),
        pytest.param(facts("Go on, please, will you?", chars=3999), "general", "default"),
        pytest.param(facts("Hello!"), "general", "greeting"),
        pytest.param(facts("Hello there!!"), "general", "default"),
        pytest.param(facts(""), "general", "greeting"),
    ],
    ids=lambda value: value.last_user_text[:30] if isinstance(value, Facts) else "",
)
def test_the_first_rule_that_holds_names_the_model(asked: Facts, model: str, rule: str) -> None:
    assert choose_model(AUTO, asked, "first", any_model) == (model, rule)


def test_without_a_configured_default_the_first_model_answers() -> None:
    assert choose_model(Auto(), facts("Hi"), "first", any_model) == ("first", "default")


def test_every_condition_of_a_rule_must_hold() -> None:
    both = AutoRule(name="both", model="coder", keywords=("sql",), min_chars=100)
    auto = Auto(rules=(both,))
    assert choose_model(auto, facts("sql", chars=99), "first", any_model).model == "first"
    assert choose_model(auto, facts("no", chars=100), "first", any_model).model == "first"
    assert choose_model(auto, facts("sql", chars=100), "first", any_model).model == "coder"


def test_a_model_that_the_caller_may_not_use_is_passed_over() -> None:
    def usable(model: str) -> bool:
        return model != "coder"

    asked = facts("fix this python", chars=5000)
    assert choose_model(AUTO, asked, "first", usable) == ("general", "default")
    auto = Auto(default="coder", rules=AUTO.rules)
    assert choose_model(auto, asked, "first", usable) == ("first", "default")


def test_these_names_ask_for_it() -> None:
    assert {"", "auto", "synapse:auto", "synapse-auto"} == NAMES
