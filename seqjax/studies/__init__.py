"""Studies: many runs that differ in chosen options, one claim, one answer."""
