"""Tables of runs, as Markdown, LaTeX and CSV."""
