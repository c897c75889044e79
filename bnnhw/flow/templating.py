"""Pages and texts from the templates of a package."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template, select_autoescape


def template(package: str, name: str) -> Template:
    """Returns a file of the package's folder `templates`; what goes into an HTML is escaped.

    Rendering raises jinja2.UndefinedError for a name that is not given.
    """
    environment = Environment(
        loader=PackageLoader(package), undefined=StrictUndefined,
        autoescape=select_autoescape(["html"]), trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name)
