"""`echovec recipes`: the recipes that ship, one line for each prompt."""

from __future__ import annotations


def recipes() -> None:
    """List the preset recipes: name, roles, prompt and pooling."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from echovec.presets import fitted_names, preset, preset_names
    from echovec.recipe import ROLES

    table = Table()
    table.add_column("name", no_wrap=True)
    table.add_column("role", no_wrap=True)
    table.add_column("prompt", overflow="fold")
    table.add_column("pooling", no_wrap=True)
    for name in (*fitted_names(), *preset_names()):
        views = preset(name).views
        alike = all(view == views[ROLES[0]] for view in views.values())
        for number, role in enumerate(ROLES[:1] if alike else ROLES):
            shown_role = "all" if alike else role
            for place, view in enumerate(views[role]):
                first = "" if number or place else name
                prompt = view.template.prompt.replace("\n", "\\n")
                table.add_row(first, "" if place else shown_role, Text(prompt), view.pooling)
    Console(highlight=False).print(table)
