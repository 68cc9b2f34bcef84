"""API keys: where they come from, who they make a caller, and what they let him reach."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.auth.keys import ANONYMOUS, Caller, KeyRing, check_exposure
from synapse_gateway.config.settings import AuthMode, Key, KeyLimits, Limits, Settings
from synapse_gateway.errors import ConfigError, Unauthorized

if TYPE_CHECKING:
    from pathlib import Path

APP = "sk-synapse-app-0123456789"
OTHER = "sk-synapse-other-9876543210"


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def ring(keys: dict[str, Key] | None = None, **environ: str) -> KeyRing:
    return KeyRing.build(Settings(keys=keys or {}), environ)


def anonymous_ring(limits: KeyLimits | None = None, **environ: str) -> KeyRing:
    settings = Settings(
        auth=AuthMode.ANONYMOUS, limits=Limits(anonymous=limits or KeyLimits(concurrency=2))
    )
    return KeyRing.build(settings, environ)


class TestSources:
    def test_a_digest_in_the_file_makes_its_key_known(self) -> None:
        assert ring({"app": Key(sha256=digest(APP))}).authenticate(None, APP.encode()).name == "app"

    def test_a_key_comes_from_the_variable_that_env_names(self) -> None:
        keys = ring({"app": Key(env="APP_KEY")}, APP_KEY=APP)
        assert keys.authenticate(None, APP.encode()).name == "app"

    def test_a_key_comes_from_a_mounted_file_with_a_line_feed_at_its_end(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "key").write_text(f"{APP}\n")
        keys = ring({"app": Key(file=str(tmp_path / "key"))})
        assert keys.authenticate(None, APP.encode()).name == "app"

    @pytest.mark.parametrize("divider", [",", "\n", " ,\n # for the shop \n"])
    def test_the_environment_lists_keys_by_commas_or_lines(self, divider: str) -> None:
        keys = ring(SYNAPSE_API_KEYS=f"app={APP}{divider}other={OTHER}")
        assert keys.authenticate(None, APP.encode()).name == "app"
        assert keys.authenticate(None, OTHER.encode()).name == "other"

    def test_a_listed_key_may_be_a_digest(self) -> None:
        keys = ring(SYNAPSE_API_KEYS=f"app=sha256:{digest(APP).upper()}")
        assert keys.authenticate(None, APP.encode()).name == "app"

    def test_a_listed_key_may_hold_equals_signs(self) -> None:
        keys = ring(SYNAPSE_API_KEYS="app=c2VjcmV0Cg==")
        assert keys.authenticate(None, b"c2VjcmV0Cg==").name == "app"

    def test_keys_come_from_the_file_that_the_environment_names(self, tmp_path: Path) -> None:
        (tmp_path / "keys").write_text(f"# applications\napp={APP}\n\nother={OTHER}\n")
        keys = ring(SYNAPSE_API_KEYS_FILE=str(tmp_path / "keys"))
        assert keys.names == {"app", "other"}
        assert len(keys) == 2

    def test_two_keys_of_one_name_are_both_known_while_one_replaces_the_other(self) -> None:
        keys = ring(
            {"app": Key(sha256=digest(APP), concurrency=3)}, SYNAPSE_API_KEYS=f"app={OTHER}"
        )
        old, new = keys.authenticate(None, APP.encode()), keys.authenticate(None, OTHER.encode())
        assert old is new
        assert new.concurrency == 3

    def test_the_same_key_may_be_given_twice_under_one_name(self) -> None:
        keys = ring({"app": Key(sha256=digest(APP))}, SYNAPSE_API_KEYS=f"app={APP}")
        assert len(keys) == 1

    def test_limits_and_priority_are_the_callers(self) -> None:
        key = Key(
            sha256=digest(APP),
            requests_per_minute=10,
            tokens_per_minute=20,
            concurrency=30,
            priority=9,
        )
        caller = ring({"app": key}).authenticate(None, APP.encode())
        assert (caller.requests_per_minute, caller.tokens_per_minute, caller.concurrency) == (
            *(10, 20, 30),
        )
        assert (caller.priority, caller.limited) == (9, True)

    def test_a_key_of_a_group_reaches_what_is_named_only(self) -> None:
        keys = ring(
            {
                "bare": Key(sha256=digest(APP), group="lab"),
                "named": Key(sha256=digest(OTHER), group="lab", models=("m",)),
            }
        )
        assert not keys.authenticate(None, APP.encode()).allows("m")
        named = keys.authenticate(None, OTHER.encode())
        assert named.allows("m")
        assert not named.allows("n")

    def test_a_key_without_limits_is_not_limited(self) -> None:
        assert not ring({"app": Key(sha256=digest(APP))}).authenticate(None, APP.encode()).limited

    def test_no_key_is_kept_in_clear(self) -> None:
        keys = ring({"app": Key(env="K")}, K=APP, SYNAPSE_API_KEYS=f"other={OTHER}")
        held = repr(vars(keys)) + repr(keys) + repr(keys.authenticate(None, APP.encode()))
        assert APP not in held
        assert OTHER not in held


class TestFaults:
    @pytest.mark.parametrize(
        ("keys", "environ", "said"),
        [
            pytest.param({"app": Key()}, {}, "keys.app: exactly one of sha256", id="no source"),
            pytest.param(
                {"app": Key(env="A", file="b")},
                {"A": "x"},
                "keys.app: exactly one of sha256, env, file must be given (got env and file)",
                id="two sources",
            ),
            pytest.param(
                {"app": Key(env="APP_KEY")},
                {},
                "keys.app.env: the environment variable APP_KEY is not set",
                id="variable not set",
            ),
            pytest.param(
                {"app": Key(env="APP_KEY")},
                {"APP_KEY": " "},
                "keys.app.env: the environment variable APP_KEY is not set, or empty",
                id="variable empty",
            ),
            pytest.param(
                {"app": Key(file="/nowhere/key")},
                {},
                "keys.app.file: cannot read /nowhere/key: No such file",
                id="no such file",
            ),
            pytest.param(
                {},
                {"SYNAPSE_API_KEYS_FILE": "/nowhere/keys"},
                "SYNAPSE_API_KEYS_FILE: cannot read /nowhere/keys: No such file",
                id="no such list",
            ),
            pytest.param(
                {},
                {"SYNAPSE_API_KEYS": f"app={APP},{OTHER}"},
                "SYNAPSE_API_KEYS: entry 2 must be name=key",
                id="entry without a name",
            ),
            pytest.param(
                {},
                {"SYNAPSE_API_KEYS": "app="},
                "SYNAPSE_API_KEYS: entry 1 must be name=key",
                id="entry without a key",
            ),
            pytest.param(
                {},
                {"SYNAPSE_API_KEYS": "app=sha256:beef"},
                "SYNAPSE_API_KEYS: entry 1: sha256: must be followed by 64 digits",
                id="short digest",
            ),
            pytest.param(
                {"app": Key(sha256=digest(APP))},
                {"SYNAPSE_API_KEYS": f"shop={APP}"},
                "keys.shop: has the same key as keys.app",
                id="one key of two names",
            ),
            pytest.param(
                {ANONYMOUS: Key(sha256=digest(APP))},
                {},
                "keys.anonymous: this name means callers without a key",
                id="reserved name",
            ),
        ],
    )
    def test_a_key_that_cannot_be_used_is_named_with_its_remedy(
        self, keys: dict[str, Key], environ: dict[str, str], said: str
    ) -> None:
        with pytest.raises(ConfigError) as refusal:
            ring(keys, **environ)
        assert said in str(refusal.value)
        assert APP not in str(refusal.value)
        assert OTHER not in str(refusal.value)

    def test_an_empty_key_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("\n")
        with pytest.raises(ConfigError, match=r"keys\.app\.file: .*key is empty"):
            ring({"app": Key(file=str(tmp_path / "key"))})

    def test_a_key_file_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="it is not UTF-8 text"):
            ring({"app": Key(file=str(tmp_path / "key"))})

    def test_all_faults_are_told_at_once(self) -> None:
        with pytest.raises(ConfigError) as refusal:
            ring({"a": Key(env="A"), "b": Key(env="B")}, SYNAPSE_API_KEYS="c")
        assert len(str(refusal.value).splitlines()) == 3


class TestAuthenticate:
    @pytest.mark.parametrize(
        ("authorization", "x_api_key"),
        [
            pytest.param(f"Bearer {APP}", None, id="bearer"),
            pytest.param(f"bearer {APP}", None, id="scheme in lower case"),
            pytest.param(f"BEARER   {APP} ", None, id="spaces around"),
            pytest.param(None, APP, id="x-api-key"),
            pytest.param(None, f" {APP}", id="x-api-key with a space"),
            pytest.param("Basic dXNlcjpwYXNz", APP, id="another scheme beside x-api-key"),
            pytest.param("Bearer none", APP, id="a made-up bearer beside x-api-key"),
            pytest.param(f"Bearer {APP}", "none", id="a made-up x-api-key beside the bearer"),
        ],
    )
    def test_a_known_key_in_either_header_will_do(
        self, authorization: str | None, x_api_key: str | None
    ) -> None:
        caller = ring(SYNAPSE_API_KEYS=f"app={APP}").authenticate(
            None if authorization is None else authorization.encode(),
            None if x_api_key is None else x_api_key.encode(),
        )
        assert caller.name == "app"
        assert not caller.anonymous

    @pytest.mark.parametrize(
        ("authorization", "x_api_key", "code"),
        [
            pytest.param(None, None, "missing_api_key", id="no header"),
            pytest.param(b"", b"", "missing_api_key", id="empty headers"),
            pytest.param(b"Bearer wrong", None, "invalid_api_key", id="wrong bearer"),
            pytest.param(b"Bearer", None, "invalid_api_key", id="no token"),
            pytest.param(APP.encode(), None, "invalid_api_key", id="no scheme"),
            pytest.param(b"Basic " + APP.encode(), None, "invalid_api_key", id="wrong scheme"),
            pytest.param(None, b"wrong", "invalid_api_key", id="wrong x-api-key"),
            pytest.param(None, APP.encode()[:-1], "invalid_api_key", id="key cut short"),
            pytest.param(b"Bearer \xff\x00", None, "invalid_api_key", id="bytes"),
        ],
    )
    def test_anything_else_is_refused_with_how_to_send_a_key(
        self, authorization: bytes | None, x_api_key: bytes | None, code: str
    ) -> None:
        with pytest.raises(Unauthorized) as refusal:
            ring(SYNAPSE_API_KEYS=f"app={APP}").authenticate(authorization, x_api_key)
        assert refusal.value.status == 401
        assert refusal.value.code == code
        assert "Authorization: Bearer <key>" in refusal.value.message
        assert "X-API-Key" in refusal.value.message

    @pytest.mark.parametrize("authorization", [None, b"Bearer sk-none", b"Basic x"])
    def test_anonymous_callers_are_let_in_whatever_key_their_client_makes_up(
        self, authorization: bytes | None
    ) -> None:
        caller = anonymous_ring().authenticate(authorization, None)
        assert caller.anonymous
        assert caller.name == ANONYMOUS
        assert caller.concurrency == 2

    def test_a_known_key_counts_where_anonymous_callers_are_let_in(self) -> None:
        keys = anonymous_ring(SYNAPSE_API_KEYS=f"app={APP}")
        assert keys.authenticate(f"Bearer {APP}".encode(), None).name == "app"
        assert keys.names == {"app", ANONYMOUS}

    @given(st.binary(max_size=200), st.binary(max_size=200))
    def test_no_header_opens_the_gateway_but_the_key(self, one: bytes, two: bytes) -> None:
        keys = ring(SYNAPSE_API_KEYS=f"app={APP}")
        with pytest.raises(Unauthorized):
            keys.authenticate(one, two)

    def test_a_digest_that_is_found_is_compared_whole(self) -> None:
        keys = KeyRing({b"\x00" * 32: Caller.build("app", KeyLimits())}, None)
        entries = keys._callers
        entries[sha256(APP.encode()).digest()] = entries.pop(b"\x00" * 32)
        with pytest.raises(Unauthorized):
            keys.authenticate(None, APP.encode())


class TestModels:
    def test_a_key_without_a_list_reaches_every_model(self) -> None:
        assert Caller.build("app", KeyLimits()).allows("anything/at:all")

    @pytest.mark.parametrize(
        ("model", "allowed"),
        [
            ("llama3.1", True),
            ("llama3.1:8b", False),
            ("qwen2.5-7b", True),
            ("qwen", True),
            ("qwe", False),
            ("", False),
        ],
    )
    def test_names_match_whole_and_starred_ones_by_their_beginning(
        self, model: str, allowed: bool
    ) -> None:
        caller = Caller.build("app", KeyLimits(models=("llama3.1", "qwen*")))
        assert caller.allows(model) is allowed

    def test_a_lone_star_reaches_every_model(self) -> None:
        assert Caller.build("app", KeyLimits(models=("*",))).allows("any")

    def test_an_empty_list_reaches_none(self) -> None:
        assert not Caller.build("app", KeyLimits(models=())).allows("any")


class TestExposure:
    def test_no_key_and_no_anonymous_access_is_refused_with_both_ways_out(self) -> None:
        with pytest.raises(ConfigError, match=r"SYNAPSE_API_KEYS=name=key.*auth: anonymous"):
            check_exposure(ring(), "127.0.0.1", on_loopback=True)

    def test_anonymous_access_without_any_key_is_for_loopback(self) -> None:
        check_exposure(anonymous_ring(), "127.0.0.1", on_loopback=True)
        with pytest.raises(ConfigError, match=r"not on 0\.0\.0\.0: set SYNAPSE_API_KEYS"):
            check_exposure(anonymous_ring(), "0.0.0.0", on_loopback=False)  # noqa: S104

    def test_with_a_key_every_address_will_do(self) -> None:
        check_exposure(ring(SYNAPSE_API_KEYS=f"app={APP}"), "::", on_loopback=False)


def test_a_ring_says_what_it_is() -> None:
    assert repr(ring(SYNAPSE_API_KEYS=f"app={APP}")) == "KeyRing(1 keys, anonymous callers out)"
    assert repr(anonymous_ring()) == "KeyRing(0 keys, anonymous callers in)"
