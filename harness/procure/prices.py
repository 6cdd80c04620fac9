"""Prices and assumptions from a file that says where each comes from; what is not in it is not estimated."""

from __future__ import annotations

import dataclasses
import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import codec
from harness.errors import PlanError, RecordError
from harness.params import suggest

LEVELS = {"E3": "wall meter", "E2": "on-chip sensor"}


@dataclass(frozen=True)
class Assumptions:
    """What the cost formula takes for granted; every value is shown, and can be set under [assumptions].

    Attributes:
        years: Years of use of a machine that is bought.
        utilisation: Share of those hours in which it works, 0..1.
        residual: Share of the price that it is sold for in the end, 0..1.
        opex: Share of the price that a year of housing and care costs.
        pue: Power of the data centre for each watt of the machine.
    """

    years: float = 4.0
    utilisation: float = 0.5
    residual: float = 0.0
    opex: float = 0.05
    pue: float = 1.3


@dataclass(frozen=True)
class Electricity:
    """Price of a kilowatt-hour, with its source."""

    price_per_kwh: float
    currency: str
    source: str
    date: str


@dataclass(frozen=True)
class Watts:
    """Mean wall power at the load of the benchmark, measured.

    Attributes:
        level: "E3" by a wall meter, "E2" by an on-chip sensor (MEASUREMENT 4). A nameplate is no measurement.
        low, high: Bounds of the mean, where the measurement gives them.
    """

    mean: float
    level: str
    source: str
    date: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Price:
    """Price of one unit: bought for ``capex``, or rented for ``price_per_hour``."""

    currency: str
    source: str
    date: str
    capex: float | None = None
    price_per_hour: float | None = None
    region: str = ""
    commitment: str = ""
    watts: Watts | None = None

    @property
    def rented(self) -> bool:
        """Whether the machine is paid by the hour, energy included."""
        return self.price_per_hour is not None


@dataclass(frozen=True)
class Prices:
    """All that a prices file says; ``hosts`` by the name of the unit."""

    assumptions: Assumptions = Assumptions()
    electricity: Electricity | None = None
    hosts: Mapping[str, Price] = field(default_factory=dict)


def read_prices(path: Path) -> Prices:
    """Read prices.toml.

    Raises:
        PlanError: It is no TOML, has an unknown key, a price without source, date or currency, or several currencies.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        plain = _plain(data)
        _known(path, plain)
        found = codec.from_data(Prices, plain, where=str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is no TOML: {error}") from error
    except RecordError as error:
        raise PlanError(error.message, hint="docs/deciding.md shows a whole prices.toml") from error
    _check(path, found)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.isoformat() if isinstance(value, datetime.date) else value


def _known(path: Path, data: Mapping[str, Any]) -> None:
    """Refuse keys that would be ignored: a price that is misspelt must not go missing."""
    places: list[tuple[str, Any, Any]] = [
        ("", data, Prices),
        ("assumptions", data.get("assumptions", {}), Assumptions),
        ("electricity", data.get("electricity", {}), Electricity),
    ]
    hosts = data.get("hosts", {})
    for name, host in hosts.items() if isinstance(hosts, dict) else ():
        places.append((f"hosts.{name}", host, Price))
        if isinstance(host, dict) and "watts" in host:
            places.append((f"hosts.{name}.watts", host["watts"], Watts))
    for where, table, kind in places:
        fields = [item.name for item in dataclasses.fields(kind)]
        for key in table if isinstance(table, dict) else ():
            if key not in fields:
                raise PlanError(f"{path}: [{where}] has no {key!r}", hint=suggest(key, fields, "key"))


def _check(path: Path, prices: Prices) -> None:
    shares = {"utilisation": prices.assumptions.utilisation, "residual": prices.assumptions.residual}
    for name, value in shares.items():
        if not 0 <= value <= 1 or (name == "utilisation" and value == 0):
            raise PlanError(f"{path}: {name} is a share of 1; got {value}")
    if prices.assumptions.years <= 0 or prices.assumptions.pue < 1 or prices.assumptions.opex < 0:
        raise PlanError(f"{path}: years must be above 0, pue at least 1, opex at least 0")
    for name, price in prices.hosts.items():
        _check_host(path, name, price)
    currencies = {price.currency for price in prices.hosts.values()}
    currencies |= {prices.electricity.currency} if prices.electricity else set()
    if len(currencies) > 1:
        names = ", ".join(sorted(currencies))
        raise PlanError(f"{path} mixes currencies ({names})", hint="give all prices in one; nothing is converted here")


def _check_host(path: Path, name: str, price: Price) -> None:
    where = f"{path}: [hosts.{name}]"
    if (price.capex is None) == (price.price_per_hour is None):
        raise PlanError(f"{where} takes capex (bought) or price_per_hour (rented), one of them")
    if not price.source or not price.date or not price.currency:
        raise PlanError(f"{where} needs source, date and currency: a price that nobody can look up is none")
    if (price.capex or price.price_per_hour or 0) <= 0:
        raise PlanError(f"{where} has a price that is not above 0")
    if price.watts is not None and price.watts.level not in LEVELS:
        known = ", ".join(f"{level} ({what})" for level, what in LEVELS.items())
        raise PlanError(f"{where} watts are of level {price.watts.level!r}; measured ones are {known}")
