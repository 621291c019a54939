"""A model hub of one's own: as much of the Hugging Face HTTP interface as snapshot_download uses, on this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlparse

SHA = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves repositories that tests add: name -> directory. ``with`` starts and stops it."""

    def __init__(self) -> None:
        self.repositories: dict[str, Path] = {}
        self.requests: list[str] = []
        self.failing: set[str] = set()  # files that are refused
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "HubServer":
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        path = unquote(urlparse(request.path).path)
        self.requests.append(f"{request.command} {path}")
        for name, directory in self.repositories.items():
            if f"{path}/".startswith(f"/api/models/{name}/"):
                return self._describe(request, name, directory, path, body)
            prefix = f"/{name}/resolve/"
            if path.startswith(prefix):
                _, _, file = path[len(prefix) :].partition("/")
                return self._file(request, directory / file, body)
        return self._send(request, 404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"}, body)

    def _describe(self, request: BaseHTTPRequestHandler, name: str, directory: Path, path: str, body: bool) -> None:
        files = sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": f, "size": (directory / f).stat().st_size, "oid": _etag(directory / f)}
                for f in files
            ]
            return self._send(request, 200, json.dumps(tree).encode(), {}, body)
        answer = {
            "_id": name, "id": name, "modelId": name, "sha": SHA, "private": False, "tags": [], "downloads": 0, "likes": 0,
            "siblings": [{"rfilename": f} for f in files],
        }  # fmt: skip
        return self._send(request, 200, json.dumps(answer).encode(), {}, body)

    def _file(self, request: BaseHTTPRequestHandler, path: Path, body: bool) -> None:
        if path.name in self.failing:
            return self._send(request, 403, b"", {}, body)
        if not path.is_file():
            return self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA}, body)
        headers = {"X-Repo-Commit": SHA, "ETag": f'"{_etag(path)}"', "Accept-Ranges": "bytes"}
        return self._send(request, 200, path.read_bytes(), headers, body)

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str], body: bool
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if body:
            request.wfile.write(data)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
