"""`python -m trio_sse_proxy` is `trio-sse-proxy`."""

from .cli import main

if __name__ == "__main__":
    main()
