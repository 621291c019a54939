"""The HTTP server: OpenAI's API on an ``Engine``. It needs the extra ``serve``: ``pip install 'bitnet-rust[serve]'``.

``bitnet serve`` runs it; ``create_app`` gives the same as an ASGI application, for other servers.
"""

from ..errors import missing_extra

try:
    import fastapi  # noqa: F401
    import prometheus_client  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as missing:
    raise missing_extra("the server", f"the package {missing.name}", "serve") from missing

from .app import create_app
from .auth import APIKey, read_keys
from .lifecycle import serve
from .options import ServerOptions

__all__ = ["APIKey", "ServerOptions", "create_app", "read_keys", "serve"]
