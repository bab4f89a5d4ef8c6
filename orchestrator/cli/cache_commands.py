"""Commands for this machine's cache of decoded and downloaded data."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Debug, errors

app = typer.Typer(help="Show or free the space that decoded data take.", no_args_is_help=True)


@app.command()
def size(as_json: AsJson = False, debug: Debug = False) -> None:
    """Show where the cache is and what it takes."""
    with errors(debug):
        from trainers.data import cache

        found = cache.measure()
        if as_json:
            typer.echo(json.dumps(dataclasses.asdict(found), indent=1))
            return
        typer.echo(
            f"{found.directory}: {found.decoded} decoded data sets with {_in_words(found.decoded_bytes)}, and "
            f"{_in_words(found.other_bytes)} of downloads"
        )


@app.command()
def clear(
    downloads: Annotated[bool, typer.Option("--downloads", help="Remove downloaded data too.")] = False,
    debug: Debug = False,
) -> None:
    """Remove the decoded data; the next experiment decodes its data again."""
    with errors(debug):
        from trainers.data import cache

        typer.echo(f"{_in_words(cache.clear(downloads=downloads))} are free")


def _in_words(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"
