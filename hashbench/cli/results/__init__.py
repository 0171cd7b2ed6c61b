"""The commands `hashbench results …`: list, show, verify, export and import runs."""
