"""What `helm test` asks: does the API server answer the operator's account, and does an operator stand by?

Called with the URL of a collection, the folder of the account's token, the URL of /readyz, seconds to try for, and the
URL of the ledger's /readyz, where there is one.
"""

import ssl
import sys
import time
import urllib.request
from pathlib import Path


def ask(url: str, account: Path | None = None) -> str:
    """Return the answer; whatever goes wrong is an OSError."""
    request = urllib.request.Request(url)
    context = None
    if account is not None:
        request.add_header("Authorization", f"Bearer {(account / 'token').read_text().strip()}")
        context = ssl.create_default_context(cafile=account / "ca.crt") if url.startswith("https:") else None
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:
        return answer.read(200).decode("utf-8", "replace")


def main(collection: str, account: str, ready: str, seconds: str, ledger: str = "") -> int:
    """Ask until all answer; return the exit code."""
    deadline = time.monotonic() + float(seconds)
    while True:
        try:
            ask(collection, Path(account))
            print("the API server answers the operator's account")
            ask(ready)
            print("an operator is ready")
            if ledger:
                ask(ledger)
                print("a ledger is ready")
            return 0
        except OSError as error:
            print(f"not yet: {error}", flush=True)
            if time.monotonic() > deadline:
                return 1
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
