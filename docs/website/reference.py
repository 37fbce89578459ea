"""The reference, made from the code: Python by docstrings, REST by the OpenAPI document, settings and commands by their declarations.

Each function returns Markdown; `pages` puts them under their places in the site. Nothing here is started or asked over a socket.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = "selfheal"
NOT_SHOWN = ("migrations", "__main__", "cli")
"""Modules that nobody imports: what they offer is on other pages."""

PYTHON, REST, SETTINGS, COMMANDS, OPENAPI = (
    "reference/python",
    "reference/rest.md",
    "reference/settings.md",
    "reference/commands.md",
    "reference/openapi.json",
)
Schema = dict[str, Any]


@cache
def pages() -> dict[str, str]:
    """Return the generated pages by their places in the site."""
    document = openapi()
    return {
        **{f"{PYTHON}/{package}.md": python_page(package, modules) for package, modules in packages().items()},
        REST: rest_page(document),
        OPENAPI: json.dumps(document, indent=2),
        SETTINGS: settings_page(),
        COMMANDS: commands_page(),
    }


def place_of(path: str) -> str | None:
    """Return where the reference shows a module of the repository, as page and heading; None if it does not."""
    parts = Path(path).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1:] == ("__init__",) else parts)
    for package, modules in packages().items():
        if name == package or name in modules:
            return f"{PYTHON}/{package}.md#{name}"
    return None


# Python


@cache
def packages() -> dict[str, list[str]]:
    """Return the modules of each package of the core by the package's name. A package without modules has an empty list."""
    found: dict[str, list[str]] = {}
    for path in sorted((REPOSITORY / PACKAGE).rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        if set(parts) & set(NOT_SHOWN):
            continue
        if parts[-1] == "__init__":
            found.setdefault(".".join(parts[:-1]), [])
        else:
            found.setdefault(".".join(parts[:-1]), []).append(".".join(parts))
    return found


def python_page(package: str, modules: list[str]) -> str:
    """Return the page of a package: what it is for, then its modules with their public members."""
    lines = [f"# {package}", "", f"::: {package}", "    options:"]
    lines += ["      show_root_heading: false", "      show_root_toc_entry: false", "      members: false", ""]
    for module in modules:
        lines += [f"::: {module}", "    options:", "      heading_level: 2", ""]
    return "\n".join(lines)


# REST


def openapi() -> Schema:
    """Return the OpenAPI document of the service with the shipped use case and the default settings."""
    from selfheal.settings import Settings
    from serving.app import create_app

    document: Schema = create_app(Settings(_env_file=None)).openapi()
    return document


def rest_page(document: Schema) -> str:
    """Return the page of the REST interface: every operation by subject, then every schema."""
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation.get("tags", ["other"])[0], []).append(_operation(method, path, operation))
    schemas = document["components"]["schemas"]
    lines = [
        "# REST",
        "",
        f"{document['info']['summary']} This is the interface of version {document['info']['version']} with the shipped use case;"
        " a running service documents its own contract at `/docs`, to read and to try. What to know before the first call: "
        "[the API guide](../api.md). For generators: [openapi.json](openapi.json).",
        "",
    ]
    for tag, sections in by_tag.items():
        lines += [f"## {tag.capitalize()}", "", *sections]
    lines += ["## Schemas", ""]
    for name, schema in sorted(schemas.items()):
        lines += _schema(name, schema)
    return "\n".join(lines)


def _operation(method: str, path: str, operation: Schema) -> str:
    lines = [f"### `{method.upper()} {path}`", "", f"**{operation['summary']}.** {_prose(operation)}", ""]
    if parameters := operation.get("parameters"):
        lines += ["| parameter | in | type | |", "| --- | --- | --- | --- |"]
        for parameter in parameters:
            required = "**required.** " if parameter.get("required") else ""
            schema = parameter.get("schema", {})
            meaning = f"{required}{_sentence(parameter)}{_default(schema)}"
            lines.append(f"| `{parameter['name']}` | {parameter['in']} | {_type(schema)} | {meaning} |")
        lines.append("")
    if body := operation.get("requestBody"):
        bodies = {_type(content["schema"]) for content in body["content"].values() if "schema" in content}
        lines += [f"Body: {' or '.join(sorted(bodies))}", ""]
    succeeded = {code: answer for code, answer in operation["responses"].items() if code < "400"}
    failed = {code: answer for code, answer in operation["responses"].items() if code >= "400"}
    for code, answer in succeeded.items():
        shapes = {_type(content["schema"]) for content in answer.get("content", {}).values() if content.get("schema")}
        types = ", ".join(f"`{media}`" for media in answer.get("content", {}))
        lines += [f"Answer {code}: {' or '.join(sorted(shapes)) or types or HTTPStatus(int(code)).phrase}", ""]
    if failed:
        codes = ", ".join(f"{code} {HTTPStatus(int(code)).phrase}" for code in sorted(failed))
        lines += [f"Errors ([what they mean](../api.md#errors)): {codes}", ""]
    return "\n".join(lines)


def _schema(name: str, schema: Schema) -> Iterator[str]:
    yield from (f"### {name}", "", _prose(schema), "")
    if "enum" in schema:
        yield from (f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.", "")
    if properties := schema.get("properties"):
        yield from ("| field | type | |", "| --- | --- | --- |")
        required = set(schema.get("required", []))
        for field, declared in properties.items():
            needed = "**required.** " if field in required else ""
            yield f"| `{field}` | {_type(declared)} | {needed}{_sentence(declared)}{_default(declared)} |"
        yield ""


def _type(schema: Schema) -> str:
    """Return a schema's type for a table's cell: named schemas as links, bounds behind numbers."""
    for combined in ("anyOf", "oneOf", "allOf"):
        if combined in schema:
            return " or ".join(dict.fromkeys(_type(choice) for choice in schema[combined]))
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " or ".join(f"`{value}`" for value in values)
    return _plain_type(schema)


def _plain_type(schema: Schema) -> str:
    kind = schema.get("type", "any")
    values = schema.get("additionalProperties")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(values, dict):
        return f"object of {_type(values)}"
    name = f"{kind} ({schema['format']})" if "format" in schema else str(kind)
    return f"{name}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    if low is not None:
        return f", from {low:,}"
    return "" if high is None else f", up to {high:,}"


def _prose(schema: Schema) -> str:
    return str(schema.get("description") or "").strip()


def _cell(schema: Schema) -> str:
    return " ".join(_prose(schema).split()).replace("|", "\\|")


def _sentence(schema: Schema) -> str:
    text = _cell(schema)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', ')')) or not text else '.'}"


def _default(schema: Schema) -> str:
    if schema.get("default") is None:
        return ""
    return f" Default: `{json.dumps(schema['default'])}`."


# Settings and commands


def settings_page() -> str:
    """Return the table of all settings: name, type with bounds, default, meaning."""
    from selfheal.settings import FORMER_NAMES, Settings

    declared = Settings.model_json_schema(by_alias=False)
    definitions = declared.get("$defs", {})
    lines = [
        "# Settings",
        "",
        "Each is an environment variable or a line of `.env`. A value that is not allowed stops the start with the setting, the value and "
        "what is allowed. A secret, or an address with a password, may also be in a file: `NAME_FILE` names it, or it lies in `SECRETS_DIR` under the setting's name. "
        "`selfheal config` prints the settings in force and where each came from.",
        "",
        "| setting | type | default | |",
        "| --- | --- | --- | --- |",
    ]
    for name, schema in declared["properties"].items():
        resolved = definitions.get(schema.get("$ref", "").rpartition("/")[2], schema)
        default = schema.get("default")
        shown = "" if default in (None, "") else f"`{default}`"
        former = f" Former name: `{FORMER_NAMES[name].upper()}`." if name in FORMER_NAMES else ""
        meaning = f"{_sentence(schema)}{former}"
        lines.append(f"| `{name.upper()}` | {_plain(_type(resolved))} | {shown} | {meaning} |")
    return "\n".join([*lines, ""])


def _plain(kind: str) -> str:
    """Return a type without `null`, which only means that a setting may be absent, and without the mark of secrets."""
    return kind.replace(" or null", "").replace(" (password)", ", secret").replace(" (path)", " (path)")


def commands_page() -> str:
    """Return every command of `selfheal` by panel: what it does, its arguments and options."""
    import typer

    from selfheal.cli import app

    root = typer.main.get_command(app)
    by_panel: dict[str, list[str]] = {}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        panel = getattr(command, "rich_help_panel", None) or "Commands"
        by_panel.setdefault(str(panel), []).extend(_command(f"selfheal {name}", command))
    lines = ["# Commands", "", f"{' '.join((root.help or '').split())}", ""]
    for panel, sections in by_panel.items():
        lines += [f"## {panel}", "", *sections]
    return "\n".join(lines)


def _command(name: str, command: Any) -> Iterator[str]:
    import typer

    yield from (f"### `{name}`", "", " ".join((command.help or "").split()), "")
    context = typer.Context(command, info_name=name)
    records = [parameter.get_help_record(context) for parameter in command.params]
    if any(records):
        yield from ("| | |", "| --- | --- |")
    for called, text in filter(None, records):
        meaning, _, bounds = text.replace("|", "\\|").partition("  [")
        default = f" `{bounds.removesuffix(']')}`" if bounds else ""
        yield f"| `{called.replace(' range>', '>')}` | {meaning}{default} |"
    yield ""
    for inner, subcommand in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {inner}", subcommand)
