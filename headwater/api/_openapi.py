"""The OpenAPI description, made once from the routes, and a page that shows it offline."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import resources
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, License, SecurityScheme

from headwater import __version__
from headwater.api._auth import ANY, PUBLIC
from headwater.api._service import MAX_PAGE
from headwater.config import Config
from headwater.ingest import MAX_ID_LENGTH
from headwater.keys import KeyRing

_HEADERS = {
    "401": {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}},
    "503": {"Retry-After": {"schema": {"type": "integer"}, "required": True}},
}

OPENAPI_MEDIA_TYPE = "application/vnd.oai.openapi+json"


def describe(
    handlers: Sequence[HTTPRouteHandler], config: Config, *, guarded: bool
) -> dict[str, Any]:
    """The OpenAPI 3.1 document of ``handlers``; ``guarded`` where requests need a key.

    Request bodies come from the structs that decode them: a route takes its body
    as bytes, so that every bad element can be named, and of bytes Litestar alone
    could say nothing. A handler names the struct as ``opt={"body": ...}``,
    a tuple where several will do,
    and says ``"lines"`` where a line each will do, ``"optional"``
    where the body may be missing, and in ``"id"`` which field every element needs that
    elsewhere stands in the path.
    """
    app = Litestar(
        list(handlers),
        openapi_config=OpenAPIConfig(
            title="Headwater",
            version=__version__,
            description="A recommender that never stops learning. Every error is an RFC 9457 "
            "problem; offsets say what is stored and learned.",
            license=License(name="Apache-2.0", identifier="Apache-2.0"),
            components=Components(
                security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}
            ),
            use_handler_docstrings=True,
            operation_id_creator=lambda handler, _method, _path: handler.handler_name,
        ),
        dependencies={"service": Provide(lambda: None, sync_to_thread=False)},
        logging_config=None,
    )
    document: dict[str, Any] = app.openapi_schema.to_schema()
    bodies = {
        handler.handler_name: handler.opt["body"] for handler in handlers if "body" in handler.opt
    }
    optional = {handler.handler_name for handler in handlers if "optional" in handler.opt}
    by_line = {handler.handler_name for handler in handlers if "lines" in handler.opt}
    ids = {handler.handler_name: handler.opt["id"] for handler in handlers if "id" in handler.opt}
    kinds = {name: kind if isinstance(kind, tuple) else (kind,) for name, kind in bodies.items()}
    schemas, components = msgspec.json.schema_components(
        [one for several in kinds.values() for one in several],
        ref_template="#/components/schemas/{name}",
    )
    document["components"].setdefault("schemas", {}).update(components)
    made = iter(schemas)
    schema_of: dict[str, dict[str, Any]] = {}
    for name, several in kinds.items():
        options = [next(made) for _ in several]
        schema_of[name] = options[0] if len(options) == 1 else {"anyOf": options}
        if name in ids:
            schema_of[name]["items"] = {"allOf": [schema_of[name]["items"], _with(ids[name])]}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if schema := schema_of.get(operation["operationId"]):
                content: dict[str, Any] = {"application/json": {"schema": schema}}
                if operation["operationId"] in by_line:
                    content["application/x-ndjson"] = {"schema": {"type": "string"}}
                required = operation["operationId"] not in optional
                operation["requestBody"] = {"required": required, "content": content}
            for status, headers in _HEADERS.items():
                if status in operation["responses"]:
                    operation["responses"][status]["headers"] = headers
            if not guarded:
                operation["responses"].pop("401", None)
                operation["responses"].pop("403", None)
            elif path not in PUBLIC:
                operation["security"] = [{"key": []}]
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "n":
                    paged = any(one["name"] == "cursor" for one in operation["parameters"])
                    most = MAX_PAGE if paged else config.recommend.max_n
                    parameter["schema"].update(minimum=1, maximum=most)
    return document


def _with(id_field: str) -> dict[str, Any]:
    """The schema of an object that has an id."""
    given = {"type": ["integer", "string"], "minLength": 1, "maxLength": MAX_ID_LENGTH}
    return {"type": "object", "required": [id_field], "properties": {id_field: given}}


def pages(
    handlers: Sequence[HTTPRouteHandler], config: Config, keys: KeyRing
) -> list[HTTPRouteHandler]:
    """Routes that show the description of ``handlers``, to programs and to people."""

    @functools.cache
    def described(guarded: bool) -> bytes:
        return msgspec.json.encode(describe(handlers, config, guarded=guarded))

    shown = resources.files("headwater.api").joinpath("docs.html").read_bytes()

    @get("/openapi.json", include_in_schema=False, opt=ANY)
    async def openapi() -> Response[bytes]:
        return Response(described(keys.required), media_type=OPENAPI_MEDIA_TYPE)

    @get("/docs", include_in_schema=False)
    async def docs() -> Response[bytes]:
        return Response(
            shown,
            media_type=MediaType.HTML,
            headers={
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
                "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'"
            },
        )

    @get("/", include_in_schema=False, opt=ANY)
    async def root() -> dict[str, str]:
        return {
            "name": "headwater",
            "software": __version__,
            "docs": "/docs",
            "openapi": "/openapi.json",
            "status": "/v1/status",
            "metrics": "/metrics",
        }

    return [openapi, docs, root]
