"""One scenario per file; a file that names SCENARIO here is on the page."""
