"""Makes the Redis of the authentication tests available here."""

from tests.auth.conftest import redis_server, stopped_redis

__all__ = ["redis_server", "stopped_redis"]
