"""The web application of `jielong ui`: one page, its files, and what it asks for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from jielong.serving.errors import RequestError
from jielong.serving.guard import OPEN_PATHS, Access
from jielong.serving.web import application, json_response
from jielong.ui.chain import Chain
from jielong.ui.inside import Inside
from jielong.ui.players import Players
from jielong.ui.watch import Watch

STATIC = Path(__file__).with_name("static")
COOKIE = "jielong"
LOGIN = "/login"
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# the last part lets no script of ours make markup of a text, by mistake or by trick
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def create_app(players: Players, access: Access) -> Starlette:
    """Create the application.

    Args:
        players: the models, and the runs to watch.
        access: who may use it; a token is also taken as a cookie, which `/login` sets.
    """
    access = dataclasses.replace(access, cookie=COOKIE, open_paths=(*OPEN_PATHS, LOGIN))
    chain, watch, inside = Chain(players), Watch(players), Inside(players)
    files = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir())}

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise RequestError("there is nothing at this address", 404)
        kind = KINDS[Path(name).suffix]
        return Response(files[name], media_type=kind, headers={"Content-Security-Policy": POLICY})

    async def login(request: Request) -> Response:
        given = request.query_params.get("token")
        if not access.admits(given):
            raise RequestError("this is not the token that `jielong ui` has printed", 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, given or "", httponly=True, samesite="strict")
        return response

    async def health(_: Request) -> Response:
        return json_response({"status": "ok"})

    return application(
        [
            Route("/", file),
            Route("/health", health),
            Route(LOGIN, login),
            Route("/static/{name}", file),
            Route("/inside/{name}", inside.page),
            Route("/api/runs", chain.runs),
            Route("/api/watch", watch.watch),
            Route("/api/model", chain.model, methods=["POST"]),
            Route("/api/read", chain.read, methods=["POST"]),
            Route("/api/bars", chain.bars, methods=["POST"]),
            Route("/api/go", chain.go_on, methods=["POST"]),
            Route("/api/inside", inside.make, methods=["POST"]),
        ],
        access,
        players.limits,
    )
