"""Set-up of structlog, for the command line only: an embedding program keeps its own."""

import logging
import sys
from pathlib import Path
from typing import Protocol, TextIO

import structlog

from triolet_core.errors import ConfigError

FILE_NAME = "triolet.log"
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}


class LogSettings(Protocol):
    """The settings of logs, `LogConfig`."""

    @property
    def level(self) -> int:
        """0 by mode, 1 debug, 2 info, 3 warning, 4 error. Source: config.md, `logger.level`."""
        ...

    @property
    def dir(self) -> str:
        """Directory of the file, empty for standard error."""
        ...

    @property
    def line_num(self) -> bool:
        """Whether to name the line that logged."""
        ...


def configure_logging(config: LogSettings, *, mode: str, root_dir: Path) -> None:
    """Log to a file in `logger.dir` if that is set, else to standard error.

    People on a terminal get lines to read, everything else gets one JSON object per line.

    Raises:
        ConfigError: The file cannot be written.
    """
    level = _LEVELS.get(config.level) or (logging.DEBUG if mode == "debug" else logging.INFO)
    stream = _stream(config.dir, root_dir)
    structlog.configure(
        processors=_processors(has_lines=config.line_num, is_for_people=stream.isatty()),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )


def _processors(*, has_lines: bool, is_for_people: bool) -> list[structlog.typing.Processor]:
    found: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    if has_lines:
        parameters = {structlog.processors.CallsiteParameter.FILENAME, structlog.processors.CallsiteParameter.LINENO}
        found.append(structlog.processors.CallsiteParameterAdder(parameters))
    if is_for_people:
        # Not its default, which shows local variables: they hold tokens and payloads.
        return [*found, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [*found, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _stream(directory: str, root_dir: Path) -> TextIO:
    if not directory:
        return sys.stderr
    path = root_dir / Path(directory).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        return (path / FILE_NAME).open("a", encoding="utf-8", buffering=1)
    except OSError as exc:
        raise ConfigError("logger.dir", f"{path} cannot be written: {exc.strerror}") from exc
