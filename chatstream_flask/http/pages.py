"""Headers of HTML pages and their static files."""

from __future__ import annotations

from pathlib import Path

from flask import Response, send_from_directory

CONTENT_TYPES = {  # systems map suffixes differently, and browsers run no script of another type
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".LICENSE": "text/plain; charset=utf-8",
}


def page_headers(*, frame_ancestors: str, trusted_types: str = "", images: str = "") -> dict[str, str]:
    """Return the headers of a page whose scripts and styles come from its own server.

    :param frame_ancestors: sources that may embed the page
    :param trusted_types: names of the policies that may make HTML from strings
    :param images: sources of images
    """
    policy = [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        *([f"img-src {images}"] if images else []),
        "base-uri 'none'",
        "form-action 'none'",
        f"frame-ancestors {frame_ancestors}",
        "require-trusted-types-for 'script'",
        f"trusted-types {trusted_types}".rstrip(),
    ]
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",  # a page may carry a token of the visitor's session
    }


def static_file(folder: Path, name: str) -> Response:
    """Return a file of a page; 404 if there is none."""
    response = send_from_directory(folder, name)
    response.content_type = CONTENT_TYPES[Path(name).suffix]
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
