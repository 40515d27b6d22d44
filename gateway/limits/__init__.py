"""Rates, counters and leases that all processes of a gateway share."""

from gateway.limits.cell import Cell
from gateway.limits.lease import Lease
from gateway.limits.limits import Limits
from gateway.limits.rate import Allowance, Rate, RateField, Take
from gateway.limits.table import LimitsFullError

__all__ = [
    "Allowance",
    "Cell",
    "Lease",
    "Limits",
    "LimitsFullError",
    "Rate",
    "RateField",
    "Take",
]
