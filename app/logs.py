"""Logs: one line an event, for people on a terminal and JSON elsewhere.

No key is ever in them, and no prompt unless `log_prompts` asks for it.
"""

import logging
import sys

import structlog


def configure_logging(level: str) -> None:
    for_people = sys.stderr.isatty()
    # Tracebacks without what the variables held: a prompt, a key.
    for_terminals = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    renderer = for_terminals if for_people else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if for_people else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
