"""Tables, plots, comparisons and an HTML page, all made from records; nothing here trains."""
