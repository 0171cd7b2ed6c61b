"""The methods that are installed with hashbench. Each folder is a plugin."""

METHODS = {
    "wch": "hashbench_methods.wch:WCH",
    "cibhash": "hashbench_methods.cibhash:CIBHash",
    "bihalf": "hashbench_methods.bihalf:BiHalf",
    "spq": "hashbench_methods.spq:SPQ",
    "ssdh": "hashbench_methods.ssdh:SSDH",
    "mls3rduh": "hashbench_methods.mls3rduh:MLS3RDUH",
    "cimon": "hashbench_methods.cimon:CIMON",
    "itq": "hashbench_methods.itq:ITQ",
    "pcah": "hashbench_methods.pcah:PCAH",
    "sh": "hashbench_methods.sh:SH",
    "lsh": "hashbench_methods.lsh:LSH",
}

ALIASES: dict[str, str] = {"ugh": "greedyhash"}
"""Other names of methods, for the user to type; records have the first name."""
