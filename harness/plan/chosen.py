"""A spec that a request names, with its parameters: what the checks look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, PluginError
from harness.explain import raised
from harness.faults import of_plugin
from harness.grammar import format_step

if TYPE_CHECKING:
    from harness.plan.values import Resolved


@dataclass(frozen=True)
class Chosen:
    """A spec (of any kind), the parameters object that its functions take, and the resolved step."""

    spec: Any
    params: Any
    resolved: Resolved

    @property
    def name(self) -> str:
        """Name of the offer."""
        return self.resolved.name

    @property
    def text(self) -> str:
        """Canonical form in the grammar."""
        return format_step(self.resolved.step)

    def ask(self, field: str) -> Any:
        """Return a spec field that is either a value or a function of the parameters.

        Raises:
            HarnessError: The function refuses the parameters.
            PluginError: It raises anything else.
        """
        value = getattr(self.spec, field)
        if not callable(value):
            return value
        try:
            return value(self.params)
        except HarnessError:
            raise
        except BaseException as error:
            if not of_plugin(error):
                raise
            plugin = self.resolved.plugin
            said = f"{field!r} of {self.text} raised {raised(error)}; that is the fault of plugin {plugin!r}"
            raise PluginError(said, hint=f"harness -p no:{plugin} leaves it out") from error
