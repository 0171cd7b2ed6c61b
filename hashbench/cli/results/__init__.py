"""The commands `hashbench results …`."""
