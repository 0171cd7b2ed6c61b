"""The command that lists backbones."""

from __future__ import annotations

from hashbench.cli.options import AsJson
from hashbench.cli.output import print_json, show


def backbones(as_json: AsJson = False) -> None:
    """List short names of backbones, and whether their weights are on this machine; any timm model works."""
    from rich.table import Table

    from hashbench.backbones.presets import PRESETS, SIZE, licence
    from hashbench.backbones.timm_weights import weights_file

    files = {name: weights_file(preset.model) for name, preset in PRESETS.items()}
    if as_json:
        rows = [
            {
                "backbone": name,
                **preset._asdict(),
                "licence": licence(name),
                "weights": str(files[name]) if files[name] else None,
            }
            for name, preset in PRESETS.items()
        ]
        print_json(rows)
        return
    table = Table("backbone", "model", "licence", "here", box=None, pad_edge=False)
    for name, preset in PRESETS.items():
        model = "built in" if preset.model == name else preset.model
        table.add_row(name, model, licence(name), "yes" if files[name] else "no")
    show(table)
    others = [f"{preset.size} px with {name}" for name, preset in PRESETS.items() if preset.size != SIZE]
    show(f"Images are {SIZE} px ({', '.join(others)}). Any timm model works, too.")
    show("Weights that are not here are downloaded on first use.")
