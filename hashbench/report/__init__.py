"""From records to papers: tables, plots, comparisons and a page to look at; reads records, trains nothing."""
