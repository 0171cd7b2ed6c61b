"""The methods that are installed with hashbench. Each folder is a plugin."""

METHODS = {
    "wch": "hashbench_methods.wch:WCH",
    "cibhash": "hashbench_methods.cibhash:CIBHash",
    "bihalf": "hashbench_methods.bihalf:BiHalf",
    "spq": "hashbench_methods.spq:SPQ",
    "greedyhash": "hashbench_methods.greedyhash:GreedyHash",
    "sdc": "hashbench_methods.sdc:SDC",
    "nsh": "hashbench_methods.nsh:NSH",
    "tbh": "hashbench_methods.tbh:TBH",
    "ssdh": "hashbench_methods.ssdh:SSDH",
    "mls3rduh": "hashbench_methods.mls3rduh:MLS3RDUH",
    "cimon": "hashbench_methods.cimon:CIMON",
    "mecoq": "hashbench_methods.mecoq:MeCoQ",
    "uhbdnn": "hashbench_methods.uhbdnn:UHBDNN",
    "crovca": "hashbench_methods.crovca:CroVCA",
    "itq": "hashbench_methods.itq:ITQ",
    "pcah": "hashbench_methods.pcah:PCAH",
    "sh": "hashbench_methods.sh:SH",
    "lsh": "hashbench_methods.lsh:LSH",
    "pcarr": "hashbench_methods.pcarr:PCARR",
    "agh": "hashbench_methods.agh:AGH",
    "sph": "hashbench_methods.sph:SPH",
    "sklsh": "hashbench_methods.sklsh:SKLSH",
    "imh": "hashbench_methods.imh:IMH",
    "pq": "hashbench_methods.pq:PQ",
    "opq": "hashbench_methods.opq:OPQ",
}

ALIASES: dict[str, str] = {"ugh": "greedyhash"}
"""Other names of methods, for the user to type; records have the first name."""
