"""MLPerf's system description, from what the host's fingerprint knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.store import RunInfo
from harness.types import Record

UNVERIFIED = (
    "Unverified: not reviewed by MLCommons. A description of a system only; results of this harness are no MLPerf's."
)
KEYS = (
    "division", "submitter", "status", "system_name", "number_of_nodes", "host_processor_model_name",
    "host_processors_per_node", "host_processor_core_count", "host_memory_capacity", "host_storage_capacity",
    "host_storage_type", "accelerators_per_node", "accelerator_model_name", "accelerator_memory_capacity", "framework",
    "operating_system", "system_type", "other_software_stack", "host_processor_frequency", "host_processor_caches",
    "host_memory_configuration", "host_processor_interconnect", "host_networking", "host_networking_topology",
    "accelerator_frequency", "accelerator_host_interconnect", "accelerator_interconnect",
    "accelerator_interconnect_topology", "accelerator_memory_configuration", "accelerator_on-chip_memories", "cooling",
    "hw_notes", "sw_notes", "host_network_card_count", "system_type_detail",
)  # fmt: skip  # the 35 fields that the submission checker of mlcommons/inference requires


def system_description(info: RunInfo, records: Iterable[Record] = ()) -> dict[str, str]:
    """Return the 35 keys that MLPerf's submission checker requires; what is not known says so, and is not guessed.

    Args:
        info: Of the run whose host is described.
        records: Of the run; they name the runtimes that they were measured on.
    """
    runtimes = {record.provenance["runtime"] for record in records if record.provenance.get("runtime")}
    facts = {name: value for name, value in info.host_facts.items() if not value.startswith("not available")}
    known = {
        "division": "open",
        "status": "unverified",
        "system_name": info.host_name,
        "number_of_nodes": "1",
        "host_processor_model_name": facts.get("cpu_model_name", ""),
        "host_processor_core_count": facts.get("cores_physical", ""),
        "host_memory_capacity": _gib(facts.get("ram_bytes", "")),
        "accelerators_per_node": "1" if "gpu_name" in facts else "0",
        "accelerator_model_name": facts.get("gpu_name", "N/A"),
        "accelerator_memory_capacity": "" if "gpu_name" in facts else "N/A",
        "framework": ", ".join(sorted(runtimes)),
        "operating_system": facts.get("kernel", ""),
        "other_software_stack": f"compression-harness {info.harness_version}",
        "host_processor_frequency": _khz(facts.get("frequency_max_khz", "")),
        "host_processor_caches": facts.get("caches", ""),
        "hw_notes": "; ".join(f"{name}: {facts.get(name, 'not known')}" for name in ("hypervisor", "governor")),
        "sw_notes": UNVERIFIED,
    }
    return {key: known.get(key) or _unknown(key, facts) for key in KEYS}


def _unknown(key: str, facts: Mapping[str, str]) -> str:
    without_gpu = key.startswith("accelerator") and "gpu_name" not in facts
    return "N/A" if without_gpu else "not available: to be filled in by the submitter"


def _gib(text: str) -> str:
    return f"{int(text) / 2**30:.1f} GiB" if text.isdecimal() else ""


def _khz(text: str) -> str:
    return f"{int(text) / 1000:.0f} MHz" if text.isdecimal() else ""
