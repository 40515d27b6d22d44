from __future__ import annotations

from gateway.web.health import Health


def test_all_is_well() -> None:
    assert (Health().status, Health().to_json()) == (200, '{"status": "ok"}')


def test_what_is_wrong_is_told() -> None:
    health = Health({"disk": "no room"})
    assert health.status == 503
    assert health.to_json() == '{"status": "failing", "problems": {"disk": "no room"}}'
