"""What can go wrong at the support desk: one class for each thing a caller would handle differently.

    SupportDeskError                everything below
    ├── MaterialError               a file of articles, examples or tickets cannot be used
    ├── EmptyTextError              a ticket without text (also a ValueError): nothing to classify
    ├── TrainingError               examples that nothing can be learned from (also a ValueError)
    ├── KnowledgeIndexError         bytes that are not an index made by `build_index`
    ├── NoArticleError              a reply was asked for without any article (also a LookupError)
    ├── DataDirUsedError            the folder for a demo holds something else already
    ├── AgentNotReadyError          an agent of the desk did not start
    ├── TooFewTicketsError          chaos was asked for with fewer tickets than faults of one process
    ├── ChaosError                  something did not recover from a fault in time
    ├── MissingExtraError           an optional dependency is not installed (also an ImportError)
    ├── ModelUnavailable            the language model may answer if asked again later
    └── ModelRefused                the language model will not answer this, however often it is asked

`code` names the class and `error_code` the case where a class has several (`material.missing_column`); both are stable.
Messages are built from the fields, so that a log line and a handler see the same facts.
"""

from pathlib import Path

from agentflow.errors import AgentflowError


class SupportDeskError(AgentflowError):
    """The root of every error this package raises on purpose."""

    code = "support_desk.error"


class MaterialError(SupportDeskError):
    """A file of the desk's material cannot be used.

    `line` counts from 1 and is None when the whole file is meant; `found` is what is there, `allowed` what may be.
    """

    code = "material.invalid"
    exit_code = 2

    def __init__(self, case: str, path: Path, line: int | None, found: str, allowed: str) -> None:
        where = str(path) if line is None else f"{path}, line {line}"
        message = f"{where}: found {found}; allowed: {allowed}"
        super().__init__(message, code=f"material.{case}", path=str(path), line=line, found=found, allowed=allowed)
        self.path = path
        self.line = line
        self.found = found
        self.allowed = allowed


class EmptyTextError(SupportDeskError, ValueError):
    """A ticket has no text, or nothing but white space."""

    code = "ticket.empty"

    def __init__(self) -> None:
        super().__init__("the ticket has no text; allowed: at least one character that is not white space")


class TrainingError(SupportDeskError, ValueError):
    """The examples are not enough to train on; `found` says what was there, `allowed` what is needed."""

    code = "classifier.examples"
    exit_code = 2

    def __init__(self, found: str, allowed: str) -> None:
        super().__init__(f"cannot train on {found}; allowed: {allowed}", found=found, allowed=allowed)
        self.found = found
        self.allowed = allowed


class KnowledgeIndexError(SupportDeskError):
    """The bytes given are not a knowledge index; `reason` is what the database said."""

    code = "knowledge.index"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a knowledge index: {reason}; allowed: the bytes `build_index` returned", reason=reason)
        self.reason = reason


class NoArticleError(SupportDeskError, LookupError):
    """There is no article to draft a reply from; `intent` is what the ticket was taken for."""

    code = "writer.no_article"

    def __init__(self, intent: str) -> None:
        super().__init__(f"no article to answer a ticket about {intent!r} with; allowed: one or more", intent=intent)
        self.intent = intent


class DataDirUsedError(SupportDeskError):
    """The folder given for a demo holds an earlier one, or another project; `found` is the file that says so."""

    code = "demo.data_dir_used"
    exit_code = 7

    def __init__(self, directory: Path, found: Path) -> None:
        super().__init__(
            f"{directory} is in use already: it holds {found.relative_to(directory)}; allowed: a folder of its own",
            directory=str(directory),
            found=str(found),
            hint="give another --data-dir, or leave it out for a new folder",
        )
        self.directory = directory
        self.found = found


class AgentNotReadyError(SupportDeskError):
    """An agent of the desk did not start: it failed for `reason`, or was not there in time."""

    code = "demo.agent_not_ready"

    def __init__(self, agent: str, reason: str, log: Path) -> None:
        super().__init__(f"{agent} did not start: {reason}", agent=agent, reason=reason, hint=f"see {log}")
        self.agent = agent
        self.reason = reason


class TooFewTicketsError(SupportDeskError, ValueError):
    """There are too few tickets for the faults that were asked for: each has to fall while one is in flight."""

    code = "chaos.too_few_tickets"
    exit_code = 2

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(
            f"{found} tickets are too few for {needed} faults of one process; allowed: {needed} or more",
            found=found,
            needed=needed,
            hint="give fewer --kills, or a higher --limit",
        )
        self.found = found
        self.needed = needed


class ChaosError(SupportDeskError):
    """Something did not recover from a fault within `seconds`; `seed` makes the same faults again."""

    code = "chaos.not_recovered"

    def __init__(self, what: str, seconds: float, seed: int) -> None:
        super().__init__(
            f"{what} after {seconds:g} s (seed {seed})", seed=seed, hint="the logs are in the data directory"
        )
        self.seconds = seconds
        self.seed = seed


class MissingExtraError(SupportDeskError, ImportError):
    """An optional dependency is missing; `extra` is the name to install it by."""

    code = "install.missing_extra"
    exit_code = 2

    def __init__(self, package: str, extra: str) -> None:
        requirement = f"agentflow-support-desk[{extra}]"
        super().__init__(f"{package!r} is not installed: pip install {requirement!r}", package=package, extra=extra)
        self.package = package
        self.extra = extra


class ModelUnavailable(SupportDeskError):
    """The language model did not answer this time; asking again after `retry_after` seconds may help."""

    code = "model.unavailable"
    retry_after = 2.0

    def __init__(self, reason: str) -> None:
        super().__init__(f"the model did not answer: {reason}", reason=reason)
        self.reason = reason


class ModelRefused(SupportDeskError):
    """The language model cannot be used like this: a wrong key, an unknown model, a request it does not accept."""

    code = "model.refused"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the model cannot be used: {reason}", reason=reason)
        self.reason = reason
