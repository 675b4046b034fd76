"""Removing the parts of URLs that may be secret, and audio, from the log.

The worker does not log the texts of exceptions. RunPod's SDK does, such as when a heartbeat fails, and so does Python
for uncaught exceptions. These texts may hold URLs with keys and signatures in their queries.
"""

import re

_URL = re.compile(
    r"""
    (?P<scheme> \b https?:// ) (?: [^\s/?#'"<>\\]* @ )? (?P<host> [^\s/?#'"<>\\@]* ) (?P<rest> [/?#][^\s'"<>\\]* )?
    | (?P<path> \b url:\s ) [/?] [^\s'"<>\\]*
    | (?P<inline> \b data: ) [^\s,'"<>\\]{0,200} , [^\s'"<>\\]+
    | (?P<field> \b audio_base64 \\?['"]? \s? [:=] \s? \\?['"] ) (?: [^'"\\] | \\[^'"] )+
    """,
    re.VERBOSE | re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return a text without the user, password, path and query of its URLs, and without the audio in it.

    That is the data of `data:` URLs, and what follows `audio_base64` up to the next quotation mark.
    """
    return _URL.sub(_shorten, text)


def _shorten(match: re.Match[str]) -> str:
    if match["scheme"]:
        return f"{match['scheme']}{match['host']}{'/…' if match['rest'] else ''}"
    return f"{match['path'] or match['inline'] or match['field']}…"
