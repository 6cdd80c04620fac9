"""Checks of what a target says of itself, and of what lowering gave."""

from __future__ import annotations

from harness.testing.common import beside, ended, raised_well
from harness.testing.observed import Lowered
from harness.testing.results import Judge
from harness.types import Availability, Capabilities, Failure, Precision


def judge_state(judge: Judge, found: Availability, able: Capabilities | None) -> bool:
    """Check what the probe and the capabilities say; tell whether the target runs here."""
    judge.expect(
        "probe",
        not found.reason.startswith(("the probe raised", "the probe failed")),
        expected="a probe returns Availability(False, reason=…) for what is missing",
        seen=found.reason,
        fix="catch ImportError and the runtime's own errors in probe, and say what to install",
    )
    if not found.available:
        judge.expect(
            "probe",
            bool(found.reason),
            expected="a reason why it is not available",
            seen="none",
            fix="Availability(False, reason='… is not installed', hint='pip install …')",
        )
        return False
    judge.expect(
        "probe",
        bool(found.version and found.runtime),
        expected="the runtime's name and version",
        seen=f"runtime {found.runtime!r}, version {found.version!r}",
        fix="Availability(True, runtime='name', version=importlib.metadata.version('name'))",
    )
    if able is not None:
        _able(judge, able)
    return True


def _able(judge: Judge, able: Capabilities) -> None:
    judge.expect(
        "capabilities",
        able.float_precision in able.precisions,
        expected=f"precisions hold float_precision ({able.float_precision})",
        seen=", ".join(sorted(able.precisions)),
        fix="list the widest float precision: the anchor runs in it",
    )
    both = sorted(set(able.precisions) & set(able.gaps))
    judge.expect(
        "capabilities",
        not both,
        expected="a precision is offered or a gap",
        seen=f"both: {', '.join(both)}",
        fix="take it out of one of the two",
    )
    blank = sorted(name for name, why in able.gaps.items() if not why.strip())
    judge.expect(
        "capabilities",
        not blank,
        expected="each gap has its reason",
        seen=f"none for {', '.join(blank)}",
        fix="say why the runtime cannot: the plan prints it",
    )
    judge.expect(
        "capabilities",
        bool(able.version) and able.channel_multiple >= 1,
        expected="a version of this data",
        seen=f"version {able.version!r}, channel_multiple {able.channel_multiple}",
        fix="version='2026.11'; channel_multiple=1 where it does not matter",
    )


def judge_lowered(
    judge: Judge,
    seen: Lowered | Failure,
    again: Lowered | Failure | None,
    precision: Precision,
    at: str,
    announced: str = "",
) -> bool:
    """Check a lowering that should work; tell whether there is an artifact to open.

    Args:
        judge: Collects the results.
        seen: The lowering.
        again: A second one of the same model, where there was one.
        precision: That was asked for.
        at: The test model.
        announced: How the capabilities say that the precision is realised here.
    """
    if not ended(judge, seen, "lower", at) or isinstance(seen, Failure):
        return False
    if seen.raised is not None or seen.artifact is None:
        if seen.raised is not None and seen.blocked:
            judge.expect(
                "no-framework",
                False,
                expected="files in, file out: a host without a training framework can lower",
                seen=str(seen.raised),
                sample=at,
                fix="do what needs it in an exporter, or use the runtime's own converter",
            )
        elif seen.raised is None:
            judge.expect(
                "runs",
                False,
                expected="lower returns an Artifact",
                seen=seen.gave,
                sample=at,
                fix="return Artifact(path=…, sha256=…, realised=…, …)",
            )
        else:
            _lower_raised(judge, seen, at)
        return False
    judge.expect("runs", True, expected="", seen="", fix="", sample=at)
    beside(judge, seen.watched, at, files=False)
    judge.expect(
        "input-kept",
        not seen.input_changed,
        expected="the model's file is only read",
        seen="its folder has changed",
        fix="copy it into job.out first",
        sample=at,
    )
    judge.expect("no-framework", True, expected="", seen="", fix="", sample=at)
    _artifact(judge, seen, precision, at, announced)
    if isinstance(again, Lowered):
        same = again.artifact is not None and again.file_sha256 == seen.file_sha256
        judge.expect(
            "seed",
            same,
            expected="lowering the same model again gives the same bytes",
            seen=str(again.raised) if again.raised else "the files differ",
            sample=at,
            fix="take times, paths and unseeded generators out of the file",
        )
    return seen.exists and seen.inside


def _lower_raised(judge: Judge, seen: Lowered, at: str) -> None:
    raised = seen.raised
    if raised is None:
        return
    if raised.on_purpose and not raised.unsupported and raised.kind != "MissingDependency":
        judge.expect(
            "unsupported",
            False,
            expected="Unsupported for what cannot be",
            seen=str(raised),
            fix="raise Unsupported with the reason",
            sample=at,
        )
    else:
        raised_well(judge, raised, "lower", at)


def _artifact(judge: Judge, seen: Lowered, precision: Precision, at: str, announced: str) -> None:
    artifact = seen.artifact
    if artifact is None:
        return
    judge.expect(
        "format",
        seen.exists and seen.inside,
        expected="the artifact lies in job.out",
        seen=f"{artifact.path} {'lies elsewhere' if seen.exists else 'does not exist'}",
        fix="write it below job.out and point path at it",
        sample=at,
    )
    if not seen.exists:
        return
    one_file = artifact.artifact_bytes == seen.file_bytes
    judge.expect(
        "artifact",
        (one_file or artifact.artifact_bytes == seen.all_bytes) and artifact.stored_bytes > 0,
        expected=f"artifact_bytes {seen.file_bytes} ({seen.all_bytes} with its neighbours), stored_bytes above 0",
        seen=f"artifact_bytes {artifact.artifact_bytes}, stored_bytes {artifact.stored_bytes}",
        sample=at,
        fix="artifact_bytes=path.stat().st_size; stored_bytes from harness.api.stored_size",
    )
    judge.expect(
        "artifact",
        bool(artifact.sha256) and (artifact.sha256 == seen.file_sha256 or not one_file or seen.folder),
        expected=f"sha256 {seen.file_sha256[:12]}… of the file",
        seen=f"{artifact.sha256[:12]}…",
        sample=at,
        fix="hash the file after the last write",
    )
    same = precision.name in {artifact.realised, artifact.realised.rpartition("-")[2]}
    told = same or bool(artifact.flags) or artifact.realised in announced
    judge.expect(
        "realised",
        told,
        expected=f"{precision.name}, or a flag or capabilities that say what else",
        seen=f"realised {artifact.realised!r} without a flag",
        sample=at,
        fix="raise Unsupported where the precision cannot be had, or put a flag on the artifact",
    )


def judge_refused(judge: Judge, seen: Lowered | Failure, why: str, at: str) -> None:
    """Check a lowering that the capabilities rule out."""
    if not ended(judge, seen, "lower", at) or isinstance(seen, Failure):
        return
    raised = seen.raised
    judge.expect(
        "unsupported",
        raised is not None and (raised.unsupported or raised.kind == "MissingDependency"),
        expected=f"Unsupported: {why}",
        sample=at,
        seen=str(raised)
        if raised
        else f"an artifact realised as {seen.artifact.realised if seen.artifact else seen.gave}",
        fix="begin lower with: if model.precision.name not in …: raise Unsupported('why')",
    )
