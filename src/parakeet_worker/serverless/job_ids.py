"""A job's id in the form that addresses, headers and the log can hold."""

import re
from urllib.parse import quote

_LONGEST_LOGGED = 200
_QUOTED = re.compile(rf"[\w.~%-]{{1,{_LONGEST_LOGGED}}}", re.ASCII)


def quoted_id(job_id: object) -> str | None:
    """Return a job's id percent-encoded, as one segment of a path; RunPod's own ids stay as they are.

    Two ids that differ stay different, and no control character, separator or lone surrogate is left.

    Args:
        job_id: What stands under `id`: a string, or an integer, which is read as its digits.

    Returns:
        The id, or None where it is neither, or is empty.
    """
    if isinstance(job_id, bool) or not isinstance(job_id, str | int):
        return None
    try:
        quoted = quote(str(job_id), safe="", errors="surrogatepass")
    except ValueError:  # an integer of more than 4,300 digits
        return None
    if not quoted.strip("."):
        # A segment of only dots would lead to another place in the path.
        quoted = quoted.replace(".", "%2E")
    return quoted or None


def loggable_id(job_id: object) -> str | None:
    """Return a job's id as the log shows it: quoted, if it is not yet, and cut. None where there is no usable one."""
    if isinstance(job_id, str) and _QUOTED.fullmatch(job_id):
        return job_id
    quoted = quoted_id(job_id)
    return quoted and quoted[:_LONGEST_LOGGED]
