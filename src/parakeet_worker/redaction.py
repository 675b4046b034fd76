"""What is left out of the log, whoever writes to it: of URLs, all that may be a secret.

The worker logs no exception's text. RunPod's SDK does (of a heartbeat that fails, for one), and so do Python and
libraries where nobody catches what they raise; URLs are in such texts, with keys and signatures in their queries.
"""

import re

_URL = re.compile(
    r"""
    (?P<scheme> \b https?:// ) (?: [^\s/?#'"<>\\]* @ )? (?P<host> [^\s/?#'"<>\\@]* ) (?P<rest> [/?#][^\s'"<>\\]* )?
    | (?P<path> \b url:\s ) [/?] [^\s'"<>\\]*
    | (?P<inline> \b data: ) [^\s,'"<>\\]{0,200} , [^\s'"<>\\]+
    """,
    re.VERBOSE | re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return a text whose URLs have no user, password, path and query any more, and whose `data:` URLs no data."""
    return _URL.sub(_shorten, text)


def _shorten(match: re.Match[str]) -> str:
    if match["scheme"]:
        return f"{match['scheme']}{match['host']}{'/…' if match['rest'] else ''}"
    return f"{match['path'] or match['inline']}…"
