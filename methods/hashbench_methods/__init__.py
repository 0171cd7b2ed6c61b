"""The methods that come with hashbench; each folder is one plugin."""

METHODS = {
    "wch": "hashbench_methods.wch:WCH",
}
