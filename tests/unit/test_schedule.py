"""A schedule that KubeRay's operator could not read is refused before it is sent."""

from __future__ import annotations

import pytest

from orchestrator.clusters.kuberay.cron import check_schedule
from trainers.errors import InputError


@pytest.mark.parametrize(
    "schedule",
    [
        "0 3 * * *",
        "*/15 0-6,22,23 1-31/2 JAN-mar ?",
        "59 23 31 12 6",
        "5/10 * * * Sun",
        "@daily",
        "@every 1h30m",
    ],
)
def test_what_the_operator_reads_passes(schedule: str) -> None:
    check_schedule(schedule)


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("bad", "give minute, hour"),
        ("0 0 3 * * *", "give minute, hour"),
        ("TZ=Europe/Berlin 0 3 * * *", "give minute, hour"),
        ("@reboot", "give minute, hour"),
        ("60 3 * * *", "'60' is not a valid minute; give a number from 0 to 59"),
        ("0 3-1 * * *", "'3-1' is not a valid hour"),
        ("0 3 0 * *", "'0' is not a valid day of the month; give a number from 1 to 31"),
        ("0 3 * sun *", "'sun' is not a valid month"),
        ("0 3 * * 7", "'7' is not a valid day of the week; give a number from 0 to 6"),
        ("*/0 3 * * *", "'*/0' is not a valid minute"),
        ("0 3, * * *", "'3,' is not a valid hour"),
        ("0 3 -1 * *", "'-1' is not a valid day of the month"),
    ],
)
def test_what_it_cannot_read_is_refused_by_field(schedule: str, told: str) -> None:
    with pytest.raises(InputError, match="--cron") as refused:
        check_schedule(schedule)
    assert told in str(refused.value)
