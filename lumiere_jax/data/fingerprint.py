"""A short name for what a data source holds, to tell whether a run goes on with the same data."""

import hashlib
import json


def fingerprint(kind: str, **facts: object) -> str:
    """Names a source by a hash of all that its clips depend on.

    Args:
      kind: of the source.
      facts: whatever changes the clips if it changes: settings, names and sizes of files, captions.
        Anything that JSON can hold.

    Returns:
      "KIND-" and 16 hexadecimal digits.
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, default=list)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
