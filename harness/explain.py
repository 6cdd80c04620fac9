"""What a plugin or a runtime raised, as one sentence for the user, and the rest for a file beside the run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError, MissingDependency, Unsupported
from harness.types import Failure, Stage, Status

QUOTED = 300  # characters of a runtime's own text that a sentence quotes
LONGEST = 1200  # characters of a sentence at the command line
REASON = 700  # characters of a record's reason: what was being done, a quoted text, and a hint
DETAILS = 200_000  # characters of the rest that are kept: their beginning and their end
MEMORY_WORDS = (
    "bad_alloc", "cannot allocate memory", "can't allocate memory", "failed to allocate", "memoryerror", "out of memory"
)  # fmt: skip

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])|[\x00-\x08\x0b-\x1f\x7f]")
_SOURCE = re.compile(r"(?:\bat )?(?<![\w/])[\w./+-]*\.(?:cc|cpp|cu|cuh|h|hpp|inc)[:(]\d+\)?:?")
_POINTER = re.compile(r" \(all of it: logs/[^)]*\)$")
_ROOTS = ("/build", "/home", "/mnt", "/onnxruntime_src", "/opt", "/private", "/tmp", "/usr", "/Users", "/var")  # noqa: S108  nothing is written there
_SAYS_NOTHING = re.compile(r"(?:Exception from|Check .* failed|Traceback \(most recent call last\):)?[\s:]*")


@dataclass(frozen=True)
class KnownError:
    """A cause that can be told from a runtime's text.

    Attributes:
        pattern: Regular expression that is searched in the text, after colours and folders are taken out; "." is any
            character but a line's end.
        says: The sentence, in the words of the user's model: groups of the pattern by name, in braces.
        hint: What to do about it.
        status: How such a cell ends: "not-applicable" where the runtime cannot by its nature, such as a missing kernel.
    """

    pattern: str
    says: str
    hint: str = ""
    status: Status = "failed"


@dataclass(frozen=True)
class Where:
    """What was being done when it happened.

    Attributes:
        stage, blame: As a ``Failure`` names them.
        doing: In words, such as "onnxruntime could not build the model".
        known: The causes that the plugin knows, the first that fits is told.
    """

    stage: Stage
    blame: str
    doing: str
    known: Sequence[KnownError] = ()


def failure(error: BaseException, where: Where) -> Failure:
    """Turn what was raised into one sentence; what it leaves out is in ``details``."""
    import traceback  # only where something went wrong

    details = cut("".join(traceback.format_exception(error)))
    if isinstance(error, HarnessError):
        sentence, whole = told(error)
        return Failure(status_of(error), where.stage, where.blame, sentence, "" if whole else details)
    text = text_of(error)
    known = first_known(text, where.known)
    if known is not None and not is_memory(text):
        return Failure(known[1], where.stage, where.blame, f"{where.doing}: {known[0]}", details)
    if isinstance(error, MemoryError) or is_memory(text):
        return Failure("oom", where.stage, where.blame, f"{where.doing}, memory ran out{_quoted(text)}", details)
    return Failure("failed", where.stage, where.blame, f"{where.doing} and raised {raised(error)!r}", details)


def told(error: HarnessError) -> tuple[str, bool]:
    """Return what an error that was raised on purpose says, the first line of it and of its hint, and whether all."""
    texts = [text for text in (error.message, error.hint) if text]
    lines = [line(text) for text in texts]
    whole = all(short == " ".join(text.split()) for short, text in zip(lines, texts, strict=True))
    return (lines[0] if len(lines) < 2 else f"{lines[0]} ({lines[1]})") if lines else "", whole


def brief(failure: Failure) -> Failure:
    """Return a failure whose reason is one line of bearable length; what it had more is among the details."""
    reason = line(failure.reason, REASON)
    if reason == failure.reason:
        return failure
    return replace(failure, reason=reason, details=cut(f"{failure.reason}\n\n{failure.details}".rstrip()))


def limited(found: Failure, limit_bytes: int | None) -> Failure:
    """Return a failure that names the memory limit where a build step ran into it."""
    if found.status != "oom" or limit_bytes is None:
        return found
    return replace(found, reason=f"{found.reason}; --memory-limit allows a step {limit_bytes / 2**20:.0f} MiB")


def died(how: str, printed: str, status: Status, where: Where) -> Failure:
    """Tell that a process is gone: ``how`` it went, and why where what it printed tells."""
    known = first_known(printed, where.known)
    line = last_line(printed)
    why = f": {known[0]}" if known is not None else f"; it printed last {line!r}" if line else ""
    return Failure(status, where.stage, where.blame, f"{where.doing}, its process {how}{why}", cut(printed))


def text_of(error: BaseException) -> str:
    """Return what an error says, whatever its class does when it is asked."""
    try:
        return str(error).encode(errors="replace").decode()
    except BaseException:  # noqa: BLE001  a plugin's class may do anything; no Ctrl-C is worth the record
        return "what it says cannot be had"


def raised(error: BaseException) -> str:
    """Return the class of an error and the first line of what it says."""
    return f"{type(error).__name__}: {first_line(text_of(error))}".removesuffix(": ")


def status_of(error: HarnessError) -> Status:
    """Return how a cell ends for which an error was raised on purpose."""
    if isinstance(error, Unsupported):
        return "not-applicable"
    if isinstance(error, MissingDependency):
        return "unavailable"
    return "oom" if is_memory(error.message) else "failed"


def first_known(text: str, known: Sequence[KnownError]) -> tuple[str, Status] | None:
    """Return the sentence of the first known cause that fits a text, with its hint, and how its cell ends."""
    readable = plain(text)
    for cause in known:
        found = re.search(cause.pattern, readable)
        if found is not None:
            groups = {name: _short(value or "") for name, value in found.groupdict().items()}
            hint = f" ({cause.hint})" if cause.hint else ""
            return cause.says.format(**groups) + hint, cause.status
    return None


def plain(text: str) -> str:
    """Return a text without colours, control characters, this machine's folders and lines of source code."""
    return _SOURCE.sub("", _FOLDERS.sub(r"\1", _ANSI.sub("", text)))


def readable(text: str) -> str:
    """Return a sentence that was written on purpose without colours, and cut where it quotes pages."""
    bare = _ANSI.sub("", text)
    return bare if len(bare) <= LONGEST else f"{bare[:LONGEST]} …"


def line(text: str, limit: int = QUOTED) -> str:
    """Return the first line of a sentence that was written on purpose, without colours, cut at ``limit`` characters."""
    lines = (" ".join(part.split()) for part in _ANSI.sub("", text).splitlines())
    return _short(next(filter(None, lines), ""), limit)


def first_line(text: str) -> str:
    """Return the first line of a text that says something, at most ``QUOTED`` characters of it."""
    lines = (" ".join(line.split()) for line in plain(text).splitlines())
    return _short(next((line for line in lines if not _SAYS_NOTHING.fullmatch(line)), ""))


def last_line(text: str) -> str:
    """Return the last line of a text that says something, at most ``QUOTED`` characters of it."""
    lines = (" ".join(line.split()) for line in reversed(plain(text).splitlines()))
    return _short(next((line for line in lines if not _SAYS_NOTHING.fullmatch(line)), ""))


def is_memory(text: str) -> bool:
    """Tell whether a text says that memory ran out."""
    return any(word in text.lower() for word in MEMORY_WORDS)


def log_name(failure: Failure) -> str:
    """Return the name of the file that holds the details of a failure; equal ones share one."""
    import hashlib  # as above

    return f"{failure.stage}-{hashlib.sha256(failure.details.encode(errors='replace')).hexdigest()[:12]}.log"


def pointing(reason: str, path: str) -> str:
    """Return a sentence that names the file that holds the rest."""
    return f"{reason} (all of it: {path})"


def sentence_of(reason: str) -> str:
    """Return a sentence without the file that it names: what fails alike is told once."""
    return _POINTER.sub("", reason)


def cut(text: str) -> str:
    """Return a text, or the beginning and the end of a long one: ``DETAILS`` characters."""
    half = DETAILS // 2
    return text if len(text) <= DETAILS else f"{text[:half]}\n[…]\n{text[-half:]}"


def _quoted(text: str) -> str:
    line = first_line(text)
    return f": {line!r}" if line else ""


def _short(text: str, limit: int = QUOTED) -> str:
    words = " ".join(text.split())
    return words if len(words) <= limit else f"{words[:limit]} …"


def _folders() -> re.Pattern[str]:
    """Return what finds an absolute path below a folder that machines have; names such as /conv1/Conv stay."""
    given = (os.environ.get(name, "") for name in ("HARNESS_CACHE", "HOME", "TMPDIR", "XDG_CACHE_HOME"))
    found = {root.rstrip("/") for root in (*given, str(Path.cwd()), sys.prefix, *_ROOTS)} - {""}
    roots = "|".join(re.escape(root) for root in sorted(found, key=len, reverse=True))
    return re.compile(rf"(?<![\w.])(?:{roots})/(?:[^\s/:'\"()\[\]]+/)*([^\s/:'\"()\[\],]+)")


_FOLDERS = _folders()
