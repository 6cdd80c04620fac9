"""Which machine? Per unit the best configuration within the limits, what it costs, and what stays open."""

from __future__ import annotations

from harness.procure.choose import procure
from harness.procure.limits import parse_floor, parse_slo
from harness.procure.prices import Prices, read_prices
from harness.procure.values import Configuration, Offer, Procurement

__all__ = ["Configuration", "Offer", "Prices", "Procurement", "parse_floor", "parse_slo", "procure", "read_prices"]
