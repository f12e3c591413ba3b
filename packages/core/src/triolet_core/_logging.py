"""Set-up of structlog, for the command line only: an embedding program keeps its own."""

import logging
import sys
from pathlib import Path
from typing import TextIO

import structlog

from triolet_core.config import LogConfig

FILE_NAME = "triolet.log"
_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}


def configure_logging(config: LogConfig, *, mode: str, root_dir: Path) -> None:
    """Log to `logger.dir` if it is set, else to standard error: for people on a terminal, JSON lines elsewhere."""
    level = _LEVELS.get(config.level) or (logging.DEBUG if mode == "debug" else logging.INFO)
    stream = _stream(config, root_dir)
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    if config.line_num:
        parameters = {structlog.processors.CallsiteParameter.FILENAME, structlog.processors.CallsiteParameter.LINENO}
        processors.append(structlog.processors.CallsiteParameterAdder(parameters))
    if stream.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )


def _stream(config: LogConfig, root_dir: Path) -> TextIO:
    if not config.dir:
        return sys.stderr
    directory = root_dir / config.dir
    directory.mkdir(parents=True, exist_ok=True)
    return (directory / FILE_NAME).open("a", encoding="utf-8", buffering=1)
